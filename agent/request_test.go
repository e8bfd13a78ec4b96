package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"stellar.io/stellar/events"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore/holder"
)

// creating forks a container's init process as a runtime does that calls its
// hooks: containerd does not know the task yet.
func (b *bed) creating(x *fakeContainer) *fakeProc {
	ns := b.k.newNS()
	defer b.k.unpin(ns)
	p := b.k.fork(ns)
	b.c.mu.Lock()
	x.proc, x.changed, x.busy = p, time.Now(), make(chan struct{})
	b.c.mu.Unlock()
	return p
}

// created has containerd announce the task of a process that was creating.
func (b *bed) created(x *fakeContainer) {
	b.c.mu.Lock()
	x.Task = &events.Task{PID: uint32(x.proc.pid), Status: events.TaskCreated}
	close(x.busy)
	x.busy = nil
	b.c.mu.Unlock()
	b.c.tell(events.Hint{Key: x.Key, Topic: events.TaskCreate, PID: uint32(x.proc.pid)})
}

func cniRequest(x *fakeContainer, p *fakeProc) Request {
	return Request{Network: "stellar", ContainerID: x.Namespace + "-" + x.ID, Ifname: "eth0", NetNS: fmt.Sprintf("/proc/%d/ns/net", p.pid)}
}

func (b *bed) within(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(b.Context(), d)
	b.Cleanup(cancel)
	return ctx
}

// add is Add for a request that must succeed.
func (b *bed) add(r Request) Endpoint {
	b.Helper()
	e, err := b.a.Add(b.within(5*time.Second), r)
	if err != nil {
		b.Fatalf("Add: %v", err)
	}
	return e
}

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

// TestAddTakesBack: an ADD whose request cannot be written leaves neither interface nor
// lease behind; where the interface cannot be removed either, the lease stays with it.
func TestAddTakesBack(t *testing.T) {
	t.Parallel()
	withAgent(t, func(b *bed) {
		b.k.mayDetach = nil
		b.halt()
		b.dir = filepath.Join(t.TempDir(), "requests")
		b.start()
		b.list()
		ns := b.k.newNS()
		b.k.pin("/run/netns/pod", ns)
		defer b.k.unpin(ns)
		b.wait(time.Second) // the directory is there now
		if err := os.RemoveAll(b.dir); err != nil {
			t.Fatal(err)
		}
		r := Request{Network: "stellar", ContainerID: "pod-1", Ifname: "eth0", NetNS: "/run/netns/pod"}
		if _, err := b.a.Add(b.within(time.Second), r); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("ADD without a directory: %v", err)
		}
		b.wantLinks(0)
		b.wantLeases(0)
		b.k.mu.Lock()
		b.k.fail = func(op string) error {
			if op == "detach" {
				return errors.New("injected")
			}
			return nil
		}
		b.k.mu.Unlock()
		if _, err := b.a.Add(b.within(time.Second), r); err == nil {
			t.Error("ADD: no error")
		}
		b.wantLinks(1)
		b.wantLeases(1)
		b.k.mu.Lock()
		b.k.fail = nil
		b.k.mu.Unlock()
		if found, err := b.a.Del(b.within(time.Second), r); !found || err != nil {
			t.Errorf("DEL: %t, %v", found, err)
		}
		b.wantLinks(0)
		b.wantLeases(0)
	})
}

// TestCollect: GC ends what its client has forgotten, in its own network only.
func TestCollect(t *testing.T) {
	t.Parallel()
	withAgent(t, func(b *bed) {
		b.k.mayDetach = nil
		for _, name := range []string{"a", "b"} {
			for _, network := range []string{"stellar", "other"} {
				b.k.pin("/run/netns/"+network+name, b.k.newNS())
				b.add(Request{Network: network, ContainerID: name, Ifname: "eth0", NetNS: "/run/netns/" + network + name})
			}
		}
		b.add(Request{Network: "stellar", ContainerID: "b", Ifname: "eth9", IPAMOnly: true})
		got, err := b.a.CollectUnknown(b.within(time.Second), "stellar", false, func(id, _ string) bool { return id == "a" })
		if err != nil || fmt.Sprint(got) != "[b eth0]" {
			t.Errorf("collected %v, %v", got, err)
		}
		b.wantLinks(3)
		b.wantLeases(4)
		if got, err := b.a.CollectUnknown(b.within(time.Second), "stellar", true, func(string, string) bool { return false }); err != nil || fmt.Sprint(got) != "[b eth9]" {
			t.Errorf("collected %v, %v", got, err)
		}
		// What a crash between lease and request has left belongs to nobody.
		left := ipam.Owner{Kind: ipam.OwnerCNI, Namespace: "stellar", ID: "crashed", Interface: "eth0"}
		if _, err := b.l.Bind(t.Context(), holder.BindRequest{Owner: left}); err != nil {
			t.Fatal(err)
		}
		if got, err := b.a.CollectUnknown(b.within(time.Second), "stellar", false, func(id, _ string) bool { return id == "a" }); err != nil || fmt.Sprint(got) != "[crashed eth0]" {
			t.Errorf("collected %v, %v", got, err)
		}
		b.wantLeases(3)
		for _, network := range []string{"stellar", "other"} {
			if _, err := b.a.CollectUnknown(b.within(time.Second), network, false, func(string, string) bool { return false }); err != nil {
				t.Error(err)
			}
		}
		b.wantLeases(0)
	})
}

