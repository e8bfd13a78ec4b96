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

	"stellar.io/stellar/internal/testx/faults"
)

// report is the file of `ipam check --report`.
type report struct {
	APIVersion string           `json:"apiVersion"`
	Kind       string           `json:"kind"`
	Problems   []map[string]any `json:"problems"`
	Nodes      []struct {
		Node    string
		Checked int
		Error   string
	} `json:"nodes"`
}

// check runs `ipam check` and returns the file and what it says.
func (n *node) check(t *testing.T, code string) (path string, r report) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "report")
	out, err := n.run("ipam", "check", "--report", path)
	if code == "" && err != nil || code != "" && (err == nil || !strings.Contains(err.Error(), "exit status "+code)) {
		t.Errorf("ipam check: %v\n%s", err, out)
	}
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err != nil || r.Kind != "IpamReport" {
		t.Fatalf("report: %v\n%s", err, data)
	}
	return path, r
}

// find returns the problem of an address.
func (r report) find(address string) map[string]any {
	for _, p := range r.Problems {
		if p["address"] == address {
			return p
		}
	}
	return nil
}

// TestIpamCheckEveryNode (real containerd): one command finds what is wrong on any
// node: an address that two nodes' kernels carry, a lease whose container is gone; a
// node that does not answer is named. What a report calls releasable is looked at
// again by its holder, and what has been taken up since is not touched.
func TestIpamCheckEveryNode(t *testing.T) {
	nodes := startCluster(t, 3)
	awaitVoters(t, nodes)
	a, b, c := nodes[0], nodes[1], nodes[2]
	eps := map[*node]endpoint{}
	for _, n := range nodes {
		n.routed(nodes...)
		eps[n] = n.start(unique("run-" + n.name))
	}
	stopped := b.start(unique("stopped"))
	if err := b.containerd.KillTask("default", stopped.Container); err != nil {
		t.Fatal(err)
	}
	b.await(stopped.Container, "bound")
	a.leased(eps[a], eps[b], eps[c], stopped)
	if _, r := a.check(t, ""); len(r.Nodes) != 3 || len(r.Problems) != 0 {
		t.Errorf("%+v", r)
	}

	// c's kernel gets an interface with the marks of a's container.
	mark := regexp.MustCompile(`alias (stellar1 container .*)`).FindStringSubmatch(a.host.Run(t, "ip", "-d", "link", "show", eps[a].HostIfname))
	if mark == nil {
		t.Fatal("no mark on ", eps[a].HostIfname)
	}
	c.host.Run(t, "ip", "link", "add", "vethdouble", "group", "147", "type", "veth", "peer", "name", "doublepeer")
	c.host.Run(t, "ip", "link", "set", "vethdouble", "alias", strings.TrimSpace(mark[1]))
	if _, r := b.check(t, "5"); r.find(eps[a].Address)["kind"] != "doubled" || r.find(eps[a].Address)["node"] != "c" {
		t.Errorf("%+v", r)
	}
	c.host.Run(t, "ip", "link", "del", "vethdouble")

	// A container is deleted while its node's agent is off, and so is another node.
	_ = b.stopAgent(syscall.SIGKILL)
	if err := b.containerd.Remove("default", stopped.Container); err != nil {
		t.Fatal(err)
	}
	if _, r := a.check(t, "5"); !strings.Contains(fmt.Sprintf("%+v", r.Nodes), "Node:b Checked:0 Error:") {
		t.Errorf("%+v", r)
	}
	b.startAgent()
	var path string
	a.eventually(quiet, "b is checked", func() error {
		var r report
		out, err := a.run("ipam", "check", "-o", "json")
		if json.Unmarshal([]byte(out), &r) != nil || len(r.Nodes) != 3 || strings.Contains(fmt.Sprintf("%+v", r.Nodes), "Error:n") {
			return fmt.Errorf("%v %s", err, out)
		}
		path = filepath.Join(t.TempDir(), "leaked")
		return os.WriteFile(path, []byte(out), 0o600)
	})
	b.cli("status", "--wait", "--timeout", "30s")
	// The report also names a lease that is in use: as if it had been taken up since.
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var whole map[string]any
	if err := json.Unmarshal(data, &whole); err != nil {
		t.Fatal(err)
	}
	owner := func(e endpoint) map[string]any {
		var shown struct{ Owner map[string]any }
		if err := json.Unmarshal([]byte(b.cli("ipam", "show", e.Address, "-o", "json")), &shown); err != nil {
			t.Fatal(err)
		}
		return shown.Owner
	}
	problems := whole["problems"].([]any)
	t.Logf("b leaks just after its start: %v", problems)
	for _, e := range []endpoint{eps[b], eps[c]} {
		problems = append(problems, map[string]any{
			"kind": "leaked", "node": e.Node, "address": e.Address, "owner": owner(e), "releasable": true, "message": "as it was",
		})
	}
	whole["problems"] = problems
	if data, err = json.Marshal(whole); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := a.run("ipam", "release", "--from-report", path); err == nil || !strings.Contains(err.Error(), "--yes") {
		t.Errorf("without --yes: %v %s", err, out)
	}
	out, err := a.run("ipam", "release", "--from-report", path, "--yes")
	if err == nil || strings.Contains(out, eps[b].Address) || strings.Contains(out, eps[c].Address) || !strings.Contains(err.Error(), "carried") {
		t.Errorf("release: %v\n%s", err, out)
	}
	a.eventually(quiet, "nothing is wrong any more", func() error {
		_, err := a.run("ipam", "check")
		return err
	})
	for _, n := range nodes {
		if e := n.await(eps[n].Container, "attached"); e.Address != eps[n].Address {
			faults.Safety(t, "%+v, was %+v", e, eps[n])
		}
	}
	if text := b.cli("ipam", "show", stopped.Address); !strings.Contains(text, "cooling") && !strings.Contains(text, "free") {
		t.Errorf("the leaked address:\n%s", text)
	}
}
