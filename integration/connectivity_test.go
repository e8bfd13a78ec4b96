package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"stellar.io/stellar/api"
	"stellar.io/stellar/internal/testx"
)

// lentNetwork is what the agents call the network of throw-away endpoints.
const lentNetwork = "stellar-connectivity-test"

// connectivity runs a test on the node and returns the report. It must end with the
// exit code.
func (n *node) connectivity(exit int, args ...string) (r api.ConnectivityReport) {
	n.t.Helper()
	out, err := n.run(append([]string{"connectivity", "test", "-o", "json"}, args...)...)
	if got := exitCode(err); got != exit {
		n.t.Errorf("connectivity test %v: exit code %d, want %d: %v\n%s", args, got, exit, err, out)
	}
	var kind struct{ Kind string }
	if err := errors.Join(json.Unmarshal([]byte(out), &kind), json.Unmarshal([]byte(out), &r)); err != nil || kind.Kind != "ConnectivityReport" {
		n.t.Fatalf("report: %v\n%s", err, out)
	}
	return r
}

func exitCode(err error) int {
	if err == nil {
		return 0
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	return -1
}

// of returns "from→to test" of the results in a state, sorted.
func of(r api.ConnectivityReport, state string) (out []string) {
	for _, t := range r.Results {
		if t.State == state {
			out = append(out, t.From+"→"+t.To+" "+t.Test)
		}
	}
	slices.Sort(out)
	return out
}

// wantFailed compares what failed, and sees that all else is well.
func wantFailed(t *testing.T, what string, r api.ConnectivityReport, want ...string) {
	t.Helper()
	if got := of(r, api.TestFail); !slices.Equal(got, want) {
		t.Errorf("%s: failed\n%q, want\n%q", what, got, want)
		for _, x := range r.Results {
			if x.State != api.TestOK {
				t.Logf("%+v", x)
			}
		}
	}
	if got := of(r, api.TestSkip); len(got) > 0 {
		t.Errorf("%s: not tried: %q", what, got)
	}
}

// namespaces returns how many network namespaces the agent keeps open.
func (n *node) namespaces() (count int) {
	n.t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", n.agent.Process.Pid)
	fds, err := os.ReadDir(dir)
	if err != nil {
		n.t.Fatal(err)
	}
	for _, fd := range fds {
		if to, _ := os.Readlink(filepath.Join(dir, fd.Name())); strings.HasPrefix(to, "net:") {
			count++
		}
	}
	return count
}

// bare is what a node has when nothing is lent.
type bare struct{ namespaces, links, used int }

func (n *node) bare() (b bare) {
	n.t.Helper()
	b.namespaces = n.namespaces()
	b.links = strings.Count(n.host.Run(n.t, "ip", "-o", "link", "show", "type", "veth"), "veth")
	var subnets struct{ Items []api.Subnet }
	if err := json.Unmarshal([]byte(n.cli("ipam", "ls", "-o", "json")), &subnets); err != nil {
		n.t.Fatal(err)
	}
	for _, s := range subnets.Items {
		if s.Node == n.name {
			b.used = s.Used
		}
	}
	return b
}

// wantBare waits until each node has what it had, in the kernel, in the store and in
// the agent, and no check finds anything.
func wantBare(t *testing.T, what string, nodes []*node, before []bare) {
	t.Helper()
	for i, n := range nodes {
		n.eventually(quiet, what+": nothing is left on "+n.name, func() error {
			if got := n.bare(); got != before[i] {
				return fmt.Errorf("%+v, before %+v", got, before[i])
			}
			es, err := n.list()
			if err != nil {
				return err
			}
			for id := range es {
				if strings.HasPrefix(id, lentNetwork+"/") {
					return fmt.Errorf("endpoint %s", id)
				}
			}
			if left, _ := filepath.Glob(filepath.Join(n.dir, "data", "requests", "*.json")); len(left) > 0 {
				return fmt.Errorf("requests %v", left)
			}
			return nil
		})
	}
	if _, r := nodes[0].check(t, ""); len(r.Problems) > 0 {
		t.Errorf("%s: %+v", what, r.Problems)
	}
}

func bareAll(nodes []*node) (out []bare) {
	for _, n := range nodes {
		out = append(out, n.bare())
	}
	return out
}

// filter puts a rule into a chain of its own on the host until the test of it is over.
func (n *node) filter(hook, rule string) (remove func()) {
	n.t.Helper()
	n.host.Run(n.t, "nft", fmt.Sprintf("add table ip conn; add chain ip conn c { type filter hook %s priority -10; }; add rule ip conn c %s", hook, rule))
	return func() { n.host.Run(n.t, "nft", "delete table ip conn") }
}

// TestConnectivity (real containerd): three nodes. Healthy, every path passes, with
// containers that run and with throw-away endpoints; a filter, a small link and a
// node that is away are found, in exactly the pairs that they concern; nothing of it
// stays in any kernel or in IPAM.
func TestConnectivity(t *testing.T) {
	nodes := startCluster(t, 3)
	a, b, c := nodes[0], nodes[1], nodes[2]
	awaitVoters(t, nodes)
	for _, n := range nodes {
		n.routed(nodes...)
	}
	before := bareAll(nodes)
	const within, across = 6, 4
	r := a.connectivity(0, "--own")
	wantFailed(t, "throw-away endpoints", r)
	if len(r.Results) != 3*within+6*across || r.Pairs != 3 || r.AllPairs != 3 || len(r.Nodes) != 3 {
		t.Errorf("%d results of %d pairs, %d nodes", len(r.Results), r.Pairs, len(r.Nodes))
	}
	for _, n := range r.Nodes {
		if len(n.Endpoints) != 2 || !n.Endpoints[0].Own || !n.Endpoints[1].Own || n.Endpoints[0].Namespace != lentNetwork || n.Error != "" {
			t.Errorf("node %+v", n)
		}
	}
	wantBare(t, "throw-away endpoints", nodes, before)

	// Containers that run are used, and none is made where there are enough.
	a.start("one")
	b.start("one")
	b.start("two")
	before = bareAll(nodes)
	r = c.connectivity(0)
	wantFailed(t, "containers", r)
	for i, own := range [][]bool{{false, true}, {false, false}, {true, true}} {
		for j, e := range r.Nodes[i].Endpoints {
			if e.Own != own[j] || !e.Own && e.Namespace != "default" {
				t.Errorf("node %s: %+v", r.Nodes[i].Node, e)
			}
		}
	}
	wantBare(t, "containers", nodes, before)
	if r := a.connectivity(0, "--sample", "1"); r.Pairs != 1 || r.AllPairs != 3 || len(r.Nodes) != 2 || len(r.Results) != 2*within+2*across {
		t.Errorf("a sample: %d of %d pairs, %d nodes, %d results", r.Pairs, r.AllPairs, len(r.Nodes), len(r.Results))
	}
	if out := a.cli("connectivity", "test"); !strings.Contains(out, "42 paths between 3 nodes: 42 OK, 0 failed, 0 not tried") {
		t.Errorf("table:\n%s", out)
	}

	// What a's containers send is dropped where b forwards it: both directions fail,
	// for the answers of one are what the other sends.
	remove := b.filter("forward", "ip saddr 172.16.0.0/22 drop")
	wantFailed(t, "b forwards nothing from a", a.connectivity(5),
		"a→b containers", "a→b path-mtu", "b→a containers", "b→a path-mtu")
	remove()
	// Dropped are only the requests: one direction.
	remove = b.filter("forward", "ip saddr 172.16.0.0/22 icmp type echo-request drop")
	wantFailed(t, "b forwards no requests from a", c.connectivity(5), "a→b containers", "a→b path-mtu")
	remove()
	// The host alone.
	remove = c.filter("output", "oifname stellar0 icmp type echo-request drop")
	wantFailed(t, "c's host does not reach its containers", b.connectivity(5), "c→c host-to-container")
	remove()
	// The way out.
	r = a.connectivity(5, "--out", "203.0.113.77")
	wantFailed(t, "nobody there", r, "a→a way-out", "b→b way-out", "c→c way-out")

	// A link that takes less than both ends believe.
	c.outside.Run(t, "ip", "link", "set", "port3", "mtu", "1400")
	r = a.connectivity(5)
	wantFailed(t, "a small link", r, "a→c path-mtu", "b→c path-mtu", "c→a path-mtu", "c→b path-mtu")
	for _, x := range r.Results {
		// A bridge and a veth let pass 4 bytes more, the length of a VLAN's tag.
		if x.State == api.TestFail && (x.MTU < 1400 || x.MTU > 1404 || !strings.Contains(x.Reason, fmt.Sprintf("%d bytes pass in one piece, not of 1500", x.MTU))) {
			t.Errorf("%+v", x)
		}
	}
	c.outside.Run(t, "ip", "link", "set", "port3", "mtu", "1500")

	// A node whose agent is away is named; its host is tried all the same.
	_ = c.stopAgent(syscall.SIGKILL)
	r = a.connectivity(5)
	if got := of(r, api.TestFail); len(got) > 0 {
		t.Errorf("c is away: failed %q", got)
	}
	if got := of(r, api.TestOK); len(got) != 2*within+2*across+2 || !slices.Contains(got, "a→c container-to-host") || !slices.Contains(got, "b→c container-to-host") {
		t.Errorf("c is away: OK %q", got)
	}
	if r.Nodes[2].Node != "c" || !strings.Contains(r.Nodes[2].Error, "cannot be reached") {
		t.Errorf("node %+v", r.Nodes[2])
	}
	c.startAgent()
	c.cli("status", "--wait", "--timeout", "30s")
	a.eventually(quiet, "all is well again", func() error {
		_, err := a.run("connectivity", "test")
		return err
	})
	wantBare(t, "at the end", nodes, before)
}

// TestConnectivityLeavesNothing (real containerd): a test that is interrupted, one
// whose node is killed, one that is never given back: what was made for it goes.
func TestConnectivityLeavesNothing(t *testing.T) {
	nodes := startCluster(t, 3)
	a, b, c := nodes[0], nodes[1], nodes[2]
	awaitVoters(t, nodes)
	before := bareAll(nodes)

	// Each probe takes its time, so that there is one to be in the middle of.
	var removes []func()
	for _, n := range nodes {
		removes = append(removes, n.filter("forward", "icmp type echo-request drop"))
	}
	running := func() (cmd *exec.Cmd) {
		t.Helper()
		cmd = exec.Command(binary, "-a", "unix://"+filepath.Join(a.dir, "run", "stellar.sock"), "connectivity", "test", "--own")
		cmd.Env = append(os.Environ(), raceOptions)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for _, n := range nodes {
			n.eventually(quiet, "endpoints are lent on "+n.name, func() error {
				es, err := n.list()
				if err == nil && !slices.ContainsFunc(keys(es), func(id string) bool { return strings.HasPrefix(id, lentNetwork+"/") }) {
					err = fmt.Errorf("%v", keys(es))
				}
				return err
			})
		}
		return cmd
	}
	cmd := running()
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); exitCode(err) != 1 {
		t.Errorf("interrupted: %v", err)
	}
	wantBare(t, "interrupted", nodes, before)

	cmd = running()
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	wantBare(t, "the command is killed", nodes, before)

	cmd = running()
	_ = a.stopAgent(syscall.SIGKILL)
	if err := cmd.Wait(); exitCode(err) != 3 {
		t.Errorf("its agent is killed: %v", err)
	}
	a.startAgent()
	a.cli("status", "--wait", "--timeout", "30s")
	wantBare(t, "its agent is killed", nodes, before)

	cmd = running()
	_ = c.stopAgent(syscall.SIGKILL)
	if err := cmd.Wait(); exitCode(err) != 5 {
		t.Errorf("another agent is killed: %v", err)
	}
	c.startAgent()
	c.cli("status", "--wait", "--timeout", "30s")
	wantBare(t, "another agent is killed", nodes, before)
	for _, remove := range removes {
		remove()
	}

	// The node's own deadline.
	begun, limit := time.Now(), 3*time.Second
	err := b.client().LendEndpoints(context.Background(), api.ConnectivityTest{Own: true, Limit: limit}, func(l api.ConnectivityLoan) {
		if now := b.bare(); now.links != before[1].links+2 || now.namespaces < before[1].namespaces+2 || len(l.Node.Endpoints) != 2 {
			t.Errorf("lent: %+v, before %+v, loan %+v", now, before[1], l)
		}
	})
	if took := time.Since(begun); err != nil || took < limit {
		t.Errorf("the loan ended after %s: %v", took, err)
	}
	wantBare(t, "never given back", nodes, before)
}

