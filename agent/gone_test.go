package agent

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"stellar.io/stellar/events"
)

// lost makes containerd's events get lost.
func (b *bed) lose(all bool) {
	b.c.mu.Lock()
	defer b.c.mu.Unlock()
	b.c.filter = nil
	if all {
		b.c.filter = func(events.Hint) int { return 0 }
	}
}

func TestGoneWithoutAnEvent(t *testing.T) {
	withAgent(t, func(b *bed) {
		other := b.running("other", networked)
		x := b.running("a", networked)
		b.lose(true)
		b.c.exit(x)
		b.c.remove(x)
		b.list()
		b.wait(absentPause - time.Second)
		b.wantLeases(2)
		b.wait(2 * time.Second)
		b.want(x, "")
		b.wantLeases(1)
		b.wantLinks(1)
		b.want(other, StateAttached)
	})
}

// One answer that a record is absent may be a server that is starting.
func TestGoneForAMoment(t *testing.T) {
	withAgent(t, func(b *bed) {
		x := b.running("a", networked)
		b.c.exit(x)
		b.wait(time.Second)
		for range 10 {
			b.c.mu.Lock()
			b.c.fail = func(events.Key) error { return events.ErrNotFound }
			b.c.mu.Unlock()
			b.a.Hint(events.Hint{Key: x.Key, Topic: events.TaskStart})
			b.wait(absentPause - time.Second)
			b.c.mu.Lock()
			b.c.fail = nil
			b.c.mu.Unlock()
			b.wait(2 * time.Second)
		}
		b.want(x, StateBound)
		if b.l.releases.Load() != 0 {
			t.Errorf("%d releases", b.l.releases.Load())
		}
	})
}

// A delete event that comes late was that of a namesake.
func TestLateDelete(t *testing.T) {
	withAgent(t, func(b *bed) {
		x := b.c.create(key("a"), networked)
		late := time.Now().Add(-time.Millisecond)
		b.wait(time.Second)
		b.c.mu.Lock()
		b.c.fail = func(events.Key) error { return events.ErrNotFound }
		b.c.mu.Unlock()
		b.a.Hint(events.Hint{Key: x.Key, Topic: events.ContainerDelete, Time: late, Received: time.Now()})
		b.wait(time.Second)
		b.wantLeases(1)
		b.a.Hint(events.Hint{Key: x.Key, Topic: events.ContainerDelete, Time: time.Now(), Received: time.Now()})
		b.wait(time.Second)
		b.wantLeases(0)
	})
}

func TestLookErrorsChangeNothing(t *testing.T) {
	withAgent(t, func(b *bed) {
		up := b.running("up", networked)
		idle := b.c.create(key("idle"), networked)
		plain := b.c.create(key("plain"), nil)
		b.wait(time.Second)
		before := b.find(up)
		b.c.mu.Lock()
		b.c.fail = func(events.Key) error { return events.ErrNotConnected }
		b.c.mu.Unlock()
		for range 20 {
			for _, x := range []*fakeContainer{up, idle, plain} {
				for _, topic := range []events.Topic{events.ContainerDelete, events.TaskExit, events.TaskDelete, events.ContainerUpdate} {
					b.a.Hint(events.Hint{Key: x.Key, Topic: topic, Time: time.Now(), Received: time.Now()})
				}
			}
			b.wait(10 * time.Second)
		}
		if e := b.want(up, StateAttached); e.Since != before.Since {
			t.Error("the endpoint's state changed")
		}
		b.want(idle, StateBound)
		b.want(plain, "")
		b.wantLinks(1)
		b.wantLeases(2)
		b.c.mu.Lock()
		b.c.fail = nil
		b.c.mu.Unlock()
		b.wait(2 * time.Minute)
		if e := b.want(up, StateAttached); e.Reason != "" {
			t.Errorf("reason %q stays", e.Reason)
		}
		b.want(idle, StateBound)
	})
}

