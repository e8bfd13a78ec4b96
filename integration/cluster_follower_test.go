package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"stellar.io/stellar/internal/testx"
)

// joinToFollow has n join the cluster of other as a node that follows a server.
func (n *node) joinToFollow(other *node) {
	n.t.Helper()
	if out, err := n.tryJoin(other, other.token("--role", "node"), "--follow"); err != nil {
		n.t.Fatalf("%v\n%s\n%s\n%s", err, out, n.tail(), other.tail())
	}
	n.cli("status", "--wait", "--timeout", "30s")
}

var followsServer = regexp.MustCompile(`follows (\w+), (\d+) behind`)

// server returns which of nodes n follows, as its status says.
func (n *node) server(nodes []*node) (s *node) {
	n.t.Helper()
	n.eventually(quiet, n.name+" follows a server", func() error {
		out, _ := n.run("status")
		m := followsServer.FindStringSubmatch(out)
		for _, o := range nodes {
			if m != nil && o.name == m[1] {
				s = o
				return nil
			}
		}
		return fmt.Errorf("%s", out)
	})
	return s
}

// role is what node ls on n says of another.
func (n *node) roleOf(other *node) (role, status string) {
	n.t.Helper()
	var list struct {
		Items []struct{ Name, Role, Status string }
	}
	if err := json.Unmarshal([]byte(n.cli("node", "ls", "-o", "json")), &list); err != nil {
		n.t.Fatal(err)
	}
	for _, i := range list.Items {
		if i.Name == other.name {
			return i.Role, i.Status
		}
	}
	return "", ""
}

// startFollowed makes a cluster of three servers and two followers.
func startFollowed(t *testing.T) (servers, followers, all []*node) {
	t.Helper()
	lan := testx.NewLAN(t, 5)
	for i := range 5 {
		all = append(all, newNode(t, lan, i, nodeOptions{}))
	}
	servers, followers = all[:3], all[3:]
	all[0].startAgent("--init")
	all[0].cli("status", "--wait", "--timeout", "30s")
	for _, n := range servers[1:] {
		n.startAgent()
		n.join(all[0], all[0].token())
	}
	for i, n := range followers {
		n.startAgent()
		n.joinToFollow(servers[i+1]) // who does not lead passes it on
	}
	awaitVoters(t, servers)
	return servers, followers, all
}

// TestFollowers: nodes that follow have addresses, routes and commands as members of
// Raft have; the loss of the server that one follows, of its own agent, and a time
// without any server cost no packet.
func TestFollowers(t *testing.T) {
	t.Parallel()
	servers, followers, all := startFollowed(t)
	f := followers[0]
	eps := map[*node]endpoint{}
	for _, n := range all {
		n.routed(all...)
		eps[n] = n.start(unique("run-" + n.name))
	}
	for _, n := range all {
		for _, o := range all {
			if n != o {
				n.reaches(eps[n].Container, eps[o].Address)
			}
		}
		for _, o := range followers {
			if role, status := n.roleOf(o); role != "follower" || status != "ready" {
				t.Errorf("node ls on %s: %s is %q, %q", n.name, o.name, role, status)
			}
		}
		if out := n.cli("raft", "peers"); strings.Count(out, "\n") != 4 {
			t.Errorf("raft peers on %s has more than the three servers:\n%s", n.name, out)
		}
	}
	sameState(t, all)

	// A follower may do what a node may, and no more.
	if _, err := f.run("cluster", "token", "create"); err == nil {
		t.Error("a follower has made a token")
	}
	f.cli("node", "drain", f.name)
	f.cli("node", "drain", "--off", f.name)

	// The server that it follows dies.
	s := f.server(servers)
	lost := f.pinging(eps[f].Container, eps[followers[1]].Address)
	began := time.Now()
	_ = s.stopAgent(syscall.SIGKILL)
	took := f.committed(began, unique("after"))
	t.Logf("a follower's lease was replicated %s after the death of its server", took.Round(time.Millisecond))
	if limit := 5 * time.Second; took > limit && !raceEnabled {
		t.Errorf("a follower's lease was replicated after %s, at most %s are allowed", took, limit)
	}
	if now := f.server(servers); now == s {
		t.Errorf("%s still follows %s, which is dead", f.name, s.name)
	}
	wantNoLoss(t, "the followed server killed", lost)
	s.startAgent()
	s.cli("status", "--wait", "--timeout", "30s")
	sameState(t, all)

	// Its own agent dies; then it comes up with no server there.
	lost = f.pinging(eps[f].Container, eps[followers[1]].Address)
	for _, n := range servers {
		_ = n.stopAgent(syscall.SIGKILL)
	}
	_ = f.stopAgent(syscall.SIGKILL)
	f.startAgent()
	f.eventually(quiet, "a follower without a server attaches", func() error {
		_, err := f.run("endpoint", "inspect", eps[f].Container)
		return err
	})
	alone := unique("alone")
	f.runContainer(testx.Run{ID: alone, Labels: networked()})
	f.await(alone, "provisional")
	f.routed(all...)
	wantNoLoss(t, "no server is there", lost)
	for _, n := range servers {
		n.startAgent()
	}
	for _, n := range servers {
		n.cli("status", "--wait", "--timeout", "60s")
	}
	f.replicated(alone)
	f.replicated(f.start(unique("again")).Container)
	sameState(t, all)
}