func keys[V any](m map[string]V) (out []string) {
	for k := range m {
		out = append(out, k)
	}
	return out
}

// TestPing (real containerd): containers, nodes and addresses are reached by name,
// from this node, out of its containers and out of another node's.
func TestPing(t *testing.T) {
	nodes := startCluster(t, 2)
	a, b := nodes[0], nodes[1]
	for _, n := range nodes {
		n.routed(nodes...)
	}
	web, db := a.start("web"), b.start("db")
	a.eventually(quiet, "a knows of db", func() error { _, err := a.run("ping", "db", "-c", "1"); return err })
	for _, tt := range []struct{ args, head, from string }{
		{"web", "PING default/web (" + web.Address + ") from node a:", web.Address},
		{"default/db", "PING default/db (" + db.Address + ") from node a:", db.Address},
		{"db --from web", "PING default/db (" + db.Address + ") from default/web on node a:", db.Address},
		{"web --from db", "PING default/web (" + web.Address + ") from default/db on node b:", web.Address},
		{"web --from b", "PING default/web (" + web.Address + ") from node b:", web.Address},
		{"b --from web", "PING b (192.0.2.2) from default/web on node a:", "192.0.2.2"},
		{"a --from " + db.Address, "PING a (192.0.2.1) from default/db on node b:", "192.0.2.1"},
		{"192.0.2.254 --from web -s 3000", "PING 192.0.2.254 from default/web on node a: 3000(3028)", "192.0.2.254"},
	} {
		out := a.cli(append([]string{"ping", "-c", "2", "-i", "10ms"}, strings.Fields(tt.args)...)...)
		if !strings.HasPrefix(out, tt.head) || !strings.Contains(out, " bytes from "+tt.from+": icmp_seq=2 ttl=") || !strings.Contains(out, "2 packets transmitted, 2 received, 0% packet loss") {
			t.Errorf("ping %s:\n%s", tt.args, out)
		}
	}
	b.runContainer(testx.Run{ID: "hosted", Labels: networked(), HostNet: true})
	b.await("hosted", "rejected")
	for _, tt := range []struct {
		args, says string
		exit       int
	}{
		{"nobody", "is no container, node or address (hint: name a container", 4},
		{"web --from 192.0.2.254", "belongs to no container and no node of this cluster", 2},
		{"172.16.0.0/22", "is a block of addresses (hint: name one of them)", 2},
		{"203.0.113.77 -W 100ms", "no reply from 203.0.113.77", 1},
	} {
		out, err := a.run(append([]string{"ping", "-c", "2", "-i", "10ms"}, strings.Fields(tt.args)...)...)
		if exitCode(err) != tt.exit || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("ping %s: %v\n%s", tt.args, err, out)
		}
	}
	if _, err := b.run("ping", "a", "--from", "hosted", "-c", "1"); exitCode(err) != 7 || !strings.Contains(err.Error(), "host network") {
		t.Errorf("out of a container without a network: %v", err)
	}
	remove := b.filter("forward", "ip saddr 172.16.0.0/22 reject with icmp type admin-prohibited")
	out, err := a.run("ping", "db", "--from", "web", "-c", "1")
	if exitCode(err) != 1 || !strings.Contains(out, "From 192.0.2.2: icmp_seq=1 administratively prohibited") {
		t.Errorf("a filter that says so: %v\n%s", err, out)
	}
	remove()
	_ = b.stopAgent(syscall.SIGKILL)
	if out := a.cli("ping", "db", "-c", "1"); !strings.Contains(out, " 0% packet loss") {
		t.Errorf("the agent of the target need not run:\n%s", out)
	}
	if _, err := a.run("ping", "web", "--from", "db", "-c", "1"); exitCode(err) != 3 || !strings.Contains(err.Error(), "node b") {
		t.Errorf("that of the source must: %v", err)
	}
	b.startAgent()
}
