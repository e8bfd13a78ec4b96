package netsetup

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func (b *bed) gone(name string) error {
	if out, err := b.host.Output("ip", "link", "show", name); err == nil {
		return fmt.Errorf("still there: %s", out)
	}
	return nil
}

func TestDetach(t *testing.T) {
	t.Parallel()
	inModes(t, testDetachIn)
}

func testDetachIn(t *testing.T, mode func(*Config)) {
	t.Parallel()
	b := newBed(t, mode).ensure()
	c := b.attach("172.16.0.2")
	mustPing(t, c, b.gateway())
	for range 2 {
		if err := b.n.Detach(t.Context(), c.spec.Owner); err != nil {
			t.Fatal(err)
		}
		if err := b.gone(c.ep.HostIfname); err != nil {
			t.Fatal(err)
		}
	}
	if eps, err := b.n.List(t.Context()); err != nil || len(eps) != 0 {
		t.Errorf("List = %+v, %v", eps, err)
	}
	if out := b.host.Run(t, "ip", "neigh"); strings.Contains(out, "172.16.0.2") {
		t.Errorf("neighbour left: %s", out)
	}
	if err := b.n.Detach(t.Context(), owner("never was")); err != nil {
		t.Errorf("Detach of an unknown owner = %v", err)
	}
}

// TestDetachByLaterProcess: what an earlier process attached is found again, even
// by a table that was filled before.
func TestDetachByLaterProcess(t *testing.T) {
	t.Parallel()
	inModes(t, testDetachByLaterProcessIn)
}

