package integration

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"stellar.io/stellar/internal/config"
	"stellar.io/stellar/internal/testx"
	"stellar.io/stellar/internal/testx/faults"
)

// routedGateway is what containers without a bridge have for a gateway.
const routedGateway = "169.254.1.1"

// startRouted makes a node in routed mode.
func startRouted(t *testing.T) *node {
	t.Helper()
	return startNode(t, nodeOptions{mode: config.ModeRouted})
}

// TestRouted: containers of a node without a bridge have a /32 each, reach each other,
// their host and the world, and are reached, under their own addresses.
func TestRouted(t *testing.T) {
	n := startRouted(t)
	a, b := n.start("a"), n.start("b")
	if a.Address != "172.16.0.1" || b.Address != "172.16.0.2" {
		t.Errorf("addresses %s and %s: none is kept for a gateway", a.Address, b.Address)
	}
	for what, want := range map[string]string{
		"ip -4 -o address show eth0": "inet " + a.Address + "/32",
		"ip route":                   "default via " + routedGateway + " dev eth0",
		"ip neigh":                   routedGateway + " dev eth0 lladdr",
	} {
		if out, err := n.exec("a", strings.Fields(what)...); err != nil || !strings.Contains(out, want) {
			t.Errorf("%s in the container lacks %q: %v\n%s", what, want, err, out)
		}
	}
	if out := n.host.Run(t, "ip", "route", "show", "proto", "147"); !strings.Contains(out, a.Address+" dev "+a.HostIfname) || !strings.Contains(out, b.Address+" dev "+b.HostIfname) {
		t.Errorf("routes of the host:\n%s", out)
	}
	if out, err := n.host.Output("ip", "link", "show", "stellar0"); err == nil {
		t.Errorf("a bridge: %s", out)
	}
	n.reaches("a", b.Address)
	n.reaches("b", a.Address)
	n.reaches("a", "192.0.2.1")
	n.reaches("a", "192.0.2.254")
	n.host.Run(t, "ping", "-c", "1", "-w", "3", a.Address)
	n.says("status", "mode")
	for command, want := range map[string]string{
		"node ls -o wide": "MODE", "node inspect a": "Mode:       routed", "endpoint inspect a": routedGateway, "ipam ls": "1020",
		"trace a b": a.HostIfname, "route ls": "unreachable",
	} {
		if out, err := n.run(strings.Fields(command)...); err != nil || !strings.Contains(out, want) {
			t.Errorf("%s lacks %q: %v\n%s", command, want, err, out)
		}
	}
	if out := n.cli("route", "ls"); strings.Contains(out, "stellar0") {
		t.Errorf("route ls names a bridge that is not there:\n%s", out)
	}
	n.finds()
	if out, err := n.run("connectivity", "test", "--yes"); err != nil {
		t.Errorf("connectivity test: %v\n%s", err, out)
	}
	// Nothing is lost while the agent is killed, away and back.
	lost := n.pinging("a", b.Address)
	for range 3 {
		_ = n.stopAgent(syscall.SIGKILL)
		n.startAgent()
		n.cli("status", "--wait", "--timeout", "30s")
		if e := n.await("a", "attached"); e.Address != a.Address || e.HostIfname != a.HostIfname {
			faults.Safety(t, "after a restart %+v, was %+v", e, a)
		} else if e.Ready != "adopted" {
			t.Errorf("after a restart %+v, not adopted", e)
		}
	}
	wantNoLoss(t, "agent killed three times, routed", lost)
	n.checked()
}

// says fails the test unless a command succeeds and its output has the word.
func (n *node) says(command, word string) {
	n.t.Helper()
	if out, err := n.run(strings.Fields(command)...); err != nil || !strings.Contains(out, word) {
		n.t.Errorf("%s lacks %q: %v\n%s", command, word, err, out)
	}
}

