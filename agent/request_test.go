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