// TestFollowerPromoted: a follower becomes a server that votes, and what runs on it
// goes on; another is removed, and a third comes back with a damaged snapshot.
func TestFollowerPromoted(t *testing.T) {
	servers, followers, all := startFollowed(t)
	f, g := followers[0], followers[1]
	for _, n := range all {
		n.routed(all...)
	}
	run, other := f.start(unique("run")), servers[0].start(unique("other"))

	// The snapshot of one is damaged.
	_ = g.stopAgent(syscall.SIGTERM)
	path := filepath.Join(g.dir, "data", "raft", "state.snapshot")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	g.startAgent()
	g.cli("status", "--wait", "--timeout", "30s")
	sameState(t, all)

	if out, err := f.run("raft", "promote", f.name); err == nil || !strings.Contains(out+err.Error(), "server") {
		t.Errorf("a follower has promoted itself: %v %s", err, out)
	}
	lost := f.pinging(run.Container, other.Address)
	servers[0].cli("raft", "promote", f.name)
	f.cli("status", "--wait", "--timeout", "30s")
	wantNoLoss(t, "a follower promoted", lost)
	if role, _ := servers[1].roleOf(f); role != "server" && role != "leader" {
		t.Errorf("%s is %q after its promotion", f.name, role)
	}
	servers[0].eventually(quiet, f.name+" votes", func() error {
		out := servers[0].cli("raft", "peers", "--no-headers")
		for line := range strings.Lines(out) {
			if strings.HasPrefix(line, f.name+" ") && strings.Contains(line, " yes ") {
				return nil
			}
		}
		return fmt.Errorf("%s", out)
	})
	f.start(unique("more"))
	sameState(t, all)

	_ = g.stopAgent(syscall.SIGKILL)
	servers[0].eventually(quiet, "a follower that is off is lost", func() error {
		if _, status := servers[0].roleOf(g); status != "lost" {
			return fmt.Errorf("%s is %q", g.name, status)
		}
		return nil
	})
	g.startAgent()
	g.cli("status", "--wait", "--timeout", "30s")

	servers[0].cli("node", "rm", "-y", g.name)
	g.eventually(quiet, "the removed follower knows", func() error {
		if out, _ := g.run("status"); !strings.Contains(out, "removed from the cluster") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	if role, _ := servers[0].roleOf(g); role != "" {
		t.Errorf("%s is still listed as %q", g.name, role)
	}
}
