package agent

import (
	"testing"
	"time"

	"stellar.io/stellar/events"
)

// TestTaskOfFormerContainer: the event of a task that was created before the
// container was is about a namesake's, whose namespace says nothing about it.
func TestTaskOfFormerContainer(t *testing.T) {
	withAgent(t, func(b *bed) {
		crowded := b.k.newNS()
		crowded.foreign["eth0"] = true
		var p *fakeProc
		var late events.Hint
		b.silently(func() {
			x := b.c.create(key("web"), networked, joining(crowded))
			p = b.c.task(x)
			late = events.Hint{Key: x.Key, Topic: events.TaskCreate, PID: uint32(p.pid), Time: time.Now()}
			b.wait(time.Second)
			b.c.remove(x)
		})
		b.wait(time.Second)
		x := b.c.create(key("web"), networked)
		b.wait(time.Second)
		late.Received = time.Now()
		b.a.Hint(late)
		b.wait(time.Second)
		if e := b.want(x, StateBound); e.Owner.Interface != defaultIfname {
			b.Errorf("it has %s", e.Owner.Interface)
		}
	})
}

// twoWithOneNumber makes a container whose task ends unseen, and another whose task
// then has its process number.
func twoWithOneNumber(b *bed) (x *fakeContainer, created events.Hint) {
	b.k.sparePIDs = 0
	b.silently(func() {
		x = b.c.create(key("web"), networked)
		p := b.c.task(x)
		created = events.Hint{Key: x.Key, Topic: events.TaskCreate, PID: uint32(p.pid), Time: time.Now()}
		b.wait(time.Second)
		b.k.kill(p) // containerd has not noticed
		b.wait(time.Second)
		y := b.c.create(key("other"), nil)
		if b.c.task(y).pid != p.pid {
			b.Fatal("the number was not used again")
		}
	})
	b.wait(time.Second)
	return x, created
}

// TestNumberUsedAgain: an event that comes late does not prove that the process which
// has its number now is the container's.
func TestNumberUsedAgain(t *testing.T) {
	withAgent(t, func(b *bed) {
		x, created := twoWithOneNumber(b)
		created.Received = time.Now()
		b.a.Hint(created)
		b.wait(time.Second)
		b.want(x, StateBound)
		b.wantLinks(0)
	})
}

// TestSameNumberAgain: a task with the number of the one before is attached, though
// nobody told of its creation.
func TestSameNumberAgain(t *testing.T) {
	withAgent(t, func(b *bed) {
		b.k.sparePIDs = 0
		x := b.running("web", networked)
		p := x.proc
		var exit events.Hint
		b.silently(func() {
			b.c.exit(x)
			exit = events.Hint{Key: x.Key, Topic: events.TaskExit, PID: uint32(p.pid), Time: time.Now(), Received: time.Now()}
			if b.c.task(x).pid != p.pid {
				b.Fatal("the number was not used again")
			}
			b.c.run(x)
		})
		b.a.Hint(exit)
		b.wait(time.Second)
		b.want(x, StateAttached)
	})
}

// TestWrongEndpointOfDeletedContainer: an endpoint that was made for a former
// container in the namespace of its namesake's task stays when that one's record is
// deleted while the task runs.
func TestWrongEndpointOfDeletedContainer(t *testing.T) {
	withAgent(t, func(b *bed) {
		x := b.c.create(key("web"), networked)
		b.wait(time.Second)
		var y *fakeContainer
		b.silently(func() {
			b.c.remove(x)
			y = b.c.create(key("web"), networked)
		})
		b.k.mu.Lock()
		b.k.fail = func(op string) error { // the wrong endpoint stays for now
			if op == "detach" {
				return events.ErrNotConnected
			}
			return nil
		}
		b.k.mu.Unlock()
		b.c.task(y)
		b.wait(10 * time.Millisecond)
		b.wantLinks(1)
		b.k.mu.Lock()
		b.k.fail = nil
		b.k.mu.Unlock()
		b.c.remove(y)
		b.wait(time.Minute)
		if b.link(y) == nil {
			b.Error("the task that runs has lost its link")
		}
		b.k.kill(y.proc)
		b.wait(time.Minute)
		b.wantLinks(0)
		b.wantLeases(0)
	})
}