func TestRecordDeletedWhileTheTaskRuns(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		t.Run(map[bool]string{false: "", true: "and the agent restarts"}[restarted], func(t *testing.T) {
			withAgent(t, func(b *bed) {
				b.running("other", nil) // a listing without any container would prove nothing
				x := b.running("a", networked)
				p := x.proc
				b.c.remove(x)
				b.wait(time.Minute)
				if restarted {
					b.restart()
					b.list()
					b.wait(time.Minute)
				}
				e := b.want(x, StateAttached)
				if e.Reason == "" || !e.Address.IsValid() {
					t.Errorf("shown as %+v", e)
				}
				b.wantLinks(1)
				b.wantLeases(1)
				b.c.k.kill(p)
				b.wait(10 * time.Second)
				b.want(x, "")
				b.wantLinks(0)
				b.wantLeases(0)
			})
		})
	}
}

// An empty listing, or another containerd, may be a wiped data directory.
func TestEmptyListingProvesNothing(t *testing.T) {
	for name, change := range map[string]func(*bed){
		"empty": func(b *bed) {},
		"another server": func(b *bed) {
			b.c.id = "other"
			b.c.all[key("new")] = &fakeContainer{Container: events.Container{Key: key("new"), Created: time.Now()}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			withAgent(t, func(b *bed) {
				idle := b.c.create(key("idle"), networked)
				up := b.running("up", networked)
				b.c.mu.Lock()
				clear(b.c.all)
				change(b)
				b.c.mu.Unlock()
				for range 18 { // 9 minutes
					b.list()
					b.wait(30 * time.Second)
				}
				b.wantLeases(2)
				b.wantLinks(1)
				if n := b.c.looked(idle.Key); n > 60 {
					t.Errorf("%d looks", n)
				}
				for range 4 {
					b.list()
					b.wait(30 * time.Second)
				}
				b.wantLeases(1)
				b.c.k.kill(up.proc)
				b.wait(10 * time.Second)
				b.wantLeases(0)
				b.wantLinks(0)
			})
		})
	}
}

func TestExitSeenByTheKernelAlone(t *testing.T) {
	withAgent(t, func(b *bed) {
		x := b.running("a", networked)
		pin := x.proc.ns
		b.k.mu.Lock()
		pin.fds++ // somebody keeps the namespace: its link stays
		b.k.mu.Unlock()
		b.c.k.kill(x.proc) // containerd goes on saying RUNNING
		b.wait(time.Second)
		b.want(x, StateBound)
		b.wantLinks(0)
		b.wantLeases(1)
		looks := b.c.looked(x.Key)
		b.list()
		b.wait(time.Minute)
		if n := b.c.looked(x.Key) - looks; n > 1 {
			t.Errorf("%d looks at a task that containerd believes to run", n)
		}
	})
}

func TestRetries(t *testing.T) {
	for _, op := range []string{"bind", "open", "attach"} {
		t.Run(op, func(t *testing.T) {
			withAgent(t, func(b *bed) {
				var mu sync.Mutex
				var at []time.Duration
				start := time.Now()
				fail := func(o string) error {
					mu.Lock()
					defer mu.Unlock()
					if o != op || time.Since(start) > 10*time.Minute {
						return nil
					}
					at = append(at, time.Since(start))
					return errors.New("out of luck")
				}
				b.l.mu.Lock()
				b.l.fail = fail
				b.l.mu.Unlock()
				b.k.fail = fail
				x := b.running("a", networked)
				b.wait(5 * time.Minute)
				e := b.want(x, StateRetrying)
				if e.Reason == "" {
					t.Error("no reason")
				}
				mu.Lock()
				if len(at) < 10 || len(at) > 25 {
					t.Errorf("%d attempts in five minutes: %v", len(at), at)
				}
				mu.Unlock()
				b.wait(10 * time.Minute)
				b.want(x, StateAttached)
			})
		})
	}
	t.Run("detach and release", func(t *testing.T) {
		withAgent(t, func(b *bed) {
			x := b.running("a", networked)
			var bad atomic.Bool
			bad.Store(true)
			fail := func(op string) error {
				if bad.Load() && (op == "detach" || op == "release" || op == "inhabited") {
					return errors.New("out of luck")
				}
				return nil
			}
			b.k.mu.Lock()
			x.proc.ns.fds++ // the link stays
			b.k.fail = fail
			b.k.mu.Unlock()
			b.l.mu.Lock()
			b.l.fail = fail
			b.l.mu.Unlock()
			b.c.exit(x)
			b.c.remove(x)
			b.wait(time.Minute)
			b.wantLeases(1)
			b.wantLinks(1)
			// Its successor does not wait for it.
			y := b.running("a", networked)
			b.want(y, StateAttached)
			bad.Store(false)
			b.wait(2 * time.Minute)
			b.want(y, StateAttached)
			b.wantLeases(1)
			b.wantLinks(1)
		})
	})
}