// finds waits until `stellar check` finds nothing but what the bed itself is: its agent
// has no unit and its host no limit of neighbours.
func (n *node) finds() {
	n.t.Helper()
	n.eventually(quiet, "check finds nothing", func() error {
		out, err := n.run("check")
		if err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
		return nil
	})
}

// TestRoutedRepair: whatever of ours others break is put right within two seconds.
func TestRoutedRepair(t *testing.T) {
	n := startRouted(t)
	a, b := n.start("a"), n.start("b")
	for _, tt := range []struct {
		name, reach string
		breakIt     []string
	}{
		{"host route deleted", b.Address, []string{"ip", "route", "del", a.Address}},
		{"host route of the other deleted", b.Address, []string{"ip", "route", "del", b.Address}},
		{"neighbour wrong", b.Address, []string{"ip", "neigh", "replace", b.Address, "lladdr", "02:00:00:00:00:99", "dev", b.HostIfname, "nud", "permanent"}},
		{"host end down", b.Address, []string{"ip", "link", "set", a.HostIfname, "down"}},
		{"forwarding off", "192.0.2.254", []string{"sysctl", "-qw", "net.ipv4.conf." + a.HostIfname + ".forwarding=0", "net.ipv4.conf.eth0.forwarding=0"}},
		{"rules flushed", "192.0.2.254", []string{"nft", "flush", "ruleset"}},
		{"all routes of ours flushed", b.Address, []string{"ip", "route", "flush", "proto", "147"}},
	} {
		n.host.Run(t, tt.breakIt[0], tt.breakIt[1:]...)
		start := time.Now()
		n.eventually(5*time.Second, tt.name, func() error {
			_, err := n.exec("a", "ping", "-c", "1", "-W", "1", tt.reach)
			return err
		})
		if took := time.Since(start); took > 2500*time.Millisecond { // the ping and the exec have their part
			t.Errorf("%s: repaired after %s", tt.name, took)
		}
	}
	n.repairsMAC("a", b.Address)
	if out := n.cli("events"); !strings.Contains(out, "repair") {
		t.Errorf("no repair among the events:\n%s", out)
	}
}

// TestRoutedCleanup takes everything down, and nothing else does.
func TestRoutedCleanup(t *testing.T) {
	n := startNode(t, nodeOptions{noAgent: true, mode: config.ModeRouted})
	before := n.fingerprint()
	n.startAgent("--init")
	a := n.start("a")
	n.stopAgent(syscall.SIGTERM)
	n.host.Run(t, "ping", "-c", "1", "-w", "3", a.Address)
	for range 2 {
		n.host.Run(t, binary, "agent", "cleanup", "--yes", "--data-dir", n.dir+"/data", "--run-dir", n.dir+"/run")
	}
	if after := n.fingerprint(); after != before {
		t.Errorf("left behind:\n%s\nbefore:\n%s", after, before)
	}
	n.startAgent() // the next agent attaches again what still runs
	if e := n.await("a", "attached"); e.Address != a.Address {
		faults.Safety(t, "address %s, want %s", e.Address, a.Address)
	}
	n.reaches("a", "192.0.2.254")
}

