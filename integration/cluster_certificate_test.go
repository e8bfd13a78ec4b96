package integration

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"stellar.io/stellar/internal/pki"
	"stellar.io/stellar/internal/testx/faults"
)

// reissue gives n, whose agent is stopped, a certificate that was made at another
// time, signed with the key that from holds.
func (n *node) reissue(from *node, at time.Time, life time.Duration) {
	n.t.Helper()
	open := func(n *node) *pki.Store {
		s, err := pki.Open(filepath.Join(n.dir, "data", "tls"), pki.Options{})
		if err != nil {
			n.t.Fatal(err)
		}
		return s
	}
	ca, err := open(from).CA()
	if err != nil {
		n.t.Fatal(err)
	}
	s := open(n)
	id, _ := s.Identity()
	csr, err := s.Request(id)
	if err != nil {
		n.t.Fatal(err)
	}
	der, err := ca.Sign(csr, id, at, life)
	if err == nil {
		err = s.Install(der, nil)
	}
	if err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) awaitStatus(want ...string) {
	n.t.Helper()
	n.eventually(quiet, "status says "+strings.Join(want, ", "), func() error {
		out, _ := n.run("status") // its exit code says how it is
		out = strings.Join(strings.Fields(out), " ")
		for _, w := range want {
			if !strings.Contains(out, w) {
				return errors.New(out)
			}
		}
		return nil
	})
}

// TestCertificateExpired: a node was off for longer than its certificate lived. One
// that holds the CA's key helps itself; any other says what has happened, keeps what
// runs, and comes back with a token, as the node that it was.
func TestCertificateExpired(t *testing.T) {
	nodes := startCluster(t, 2)
	a, b := nodes[0], nodes[1]
	eps := []endpoint{a.start("one"), b.start("two")}
	a.leased(eps...)
	for _, n := range nodes {
		n.routed(nodes...)
		if err := n.stopAgent(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(filepath.Join(b.dir, "data", "tls", "ca.key")); err == nil {
		t.Fatal("b has the CA's key: it would help itself")
	}
	past, life := time.Now().Add(-30*time.Minute), time.Minute
	b.reissue(a, past, life)
	a.reissue(a, past, life)
	b.mayLog = "certificate has expired"

	a.startAgent()
	a.cli("status", "--wait", "--timeout", "30s")
	a.awaitStatus("certificate OK")
	b.startAgent()
	b.awaitStatus("certificate has expired", "stellar cluster join")
	if e := b.await("two", "provisional"); e.Address != eps[1].Address {
		faults.Safety(t, "%+v, was %+v", e, eps[1])
	}
	b.reaches("two", eps[0].Address)

	// Wrong ways are refused, and say why.
	if out, err := b.tryJoin(a, a.token()[:20]); err == nil || !strings.Contains(err.Error(), "token") {
		t.Errorf("half a token: %v %s", err, out)
	}
	if out, err := a.tryJoin(a, a.token()); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("a member in good standing joins again: %v %s", err, out)
	}
	if out, err := b.tryJoin(a, a.token()); err != nil || !strings.Contains(out, "172.16.4.0/22") {
		t.Fatalf("join again: %v\n%s\n%s", err, out, b.tail())
	}
	b.awaitStatus("certificate OK", "leader OK")
	e := b.start("three")
	a.leased(eps[0], eps[1], e)
	if out := a.cli("node", "ls"); strings.Count(out, "ready") != 2 || strings.Count(out, "\n") != 3 {
		t.Errorf("node ls:\n%s", out)
	}
	sameState(t, nodes)
}

// TestCertificateRenewed: nodes whose certificates live for two minutes get new ones
// at half of that, from their own key or the leader, and nothing that is called
// meanwhile fails.
func TestCertificateRenewed(t *testing.T) {
	nodes := startCluster(t, 2)
	a, b := nodes[0], nodes[1]
	for _, n := range nodes {
		if err := n.stopAgent(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		n.reissue(a, time.Now().Add(-50*time.Second), 2*time.Minute) // due in 10 to 22 s
	}
	for _, n := range nodes {
		n.startAgent()
	}
	for _, n := range nodes {
		n.cli("status", "--wait", "--timeout", "30s")
	}
	calls := 0
	for renewed := 0; renewed < 2; {
		block := "172.30.0.0/22"
		b.cli("ipam", "reserve", block) // by the leader
		b.cli("ipam", "release", "-y", block)
		a.cli("ipam", "reserve", "172.16.4.77") // by b
		a.cli("ipam", "release", "-y", "172.16.4.77")
		calls += 4
		renewed = 0
		for _, n := range nodes {
			if log, _ := os.ReadFile(n.log); strings.Contains(string(log), "certificate renewed") {
				renewed++
			}
		}
		if calls > 4000 {
			t.Fatalf("%d of 2 renewed after %d calls", renewed, calls)
		}
	}
	t.Logf("%d calls, none failed", calls)
	for range 10 {
		a.cli("ipam", "reserve", "172.16.4.77")
		a.cli("ipam", "release", "-y", "172.16.4.77")
	}
	sameState(t, nodes)
}
