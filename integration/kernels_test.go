package integration

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/nlx"
	"stellar.io/stellar/internal/nsx"
	"stellar.io/stellar/internal/testx"
	"stellar.io/stellar/internal/testx/faults"
)

// ownAddr is an address of the plan in a process's /proc/PID/net/fib_trie.
var ownAddr = regexp.MustCompile(`\|-- (172\.16\.\d+\.\d+)\n\s+/32 host LOCAL`)

// kernels looks every 100 ms at what must never be, over all of nodes' kernels: a
// subnet with two next hops, an address in two live network namespaces.
type kernels struct {
	nodes     []*node
	hosts     []place // of nodes, in their order
	moving    bool    // next hops are not looked at
	end, done chan struct{}
	once      sync.Once

	mu   sync.Mutex // guards pods
	pods []place    // besides the nodes' containers

	samples, most int // written until done is closed; most addresses seen at once
	seen          map[string]bool
	errs          []error // where it could not look
}

// place is a network namespace that may have addresses of the plan.
type place struct {
	name string
	ns   string    // which one it is
	conn *nlx.Conn // nil: it is a process's
	proc string    // the process's directory in /proc
}

// watchKernels looks from now on until the test ends, and fails it for what was seen.
// What is begun after it, and so ended before it, is looked at to its end.
func watchKernels(t testing.TB, nodes ...*node) *kernels {
	t.Helper()
	k := newKernels(t, nodes...)
	t.Cleanup(func() { k.judge(t) })
	go k.run()
	return k
}

// watchAddresses is watchKernels where hosts get other addresses, so that a subnet has two
// next hops until all nodes know.
func watchAddresses(t testing.TB, nodes ...*node) {
	t.Helper()
	k := newKernels(t, nodes...)
	k.moving = true
	t.Cleanup(func() { k.judge(t) })
	go k.run()
}

// newKernels looks at nothing before run.
func newKernels(t testing.TB, nodes ...*node) *kernels {
	t.Helper()
	k := &kernels{nodes: nodes, end: make(chan struct{}), done: make(chan struct{}), seen: map[string]bool{}}
	t.Cleanup(func() {
		for _, p := range append(k.hosts, k.pods...) {
			p.conn.Close()
		}
	})
	for _, n := range nodes {
		k.hosts = append(k.hosts, openPlace(t, n.host))
	}
	return k
}

func openPlace(t testing.TB, ns *testx.NetNS) place {
	t.Helper()
	id, err := nsx.IDOf(ns.FD)
	if err != nil {
		t.Fatal(err)
	}
	c, err := nlx.Dial(ns.FD, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	return place{name: ns.Name, ns: id.String(), conn: c}
}

// add has more namespaces looked at, those that are no container's.
func (k *kernels) add(t testing.TB, pods ...*testx.NetNS) {
	t.Helper()
	for _, ns := range pods {
		p := openPlace(t, ns)
		k.mu.Lock()
		k.pods = append(k.pods, p)
		k.mu.Unlock()
	}
}

// start begins to look, until stop or the end of the test.
func (k *kernels) start(t testing.TB) {
	t.Cleanup(k.stop)
	go k.run()
}

func (k *kernels) stop() {
	k.once.Do(func() { close(k.end) })
	<-k.done
}

// wrong is what was seen, after stop.
func (k *kernels) wrong() []string { return slices.Sorted(maps.Keys(k.seen)) }

// judge ends the watch and fails the test for what was seen.
func (k *kernels) judge(t testing.TB) {
	t.Helper()
	k.stop()
	t.Logf("%d samples, up to %d addresses at once", k.samples, k.most)
	for _, wrong := range k.wrong() {
		faults.Safety(t, "seen in the kernels: %s", wrong)
	}
	for _, err := range k.errs {
		t.Error(err)
	}
	if !t.Failed() && (k.samples < 5 || k.most < 2) {
		t.Errorf("%d samples with at most %d addresses prove nothing", k.samples, k.most)
	}
}

func (k *kernels) run() {
	defer close(k.done)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		k.samples++
		if !k.moving {
			k.nextHops()
		}
		k.addresses()
		select {
		case <-k.end:
			return
		case <-tick.C:
		}
	}
}

func (k *kernels) nextHops() {
	via := map[netip.Prefix]netip.Addr{}
	for i, h := range k.hosts {
		routes, err := h.conn.MainRoutes()
		if err != nil {
			k.errs = append(k.errs, fmt.Errorf("look at %s: %w", k.nodes[i].name, err))
		}
		for _, r := range routes {
			if r.Protocol != 147 || !r.Via.IsValid() {
				continue
			}
			if other, ok := via[r.Dst]; ok && other != r.Via {
				k.seen[fmt.Sprintf("%s via %s and %s", r.Dst, other, r.Via)] = true
			}
			via[r.Dst] = r.Via
		}
	}
}

// addresses looks a second time where it finds an address twice: the first place
// may have lost it in between.
func (k *kernels) addresses() {
	k.mu.Lock()
	places := slices.Clone(k.pods)
	k.mu.Unlock()
	at := map[string]place{}
	for _, p := range append(places, k.tasks()...) {
		for _, addr := range p.addresses() {
			first, twice := at[addr]
			if !twice {
				at[addr] = p
				continue
			}
			if first.ns != p.ns && slices.Contains(first.addresses(), addr) && slices.Contains(p.addresses(), addr) {
				k.seen[addr+" in "+first.name+" and "+p.name] = true
			}
		}
	}
	k.most = max(k.most, len(at))
}

// tasks are the nodes' containers that have a process, as the shims' files say:
// containerd itself may be away.
func (k *kernels) tasks() (out []place) {
	for _, n := range k.nodes {
		files, _ := filepath.Glob(filepath.Join(n.containerd.Dir, "state", "io.containerd.runtime.v2.task", "*", "*", "init.pid"))
		for _, f := range files {
			pid, err := os.ReadFile(f)
			if err != nil {
				continue // it has just been deleted
			}
			p := place{name: filepath.Base(filepath.Dir(f)) + " on " + n.name, proc: "/proc/" + strings.TrimSpace(string(pid))}
			p.ns, err = os.Readlink(p.proc + "/ns/net")
			isHost := func(h place) bool { return h.ns == p.ns }
			if err == nil && !slices.ContainsFunc(k.hosts, isHost) { // or the number is another process's now
				out = append(out, p)
			}
		}
	}
	return out
}

// addresses are those of the namespace, but for loopback's; none if it is gone.
func (p place) addresses() (out []string) {
	if p.conn == nil {
		table, _ := os.ReadFile(p.proc + "/net/fib_trie")
		for _, m := range ownAddr.FindAllSubmatch(table, -1) {
			out = append(out, string(m[1]))
		}
		slices.Sort(out)
		return slices.Compact(out) // it shows the tables main and local as one, or each
	}
	list, err := p.conn.Addrs(0)
	if err != nil {
		return nil
	}
	for _, a := range list {
		if !a.Prefix.Addr().IsLoopback() {
			out = append(out, a.Prefix.Addr().String())
		}
	}
	return out
}