// TestMixedModes: two nodes without a bridge and one with: whoever reaches whom does not
// depend on it, and an address that is a gateway on one node is a container's on another.
func TestMixedModes(t *testing.T) {
	lan := testx.NewLAN(t, 3)
	var nodes []*node
	for i, mode := range []string{config.ModeRouted, config.ModeRouted, config.ModeBridge} {
		nodes = append(nodes, newNode(t, lan, i, nodeOptions{mode: mode}))
	}
	nodes[0].startAgent("--init")
	nodes[0].cli("status", "--wait", "--timeout", "30s")
	for _, n := range nodes[1:] {
		n.startAgent()
		n.join(nodes[0], nodes[0].token())
	}
	var eps []endpoint
	for i, n := range nodes {
		n.routed(nodes...)
		first := 1
		if n.mode == config.ModeBridge {
			first = 2
		}
		for k := range 2 {
			e := n.start(fmt.Sprintf("%s%d", n.name, k+1))
			if want := fmt.Sprintf("172.16.%d.%d", 4*i, first+k); e.Address != want {
				faults.Safety(t, "%s has %s, want %s", e.Container, e.Address, want)
			}
			eps = append(eps, e)
		}
	}
	for i := range eps {
		for j := range eps {
			if i != j && (i%2 == 0 || i/2 == j/2) {
				nodes[i/2].reaches(eps[i].Container, eps[j].Address)
			}
		}
	}
	for i, n := range nodes {
		for _, e := range eps {
			n.host.Run(t, "ping", "-c", "1", "-w", "3", e.Address)
		}
		if out, err := n.run("trace", eps[2*i].Container, eps[(2*i+2)%6].Container); err != nil {
			t.Errorf("trace: %v\n%s", err, out)
		}
		n.finds()
	}
	out := nodes[2].cli("node", "ls", "-o", "wide")
	if strings.Count(out, "routed") != 2 || strings.Count(out, "bridge") != 1 {
		t.Errorf("node ls:\n%s", out)
	}
	if out, err := nodes[0].run("connectivity", "test", "--yes"); err != nil {
		t.Errorf("connectivity test: %v\n%s", err, out)
	}
	sameState(t, nodes)
	lost := nodes[0].pinging(eps[0].Container, eps[4].Address)
	for _, n := range nodes {
		_ = n.stopAgent(syscall.SIGKILL)
	}
	for _, n := range nodes {
		n.startAgent()
	}
	for _, n := range nodes {
		n.cli("status", "--wait", "--timeout", "30s")
	}
	wantNoLoss(t, "all agents killed, mixed modes", lost)
}

// TestLargeSubnets: in 10.0.0.0/8 with subnets of /20 a node has 4,094 addresses for
// containers, which no bridge has ports for.
func TestLargeSubnets(t *testing.T) {
	lan := testx.NewLAN(t, 2)
	a, b := newNode(t, lan, 0, nodeOptions{}), newNode(t, lan, 1, nodeOptions{mode: config.ModeBridge})
	large := []string{"cluster", "init", "--network", "10.0.0.0/8", "--subnet-prefix", "20"}
	refused := func(err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), "/22") || !strings.Contains(err.Error(), `mode = "bridge"`) {
			t.Errorf("a bridge is to serve a /20: %v", err)
		}
	}
	b.startAgent()
	_, err := b.run(large...)
	refused(err)
	a.startAgent()
	a.cli(large...)
	a.cli("status", "--wait", "--timeout", "30s")
	_, err = b.tryJoin(a, a.token())
	refused(err)
	b.stopAgent(syscall.SIGTERM)
	b.mode = ""
	b.startAgent()
	b.join(a, a.token())
	for _, n := range []*node{a, b} {
		n.says("status", "routed")
		n.says("ipam ls", "4094")
	}
	ea, eb := a.start("a1"), b.start("b1")
	if ea.Address != "10.0.0.1" || eb.Address != "10.0.16.1" {
		t.Errorf("addresses %s and %s", ea.Address, eb.Address)
	}
	a.eventually(quiet, "a reaches b", func() error {
		_, err := a.exec("a1", "ping", "-c", "1", "-W", "1", eb.Address)
		return err
	})
	b.reaches("b1", ea.Address)
	// Configured otherwise later: it stays what it is, and says so.
	b.stopAgent(syscall.SIGTERM)
	b.mode, b.mayLog = config.ModeBridge, "level=ERROR"
	b.startAgent()
	b.awaitStatus("mode ERR", "routed", `mode = "bridge"`)
	b.reaches("b1", ea.Address)
}

