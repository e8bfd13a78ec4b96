package agent

import (
	"testing"
	"time"
)

func TestSharedNamespace(t *testing.T) {
	withAgent(t, func(b *bed) {
		host := b.running("host", networked)
		guest := b.running("guest", networked, joining(host.proc.ns))
		plain := b.running("plain", nil, joining(host.proc.ns))
		shown := func() {
			t.Helper()
			h, g := b.want(host, StateAttached), b.want(guest, StateShared)
			if g.Address != h.Address || g.Reason == "" {
				t.Errorf("guest is shown as %+v", g)
			}
			b.want(plain, "")
			b.wantLinks(1)
			b.wantLeases(1)
		}
		shown()
		binds := b.l.binds.Load()
		b.restart()
		shown()
		if b.l.binds.Load() != binds {
			t.Errorf("%d addresses bound for a namespace that has one", b.l.binds.Load()-binds)
		}
		// The host's task ends; the namespace is still in use.
		ns := host.proc.ns
		b.k.mu.Lock()
		ns.fds++
		b.k.mu.Unlock()
		b.c.exit(host)
		b.wait(time.Minute)
		shown()
		b.c.remove(host)
		b.wait(time.Minute)
		shown()
		b.restart()
		b.list()
		b.wait(time.Minute)
		shown()
		b.c.exit(guest)
		b.wait(10 * time.Second)
		b.wantLinks(1)
		b.c.exit(plain)
		b.wait(10 * time.Second)
		b.wantLinks(0)
		b.wantLeases(0)
	})
}

// A guest can be first in the namespace of a container that asks for a network
// later, maybe under another interface name, and after a restart of the agent.
func TestGuestWasFirst(t *testing.T) {
	for _, restart := range []bool{false, true} {
		withAgent(t, func(b *bed) {
			host := b.running("host", nil)
			guest := b.running("guest", with(labelIfname, "net1"), joining(host.proc.ns))
			b.want(guest, StateAttached)
			if restart {
				b.halt()
			}
			b.c.update(host, networked)
			if restart {
				b.start()
				b.list()
			}
			b.wait(time.Second)
			b.want(guest, StateAttached)
			b.want(host, StateShared)
			b.wantLinks(1)
			b.wantLeases(1)
		})
	}
}

// A guest whose host has gone elsewhere gets a network of its own.
func TestGuestOutlivesTheEndpoint(t *testing.T) {
	for name, leave := range map[string]func(*bed, *fakeContainer){
		"host restarts": func(b *bed, host *fakeContainer) {
			b.c.exit(host)
			b.c.task(host)
		},
		"host wants no network any more": func(b *bed, host *fakeContainer) { b.c.update(host, nil) },
		"link is deleted": func(b *bed, host *fakeContainer) {
			b.c.exit(host)
			b.k.lost = b.lost
			b.k.mu.Lock()
			b.k.lose(b.find(host).Owner)
			b.k.mu.Unlock()
		},
	} {
		t.Run(name, func(t *testing.T) {
			withAgent(t, func(b *bed) {
				host := b.running("host", networked)
				guest := b.running("guest", networked, joining(host.proc.ns))
				b.want(guest, StateShared)
				leave(b, host)
				b.wait(5 * time.Second)
				b.want(guest, StateAttached)
				if l := b.link(guest); l == nil || l.Owner.ID != "guest" {
					t.Errorf("guest's link is %+v", l)
				}
			})
		})
	}
}

func TestNamespaceWithItsOwnNetwork(t *testing.T) {
	withAgent(t, func(b *bed) {
		ns := b.k.newNS()
		ns.foreign["eth0"], ns.gateway = true, true
		x := b.running("a", networked, joining(ns))
		shown := func() Endpoint {
			t.Helper()
			e := b.want(x, StateAttached)
			if e.Ifname != "stellar0" || e.DefaultRoute || e.Reason == "" {
				t.Errorf("attached as %+v", e)
			}
			b.wantLinks(1)
			b.wantLeases(1)
			return e
		}
		addr := shown().Address
		binds, attaches := b.l.binds.Load(), b.k.attaches.Load()
		b.list()
		b.wait(time.Second)
		if b.k.attaches.Load() != attaches {
			t.Error("attached again")
		}
		same := func() {
			t.Helper()
			if e := shown(); e.Address != addr || b.l.binds.Load() != binds {
				t.Errorf("address %s, was %s; %d more binds", e.Address, addr, b.l.binds.Load()-binds)
			}
		}
		b.restart()
		same()
		b.list()
		b.a.Repair(x.Key)
		b.wait(time.Second)
		same()
		b.c.exit(x)
		b.wait(time.Second)
		b.restart()
		b.want(x, StateBound)
		b.c.task(x)
		b.wait(time.Second)
		same()
	})
}

func TestCNIContainer(t *testing.T) {
	withAgent(t, func(b *bed) {
		x := b.running("a", networked, func(x *fakeContainer) { x.CNI = true })
		if e := b.want(x, StateAttached); e.Ifname != "stellar0" || e.DefaultRoute || e.Reason == "" {
			t.Errorf("attached as %+v", e)
		}
		y := b.running("b", with(labelIfname, "stellar0"))
		for range 2 {
			if e := b.want(y, StateAttached); e.Ifname != "stellar0" || !e.DefaultRoute {
				t.Errorf("attached as %+v", e)
			}
			b.restart()
			b.c.exit(y)
			b.c.task(y)
			b.wait(time.Second)
		}
	})
}

func TestForeignDefaultRoute(t *testing.T) {
	withAgent(t, func(b *bed) {
		ns := b.k.newNS()
		ns.gateway = true
		x := b.running("a", networked, joining(ns))
		for range 2 {
			if e := b.want(x, StateAttached); e.Ifname != "eth0" || e.DefaultRoute || e.Reason == "" {
				t.Errorf("attached as %+v", e)
			}
			b.restart()
		}
	})
}