func testDetachByLaterProcessIn(t *testing.T, mode func(*Config)) {
	t.Parallel()
	b := newBed(t, mode).ensure()
	later := b.network()
	if _, err := later.List(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := b.attach("172.16.0.2")
	if err := later.Detach(t.Context(), c.spec.Owner); err != nil {
		t.Fatal(err)
	}
	if err := b.gone(c.ep.HostIfname); err != nil {
		t.Error(err)
	}
}

// TestDetachPinned: the process has gone, its namespace is held by someone. The
// address must be off the wire within a second all the same.
func TestDetachPinned(t *testing.T) {
	t.Parallel()
	inModes(t, testDetachPinnedIn)
}

func testDetachPinnedIn(t *testing.T, mode func(*Config)) {
	t.Parallel()
	for _, watched := range []bool{false, true} {
		t.Run(fmt.Sprintf("watched=%v", watched), func(t *testing.T) {
			b := newBed(t, mode).ensure()
			if watched {
				b.run()
			}
			other, c := b.attach("172.16.0.3"), b.attach("172.16.0.2")
			b.open("/proc/" + fmt.Sprint(c.pid) + "/ns/net")
			mustPing(t, other, "172.16.0.2")
			c.kill()
			start := time.Now()
			if err := b.n.Detach(t.Context(), c.spec.Owner); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(start); took > time.Second {
				t.Errorf("Detach took %s", took)
			}
			if err := b.gone(c.ep.HostIfname); err != nil {
				t.Error(err)
			}
			if err := other.ping("172.16.0.2"); err == nil {
				t.Error("the address still answers")
			}
			if _, lost := b.reports(); len(lost) > 0 {
				t.Errorf("a detached endpoint was reported lost: %+v", lost)
			}
		})
	}
}

// TestDetachDying: nobody holds the namespace; it takes the link along.
func TestDetachDying(t *testing.T) {
	t.Parallel()
	inModes(t, testDetachDyingIn)
}

func testDetachDyingIn(t *testing.T, mode func(*Config)) {
	t.Parallel()
	for _, watched := range []bool{false, true} {
		t.Run(fmt.Sprintf("watched=%v", watched), func(t *testing.T) {
			b := newBed(t, mode).ensure()
			if watched {
				b.run()
			}
			c := b.attach("172.16.0.2")
			c.ns.Close()
			c.kill()
			if err := b.n.Detach(t.Context(), c.spec.Owner); err != nil {
				t.Fatal(err)
			}
			if err := b.gone(c.ep.HostIfname); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestDetachMany: concurrent detaches share the cost of the deletes and touch
// nothing else.
func TestDetachMany(t *testing.T) {
	t.Parallel()
	inModes(t, testDetachManyIn)
}

func testDetachManyIn(t *testing.T, mode func(*Config)) {
	t.Parallel()
	b := newBed(t, mode).ensure()
	var many []*container
	for i := range 30 {
		many = append(many, b.attach(fmt.Sprintf("172.16.0.%d", i+2)))
	}
	stays := b.attach("172.16.1.2")
	b.host.Run(t, "ip", "link", "add", "foreign0", "type", "veth", "peer", "name", "foreign1")
	start := time.Now()
	var wait sync.WaitGroup
	for _, c := range many {
		wait.Go(func() {
			if err := b.n.Detach(t.Context(), c.spec.Owner); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	t.Logf("%d detached in %s", len(many), time.Since(start))
	eps, err := b.n.List(t.Context())
	if err != nil || len(eps) != 1 || eps[0].Owner != stays.spec.Owner {
		t.Errorf("List = %+v, %v", eps, err)
	}
	mustPing(t, stays, b.gateway())
	b.host.Run(t, "ip", "link", "show", "foreign0")
}

// TestDetachForgetsFlows: connections of the address are forgotten, others stay.
func TestDetachForgetsFlows(t *testing.T) {
	t.Parallel()
	inModes(t, testDetachForgetsFlowsIn)
}

func testDetachForgetsFlowsIn(t *testing.T, mode func(*Config)) {
	t.Parallel()
	b := newBed(t, mode).ensure()
	b.lan.Outside.Run(t, "ip", "route", "add", "blackhole", "203.0.113.0/24")
	c, other := b.attach("172.16.0.2"), b.attach("172.16.0.3")
	for _, c := range []*container{c, other} {
		mustPing(t, c, "192.0.2.254")
		c.run("bash", "-c", "echo x > /dev/udp/192.0.2.254/9")
	}
	flows := func() string {
		out, err := b.host.Output("conntrack", "-L")
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if out := flows(); !strings.Contains(out, "src=172.16.0.2 ") || !strings.Contains(out, "src=172.16.0.3 ") {
		t.Fatalf("no flows to forget: %s", out)
	}
	if err := b.n.Detach(t.Context(), c.spec.Owner); err != nil {
		t.Fatal(err)
	}
	if out := flows(); strings.Contains(out, "172.16.0.2 ") || !strings.Contains(out, "src=172.16.0.3 ") {
		t.Errorf("flows after detach: %s", out)
	}
}

// TestDetachVerifiesAlias: an index that was given to another link is not deleted.
func TestDetachVerifiesAlias(t *testing.T) {
	t.Parallel()
	inModes(t, testDetachVerifiesAliasIn)
}

func testDetachVerifiesAliasIn(t *testing.T, mode func(*Config)) {
	t.Parallel()
	b := newBed(t, mode).ensure()
	c := b.attach("172.16.0.2")
	b.host.Run(t, "ip", "link", "set", c.ep.HostIfname, "alias", "somebody else's")
	if err := b.n.Detach(t.Context(), c.spec.Owner); err != nil {
		t.Fatal(err)
	}
	b.host.Run(t, "ip", "link", "show", c.ep.HostIfname)
}

func TestCleanup(t *testing.T) {
	t.Parallel()
	inModes(t, testCleanupIn)
}

func testCleanupIn(t *testing.T, mode func(*Config)) {
	t.Parallel()
	b := newBed(t, mode)
	clean := state(t, b.host)
	b.ensure()
	b.attach("172.16.0.2")
	b.attach("172.16.0.3")
	b.host.Run(t, "ip", "link", "add", "foreign0", "type", "veth", "peer", "name", "foreign1")
	b.host.Run(t, "ip", "link", "delete", "foreign0")
	later, err := New(Config{HostNS: b.cfg.HostNS}) // knows of no subnet and no mode
	if err != nil {
		t.Fatal(err)
	}
	defer later.Close()
	for range 2 {
		if err := later.Cleanup(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := state(t, b.host); strings.TrimSpace(got) != strings.TrimSpace(clean) {
			t.Errorf("before:\n%s\nafter:\n%s", clean, got)
		}
		if got := b.sysctl("net.ipv4.conf.eth0.forwarding"); got != "0" {
			t.Errorf("eth0 still forwards: %s", got)
		}
	}
}

func (b *bed) sysctl(key string) string {
	b.t.Helper()
	return strings.TrimSpace(b.host.Run(b.t, "sysctl", "-n", key))
}

// TestCloseKeepsEverything: the data plane outlives its maker.
func TestCloseKeepsEverything(t *testing.T) {
	t.Parallel()
	inModes(t, testCloseKeepsEverythingIn)
}

func testCloseKeepsEverythingIn(t *testing.T, mode func(*Config)) {
	t.Parallel()
	b := newBed(t, mode).ensure()
	n := b.network()
	c := b.container("172.16.0.2")
	if _, _, err := n.Attach(t.Context(), c.spec); err != nil {
		t.Fatal(err)
	}
	before := state(t, b.host)
	if err := n.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		t.Fatal(err)
	}
	if after := state(t, b.host); before != after {
		t.Errorf("Close changed the host: %s", after)
	}
	mustPing(t, c, b.gateway())
}

// TestDeleteLinksOfGone: a batch in which some links have gone by themselves.
func TestDeleteLinksOfGone(t *testing.T) {
	t.Parallel()
	inModes(t, testDeleteLinksOfGoneIn)
}

func testDeleteLinksOfGoneIn(t *testing.T, mode func(*Config)) {
	t.Parallel()
	b := newBed(t, mode).ensure()
	c := b.attach("172.16.0.2")
	for i, err := range b.n.deleteLinks([]int{1 << 20, c.ep.HostIndex, 1<<20 + 1}) {
		if err != nil {
			t.Errorf("link %d: %v", i, err)
		}
	}
	if err := b.gone(c.ep.HostIfname); err != nil {
		t.Error(err)
	}
	for _, err := range b.n.deleteLinks([]int{1 << 20}) {
		if err != nil && !errors.Is(err, unix.ENODEV) {
			t.Error(err)
		}
	}
}