func TestManyHintsWhileLeasesHang(t *testing.T) {
	withAgent(t, func(b *bed) {
		b.l.mu.Lock()
		b.l.hang = 30 * time.Second
		b.l.mu.Unlock()
		var all []*fakeContainer
		for i := range 50 {
			all = append(all, b.c.create(key(string(rune('A'+i))), networked))
		}
		b.wait(time.Second)
		for i := range 10_000 {
			b.a.Hint(events.Hint{Key: all[i%50].Key, Topic: events.Topics()[i%7], PID: uint32(i), Time: time.Now(), Received: time.Now()})
			if i%100 == 0 {
				b.wait(50 * time.Millisecond)
			}
		}
		b.a.mu.Lock()
		hints := len(b.a.hints)
		b.a.mu.Unlock()
		if n := b.a.queue.len(); n > 100 || hints > 50 {
			t.Errorf("%d keys queued, %d hints kept for 50 containers", n, hints)
		}
		b.wait(5 * time.Minute)
		for _, x := range all {
			b.want(x, StateBound)
		}
		b.l.mu.Lock()
		b.l.hang = 0
		b.l.mu.Unlock()
		for _, x := range all {
			b.c.task(x)
		}
		b.wait(time.Second)
		for _, x := range all {
			b.want(x, StateAttached)
		}
	})
}

func TestSteadyState(t *testing.T) {
	withAgent(t, func(b *bed) {
		b.running("up", networked)
		b.c.create(key("idle"), networked)
		b.running("plain", nil)
		b.c.create(key("pending"), networked, joining(b.k.newNS()))
		host := b.running("shared", networked)
		b.running("guest", networked, joining(host.proc.ns))
		gone := b.running("gone", networked)
		b.c.exit(gone)
		b.c.remove(gone)
		b.wait(time.Minute)
		looks, attaches, told := b.c.allLooks(), b.k.attaches.Load(), len(tellAll(b.a))
		for range 20 {
			b.list()
			b.wait(30 * time.Second)
		}
		if n := b.c.allLooks() - looks; n != 0 {
			t.Errorf("%d looks", n)
		}
		if n := b.k.attaches.Load() - attaches; n != 0 {
			t.Errorf("%d attaches", n)
		}
		if n := len(tellAll(b.a)) - told; n != 0 {
			t.Errorf("%d events", n)
		}
	})
}

func tellAll(a *Agent) []Event { list, _, _ := a.Events(0); return list }

func TestSettled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, bedSubnet)
		for _, id := range []string{"a", "b", "c"} {
			b.c.create(key(id), networked)
		}
		b.start()
		b.wait(time.Second)
		select {
		case <-b.a.Settled():
			t.Error("settled before a listing")
		default:
		}
		b.list()
		b.wait(time.Second)
		select {
		case <-b.a.Settled():
		default:
			t.Error("not settled")
		}
		b.halt()
		b.verify()
	})
}

// A listing of containers that are worked on at the very moment settles too.
func TestSettledUnderWork(t *testing.T) {
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			b := newBed(t, bedSubnet)
			b.start()
			for _, id := range []string{"a", "b", "c"} {
				b.c.create(key(id), networked)
			}
			b.list()
			b.wait(time.Second)
			select {
			case <-b.a.Settled():
			default:
				t.Error("not settled")
			}
			b.halt()
		})
	}
}