// TestModeChange: a node changes its mode when no address is in use, and until then goes
// on as it is; there and back.
func TestModeChange(t *testing.T) {
	n := startNode(t, nodeOptions{flags: []string{"--config", writeConfig(t, `cool-down = "2s"`)}, mode: config.ModeBridge})
	a := n.start("a")
	restart := func(mode string) {
		t.Helper()
		n.stopAgent(syscall.SIGTERM)
		n.mode = mode
		n.startAgent()
	}
	restart(config.ModeRouted)
	n.awaitStatus("mode ERR", "1 addresses in use", "node drain")
	if e := n.await("a", "attached"); e.Address != a.Address || e.Ready != "adopted" {
		faults.Safety(t, "it was not left alone: %+v", e)
	}
	b := n.start("b")
	n.reaches("b", a.Address)
	n.reaches("a", b.Address)
	n.reaches("a", "172.16.0.1")
	n.says("node inspect a", "bridge")
	for _, id := range []string{"a", "b"} {
		if err := n.containerd.Remove("default", id); err != nil {
			t.Fatal(err)
		}
	}
	n.awaitStatus("mode OK", "routed")
	n.says("node inspect a", "routed")
	n.says("ipam ls", "1022")
	if out, err := n.host.Output("ip", "link", "show", "stellar0"); err == nil {
		t.Errorf("the bridge is still there: %s", out)
	}
	// All 1,022 come before any a second time; the gateway's is one of them now.
	if e := n.start("c", "ip", "172.16.0.1"); e.Address != "172.16.0.1" {
		t.Errorf("address %s", e.Address)
	}
	n.reaches("c", "192.0.2.254")
	n.finds()

	restart(config.ModeBridge)
	n.awaitStatus("mode ERR", "addresses in use")
	n.reaches("c", "192.0.2.254")
	if err := n.containerd.Remove("default", "c"); err != nil {
		t.Fatal(err)
	}
	n.awaitStatus("mode OK", "bridge")
	n.runContainer(testx.Run{ID: "d", Labels: networked("ip", "172.16.0.1")})
	if e := n.await("d", "rejected"); !strings.Contains(e.Reason, "reserved") {
		t.Errorf("the gateway's address: %+v", e)
	}
	e := n.start("e")
	n.reaches("e", "172.16.0.1")
	n.reaches("e", "192.0.2.254")
	if e.Address == "172.16.0.1" {
		t.Errorf("%+v", e)
	}
	n.finds()
	n.checked()
}

// TestCNIRouted: what a CNI client gets from a node without a bridge.
func TestCNIRouted(t *testing.T) {
	n := startRouted(t)
	b := newCNIBed(n)
	must := func(args ...string) string {
		t.Helper()
		out, err := b.cnitool(args...)
		if err != nil {
			t.Fatalf("%v\n%s", err, n.tail())
		}
		return out
	}
	pod := testx.NewNetNS(t)
	out := must("add", "stellar", pod.Path)
	for _, want := range []string{`"address": "172.16.0.1/32"`, `"gateway": "` + routedGateway + `"`, `"0.0.0.0/0"`, `"gw": "` + routedGateway + `"`} {
		if !strings.Contains(out, want) {
			t.Errorf("ADD lacks %s: %s", want, out)
		}
	}
	pod.Run(t, "ping", "-c", "1", "-w", "3", "192.0.2.254")
	must("check", "stellar", pod.Path)
	other := n.start("other")
	pod.Run(t, "ping", "-c", "1", "-w", "3", other.Address)
	_ = n.stopAgent(syscall.SIGKILL)
	n.startAgent()
	must("check", "stellar", pod.Path)
	must("del", "stellar", pod.Path)
	if out, err := pod.Output("ip", "link", "show", "eth0"); err == nil {
		t.Errorf("after DEL: %s", out)
	}
	n.eventually(quiet, "its route is gone", func() error {
		if out := n.host.Run(t, "ip", "route", "show", "172.16.0.1"); out != "" {
			return errors.New(out)
		}
		return nil
	})
	n.runContainer(testx.Run{ID: "web", Through: b.through(), Flags: []string{"--cni"}})
	if e := n.await("web", "attached"); e.Source != "cni" || e.Ready != "sync" {
		t.Errorf("endpoint %+v", e)
	}
	n.reaches("web", other.Address)
}