// TestByHand: a running container without a label, until it is detached; and a
// labelled one, whose label does not bring it back.
func TestByHand(t *testing.T) {
	t.Parallel()
	withAgent(t, func(b *bed) {
		b.k.mayDetach = nil
		plain := b.running("plain", nil)
		e, err := b.a.Attach(b.within(time.Second), Request{Key: plain.Key, Address: netip.MustParseAddr("172.16.0.9")})
		if err != nil || e.Address.String() != "172.16.0.9" || e.Source != SourceManual || e.Grade != GradeLate {
			t.Fatalf("Attach = %+v, %v", e, err)
		}
		b.wait(time.Minute)
		b.want(plain, StateAttached)
		b.restart()
		labelled := b.running("labelled", networked)
		b.want(labelled, StateAttached)
		for _, x := range []*fakeContainer{plain, labelled} {
			if err := b.a.Detach(b.within(time.Second), x.Key); err != nil {
				t.Errorf("Detach: %v", err)
			}
		}
		b.wantLinks(0)
		b.wantLeases(0)
		b.wait(time.Minute)
		b.want(labelled, "")
		if _, err := b.a.Attach(b.within(time.Second), Request{Key: labelled.Key}); err != nil {
			t.Errorf("Attach of a labelled one: %v", err)
		}
		b.want(labelled, StateAttached)
		idle := b.c.create(key("idle"), nil)
		if e, err := b.a.Attach(b.within(time.Second), Request{Key: idle.Key}); err != nil || e.State != StateBound {
			t.Errorf("Attach without a task = %+v, %v", e, err)
		}
		b.c.task(idle)
		b.wait(time.Second)
		b.want(idle, StateAttached)
		if _, err := b.a.Attach(b.within(time.Second), Request{Key: key("nobody")}); !errors.Is(err, events.ErrNotFound) {
			t.Errorf("Attach of nobody: %v", err)
		}
	})
}

// TestAwait: the hook of a runtime waits for what the labels ask.
// TestAwaitEndsALook: a look that began in the middle of the task's creation would
// be answered only after the client has gone.
func TestAwaitEndsALook(t *testing.T) {
	t.Parallel()
	withAgent(t, func(b *bed) {
		x := b.c.create(key("web"), networked, func(x *fakeContainer) { x.busy = make(chan struct{}) })
		b.wait(time.Second)
		p := b.creating(x)
		if e, wanted, err := b.a.Await(b.within(time.Second), x.Key, p.pid); err != nil || !wanted || e.Grade != GradeSync {
			t.Errorf("Await = %+v, %t, %v", e, wanted, err)
		}
		b.created(x)
		b.c.run(x)
		b.wait(time.Minute)
		b.want(x, StateAttached)
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

func TestAwait(t *testing.T) {
	t.Parallel()
	withAgent(t, func(b *bed) {
		x := b.c.create(key("web"), networked)
		p := b.creating(x)
		e, wanted, err := b.a.Await(b.within(time.Second), x.Key, p.pid)
		if err != nil || !wanted || e.Grade != GradeSync || e.State != StateAttached {
			t.Errorf("Await = %+v, %t, %v", e, wanted, err)
		}
		b.created(x)
		b.c.run(x)
		b.wait(time.Minute)
		b.want(x, StateAttached)
		plain := b.c.create(key("plain"), nil)
		p = b.creating(plain)
		if _, wanted, err := b.a.Await(b.within(time.Second), plain.Key, p.pid); wanted || err != nil {
			t.Errorf("Await of a container without labels: %t, %v", wanted, err)
		}
		bad := b.c.create(key("bad"), with(labelMTU, "x"))
		p = b.creating(bad)
		var refused *RejectError
		if _, _, err := b.a.Await(b.within(time.Second), bad.Key, p.pid); !errors.As(err, &refused) {
			t.Errorf("Await of a rejected container: %v", err)
		}
		b.k.mu.Lock()
		b.k.fail = func(op string) error {
			if op == "attach" {
				return errors.New("broken")
			}
			return nil
		}
		b.k.mu.Unlock()
		slow := b.c.create(key("slow"), networked)
		p = b.creating(slow)
		if _, _, err := b.a.Await(b.within(time.Second), slow.Key, p.pid); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Await of a broken kernel: %v", err)
		}
		if asked, err := b.a.Asked(b.within(time.Second), slow.Key); err != nil || asked == nil || asked.Strict {
			t.Errorf("Asked = %+v, %v", asked, err)
		}
		if asked, err := b.a.Asked(b.within(time.Second), plain.Key); err != nil || asked != nil {
			t.Errorf("Asked of a plain container = %+v, %v", asked, err)
		}
	})
}

// TestDropFails: a request whose file cannot be removed is known still, and goes with
// the next attempt.
func TestDropFails(t *testing.T) {
	t.Parallel()
	s := newRequests(t.TempDir(), "")
	r := Request{Source: SourceCNI, Network: "stellar", ContainerID: "pod-1", Ifname: "eth0"}
	if err := <-s.put(r); err != nil {
		t.Fatal(err)
	}
	path := s.path(r.id())
	if err := errors.Join(os.Remove(path), os.MkdirAll(filepath.Join(path, "x"), 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := s.drop(r.id()); err == nil {
		t.Error("no error")
	}
	if _, ok := s.get(r.id()); !ok {
		t.Error("forgotten, and still on disk")
	}
	if err := errors.Join(os.RemoveAll(path), os.WriteFile(path, nil, 0o600), s.drop(r.id())); err != nil {
		t.Error(err)
	}
	if _, ok := s.get(r.id()); ok {
		t.Error("not forgotten")
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("on disk: %v", err)
	}
}
