package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"stellar.io/stellar/events"
	"stellar.io/stellar/ipam"
)

// TestCNIOfAContainer: an unlabelled container of containerd whose CNI client
// waits in the middle of the task's creation. It is the container's endpoint:
// found again after a restart, its address kept over DEL, given back at its end.
func TestCNIOfAContainer(t *testing.T) {
	t.Parallel()
	withAgent(t, func(b *bed) {
		b.k.mayDetach = nil
		dir := t.TempDir()
		b.halt()
		b.dir = dir
		b.start()
		b.list()
		x := b.c.create(key("web-1"), nil)
		b.wait(time.Second)
		if found, err := b.a.Del(b.within(time.Second), Request{Network: "stellar", ContainerID: "default-web-1", Ifname: "eth0"}); found || err != nil {
			t.Errorf("DEL before ADD: %t, %v", found, err)
		}
		p := b.creating(x)
		e := b.add(cniRequest(x, p))
		if e.Grade != GradeSync || e.Source != SourceCNI || e.Ifname != "eth0" || e.Owner.Kind != ipam.OwnerContainer || !e.DefaultRoute {
			t.Errorf("endpoint %+v", e)
		}
		if again := b.add(cniRequest(x, p)); again.Address != e.Address {
			t.Errorf("the second ADD gave %s, the first %s", again.Address, e.Address)
		}
		b.created(x)
		b.c.run(x)
		b.wait(time.Minute)
		if now := b.want(x, StateAttached); now.Grade != GradeSync {
			t.Errorf("grade %q, want sync", now.Grade)
		}
		b.restart()
		b.list()
		b.wait(time.Minute)
		if now := b.want(x, StateAttached); now.Address != e.Address || now.Source != SourceCNI {
			t.Errorf("after a restart: %+v", now)
		}
		if found, err := b.a.Del(b.within(time.Second), cniRequest(x, p)); !found || err != nil {
			t.Errorf("DEL: %t, %v", found, err)
		}
		b.wantLinks(0)
		b.wantLeases(1)
		b.c.exit(x)
		b.wait(time.Minute)
		p = b.creating(x)
		if now := b.add(cniRequest(x, p)); now.Address != e.Address {
			t.Errorf("ADD after DEL gave %s, want %s again", now.Address, e.Address)
		}
		b.created(x)
		b.c.run(x)
		b.wait(time.Second)
		b.c.exit(x)
		b.c.remove(x)
		b.wait(time.Minute)
		b.wantLinks(0)
		b.wantLeases(0)
		if left := b.a.requests.list(func(*Request) bool { return true }); len(left) != 0 {
			t.Errorf("requests left: %v", left)
		}
	})
}

// TestCNIBesideLabels: the client's interface name wins, the labels' other wishes
// count, and of an endpoint made by label before there is nothing left.
func TestCNIBesideLabels(t *testing.T) {
	t.Parallel()
	withAgent(t, func(b *bed) {
		b.k.mayDetach = nil
		x := b.c.create(key("web"), with(labelIP, "172.16.0.77"), func(x *fakeContainer) { x.CNI = true })
		b.wait(time.Second)
		b.c.task(x)
		b.wait(time.Second)
		if e := b.want(x, StateAttached); e.Ifname != besideIfname {
			t.Fatalf("by label: %+v", e)
		}
		e := b.add(cniRequest(x, x.proc))
		if e.Ifname != "eth0" || e.Address != netip.MustParseAddr("172.16.0.77") || !e.DefaultRoute {
			t.Errorf("by CNI: %+v", e)
		}
		b.c.run(x)
		b.wait(time.Minute)
		b.wantLinks(1)
		b.wantLeases(1)
		other := cniRequest(x, x.proc)
		other.Ifname = "eth1"
		if _, err := b.a.Add(b.within(time.Second), other); err == nil {
			t.Error("a second interface was given")
		}
		b.want(x, StateAttached)
	})
}