// TestFaultRoutedKills: agents without bridges, killed under load.
func TestFaultRoutedKills(t *testing.T) {
	t.Setenv(faults.EnvMode, "mixed")
	testKills(t, 3)
}

// TestModeOfWhatRuns: a node whose store was damaged, and that comes back in its own place with
// another mode configured, goes on in the mode that its containers have.
func TestModeOfWhatRuns(t *testing.T) {
	lan := testx.NewLAN(t, 2)
	a, b := newNode(t, lan, 0, nodeOptions{}), newNode(t, lan, 1, nodeOptions{mode: config.ModeBridge, flags: []string{"--config", writeConfig(t, `cool-down = "1s"`)}})
	a.startAgent("--init")
	a.cli("status", "--wait", "--timeout", "30s")
	b.startAgent()
	b.join(a, a.token())
	one, two := a.start("one"), b.start("two")
	b.leased(two)
	_ = b.stopAgent(syscall.SIGKILL)
	b.spoil("raft/raft.db", "default") // the network of each command
	b.mode, b.mayLog = config.ModeRouted, "level=ERROR"
	lost := a.pinging("one", two.Address)
	b.startAgent()
	if out, err := b.tryJoin(a, a.token(), "--replace", "b"); err != nil {
		t.Fatalf("%v\n%s\n%s", err, out, b.tail())
	}
	b.awaitStatus("mode ERR", "bridge, for containers run in that mode", "node drain")
	if e := b.await("two", "attached"); e.Address != two.Address {
		faults.Safety(t, "%+v, was %+v", e, two)
	}
	b.start("three")
	b.reaches("three", one.Address)
	b.reaches("three", two.Address)
	wantNoLoss(t, "a node replaced by itself in another mode", lost)
	for _, id := range []string{"two", "three"} {
		if err := b.containerd.Remove("default", id); err != nil {
			t.Fatal(err)
		}
	}
	b.awaitStatus("mode OK", "routed")
	b.start("four")
	b.reaches("four", one.Address)
}

// TestFaultModeChange: an agent is killed again and again while its node changes its mode
// there and back. Whenever it lives again it is in one of the two, and what is attached
// then works.
func TestFaultModeChange(t *testing.T) {
	rng, began := rand.New(rand.NewPCG(faults.Seed(t, "./integration"), 0)), time.Now()
	n := startNode(t, nodeOptions{flags: []string{"--config", writeConfig(t, `cool-down = "200ms"`)}, mode: config.ModeBridge})
	modes := []string{config.ModeRouted, config.ModeBridge}
	const changes, kills = 6, 4
	for i := range changes {
		n.stopAgent(syscall.SIGTERM)
		n.mode = modes[i%2]
		for range kills {
			n.launch()
			time.Sleep(time.Duration(rng.IntN(int(1500 * time.Millisecond))))
			_ = n.stopAgent(syscall.SIGKILL)
		}
		n.startAgent()
		n.awaitStatus("mode OK", n.mode)
		id := fmt.Sprintf("c%d", i)
		e := n.start(id)
		n.reaches(id, "192.0.2.254")
		n.host.Run(t, "ping", "-c", "1", "-w", "3", e.Address)
		if _, err := n.host.Output("ip", "link", "show", "stellar0"); (err == nil) != (n.mode == config.ModeBridge) {
			t.Errorf("mode %s, and the bridge: %v", n.mode, err)
		}
		if _, err := n.host.Output("ip", "route", "get", "169.254.1.1"); err != nil {
			t.Error(err)
		}
		if err := n.containerd.Remove("default", id); err != nil {
			t.Fatal(err)
		}
		n.await(id, "")
	}
	n.checked()
	if !t.Failed() {
		faults.Report(t, faults.RealContainerd, "kill -9 while the node changes its mode", "%d kills, %d changes: each took place, in %s",
			changes*kills, changes, time.Since(began).Round(time.Second))
	}
}