// TestCNIRefused: an ADD that cannot be met leaves nothing behind.
func TestCNIRefused(t *testing.T) {
	t.Parallel()
	withAgent(t, func(b *bed) {
		holder := b.running("holder", with(labelIP, "172.16.0.50"))
		x := b.c.create(key("web"), nil)
		b.wait(time.Second)
		p := b.creating(x)
		taken := cniRequest(x, p)
		taken.Address = b.find(holder).Address
		two := cniRequest(x, p)
		two.Address = netip.MustParseAddr("172.16.0.9")
		host := cniRequest(x, p)
		host.NetNS = fmt.Sprintf("/proc/%d/ns/net", b.k.fork(b.k.host).pid)
		gone := cniRequest(x, p)
		gone.NetNS = "/proc/99999/ns/net"
		bad := cniRequest(x, p)
		bad.MAC = "01:02:03:04:05:06"
		for name, r := range map[string]Request{"taken": taken, "host": host, "gone": gone, "multicast": bad} {
			if e, err := b.a.Add(b.within(time.Second), r); err == nil {
				t.Errorf("%s: attached as %+v", name, e)
			}
		}
		b.c.update(x, map[string]string{labelNetwork: "true", labelIP: "172.16.0.10"})
		b.wait(time.Second)
		var refused *RejectError
		if _, err := b.a.Add(b.within(time.Second), two); !errors.As(err, &refused) {
			t.Errorf("two addresses: %v", err)
		}
		b.c.update(x, nil)
		b.wait(time.Second)
		b.wantLinks(1)
		b.wantLeases(1)
		if _, err := b.a.Add(b.within(time.Second), Request{Network: "stellar", ContainerID: "pod", Ifname: "eth0", NetNS: "/run/netns/none"}); err == nil {
			t.Error("attached to a path that is not there")
		}
		b.wantLeases(1)
		b.c.update(x, nil)
	})
}

// TestCNIWithoutContainer: a namespace by its path, as CRI and cnitool have them.
func TestCNIWithoutContainer(t *testing.T) {
	t.Parallel()
	withAgent(t, func(b *bed) {
		b.k.mayDetach = nil
		dir := t.TempDir()
		b.halt()
		b.dir = dir
		b.start()
		b.list()
		ns := b.k.newNS()
		b.k.pin("/run/netns/pod", ns)
		r := Request{Network: "stellar", ContainerID: "pod-1", Ifname: "eth0", NetNS: "/run/netns/pod"}
		e := b.add(r)
		if e.Grade != GradeSync || e.Owner.Kind != ipam.OwnerCNI {
			t.Errorf("endpoint %+v", e)
		}
		check := r
		check.Address, check.MAC = e.Address, e.MAC
		if err := b.a.Verify(b.within(time.Second), check); err != nil {
			t.Errorf("CHECK: %v", err)
		}
		b.restart()
		b.list()
		b.wait(time.Minute)
		if err := b.a.Verify(b.within(time.Second), r); err != nil {
			t.Errorf("CHECK after a restart: %v", err)
		}
		if again := b.add(r); again.Address != e.Address {
			t.Errorf("ADD after a restart gave %s, want %s", again.Address, e.Address)
		}
		check.Address = check.Address.Next()
		if err := b.a.Verify(b.within(time.Second), check); err == nil {
			t.Error("CHECK of another address found nothing wrong")
		}
		// Somebody deletes the interface: it is made again.
		b.k.mu.Lock()
		b.k.lost = func(o ipam.Owner) { b.a.Lost(o, "test") }
		b.k.lose(e.Owner)
		b.k.mu.Unlock()
		b.wait(time.Minute)
		b.wantLinks(1)
		for range 2 {
			if _, err := b.a.Del(b.within(time.Second), Request{Network: "stellar", ContainerID: "pod-1", Ifname: "eth0"}); err != nil {
				t.Errorf("DEL: %v", err)
			}
		}
		b.wantLinks(0)
		b.wantLeases(0)
		if err := b.a.Verify(b.within(time.Second), r); !errors.Is(err, events.ErrNotFound) {
			t.Errorf("CHECK after DEL: %v", err)
		}
		b.k.unpin(ns)
	})
}

// TestCNIMovesNothing: a client that names another process than the running task
// does not get the container's endpoint there.
func TestCNIMovesNothing(t *testing.T) {
	t.Parallel()
	withAgent(t, func(b *bed) {
		x := b.running("web", networked)
		b.want(x, StateAttached)
		ns := b.k.newNS()
		other := b.k.fork(ns)
		b.k.unpin(ns)
		if e, err := b.a.Add(b.within(time.Second), cniRequest(x, other)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Add = %+v, %v", e, err)
		}
		b.wait(time.Minute)
		if e := b.want(x, StateAttached); e.PID != x.proc.pid {
			t.Errorf("the endpoint is that of process %d, want %d", e.PID, x.proc.pid)
		}
		b.wantLinks(1)
	})
}
