package agent

import (
	"fmt"
	"testing"
	"time"

	"stellar.io/stellar/events"
	"stellar.io/stellar/ipam"
)

// lost passes the loss of a link on, as the node does.
func (b *bed) lost(o ipam.Owner) { b.a.Lost(o, "its link has disappeared") }

// A task event never gives a container what its namesake had.
func TestIDUsedAgain(t *testing.T) {
	for name, next := range map[string]map[string]string{"networked": networked, "networked, by path": networked, "not": nil, "bad": with(labelMTU, "x")} {
		for _, drop := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, events lost: %v", name, drop), func(t *testing.T) {
				withAgent(t, func(b *bed) {
					x := b.c.create(key("a"), networked)
					b.wait(time.Second)
					b.c.mu.Lock()
					b.c.filter = func(h events.Hint) int {
						if drop && h.Topic != events.TaskCreate {
							return 0
						}
						return 1
					}
					b.c.mu.Unlock()
					b.c.remove(x)
					y := b.c.create(key("a"), next, func(y *fakeContainer) {
						if name == "networked, by path" {
							joining(b.k.newNS())(y)
						}
					})
					b.c.task(y)
					b.wait(10 * time.Second)
					if n := b.counted("stellar_attach_total", "attached"); !drop && n > 1 {
						t.Errorf("%d attaches", n)
					}
					switch {
					case next[labelMTU] == "" && next != nil:
						b.want(y, StateAttached)
						if l := b.link(y); l == nil || l.Owner.Created != y.Created.UnixNano() {
							t.Errorf("link %+v", l)
						}
						b.wantLeases(1)
					default:
						if n := b.k.attaches.Load(); !drop && n > 0 {
							t.Errorf("%d attaches", n)
						}
						b.wantLinks(0)
						b.wantLeases(0)
					}
				})
			})
		}
	}
}

func TestPIDUsedAgain(t *testing.T) {
	withAgent(t, func(b *bed) {
		b.k.sparePIDs = 0
		x := b.c.create(key("a"), networked)
		b.wait(time.Second)
		b.lose(true)
		p := b.c.task(x)
		b.c.exit(x)
		sent := time.Now()
		b.wait(time.Second)
		stranger := b.k.fork(b.k.newNS())
		if stranger.pid != p.pid {
			t.Fatal("the number was not used again")
		}
		for _, at := range []time.Time{sent, {}} { // with and without a timestamp
			b.a.Hint(events.Hint{Key: x.Key, Topic: events.TaskCreate, PID: uint32(p.pid), Time: at, Received: time.Now()})
			b.wait(time.Second)
			b.want(x, StateBound)
			b.wantLinks(0)
		}
	})
}

// A shim can miss an exit: containerd then says RUNNING, with a pid that the
// kernel gives to another container's process.
func TestPIDUsedAgainUnderAStaleTask(t *testing.T) {
	withAgent(t, func(b *bed) {
		b.k.sparePIDs = 0
		x := b.running("a", networked)
		b.c.k.kill(x.proc)
		stranger := b.k.fork(b.k.newNS())
		if uint32(stranger.pid) != x.Task.PID {
			t.Fatal("the number was not used again")
		}
		for range 5 {
			b.a.Repair(x.Key)
			b.wait(time.Second)
			b.list()
			b.wait(30 * time.Second)
			b.want(x, StateBound)
			b.wantLinks(0)
		}
	})
}

// A restored checkpoint announces pid 0; its process shows later.
func TestPIDZero(t *testing.T) {
	withAgent(t, func(b *bed) {
		x := b.c.create(key("a"), networked)
		b.wait(time.Second)
		zero := true
		b.c.mu.Lock()
		b.c.change = func(c *events.Container) {
			if zero && c.Task != nil {
				c.Task.PID = 0
			}
		}
		b.c.filter = func(h events.Hint) int {
			if h.PID != 0 {
				h.PID = 0
				go b.a.Hint(h)
				return 0
			}
			return 1
		}
		b.c.mu.Unlock()
		b.c.task(x)
		b.wait(time.Minute)
		b.want(x, StateBound)
		b.wantLinks(0)
		if n := b.c.looked(x.Key); n > 20 {
			t.Errorf("%d looks in a minute at a task without a pid", n)
		}
		b.c.mu.Lock()
		zero = false
		b.c.mu.Unlock()
		b.c.run(x)
		b.wait(time.Second)
		b.want(x, StateAttached)
	})
}

// Exits of exec processes never become hints; should one, it is a look and no more.
func TestExecs(t *testing.T) {
	withAgent(t, func(b *bed) {
		x := b.running("a", networked)
		since := b.find(x).Since
		told := b.told(x)
		for i := range 1000 {
			b.a.Hint(events.Hint{Key: x.Key, Topic: events.TaskExit, PID: uint32(i), Time: time.Now(), Received: time.Now()})
			b.wait(time.Millisecond)
		}
		b.wait(time.Second)
		if e := b.want(x, StateAttached); e.Since != since || b.told(x) != told {
			t.Errorf("events: %s", b.told(x))
		}
	})
}

func TestShortLivedTasks(t *testing.T) {
	withAgent(t, func(b *bed) {
		for i := range 200 {
			x := b.c.create(key(fmt.Sprint("true", i)), networked)
			b.c.task(x)
			b.c.run(x)
			time.Sleep(time.Duration(i%7) * 300 * time.Microsecond)
			b.c.exit(x)
			b.c.remove(x)
		}
		b.wait(10 * time.Second)
		b.wantLinks(0)
		b.wantLeases(0)
		if n := len(b.a.Endpoints()); n != 0 {
			t.Errorf("%d endpoints shown", n)
		}
		b.a.mu.Lock()
		defer b.a.mu.Unlock()
		if len(b.a.records)+len(b.a.hints)+len(b.a.byNS) != 0 {
			t.Errorf("kept: %d records, %d hints, %d namespaces", len(b.a.records), len(b.a.hints), len(b.a.byNS))
		}
	})
}

// The phases of an attach are those of its own event, not of an earlier hint.
func TestPhases(t *testing.T) {
	withAgent(t, func(b *bed) {
		x := b.c.create(key("a"), networked)
		b.a.Hint(events.Hint{Key: x.Key, Topic: events.ContainerUpdate, Time: time.Now(), Received: time.Now()})
		time.Sleep(500 * time.Microsecond)
		b.c.task(x)
		b.wait(time.Second)
		e := b.want(x, StateAttached)
		if len(e.Phases) == 0 {
			t.Fatal("no phases")
		}
		for _, p := range e.Phases {
			if p.Duration < 0 || p.Duration > time.Second {
				t.Errorf("phase %s took %s", p.Name, p.Duration)
			}
		}
	})
}

func TestAgentRestart(t *testing.T) {
	withAgent(t, func(b *bed) {
		up, idle := b.running("up", networked), b.c.create(key("idle"), networked)
		dead := b.running("dead", networked)
		b.running("plain", nil)
		b.wait(time.Second)
		addr, bound := b.find(up).Address, b.find(idle).Address
		b.halt()
		b.c.exit(dead)
		b.c.remove(dead)
		b.start()
		b.wait(time.Minute)
		// Containerd has said nothing yet; what there is is shown all the same.
		if e := b.want(up, StateAttached); e.Address != addr || e.Grade != GradeAdopted || e.HostIfname == "" {
			t.Errorf("shown as %+v", e)
		}
		b.want(idle, StateBound)
		b.wantLeases(3)
		b.list()
		b.wait(absentPause + 5*time.Second)
		if e := b.want(up, StateAttached); e.Address != addr || e.Grade != GradeAdopted || e.MAC == "" || e.PID != up.proc.pid {
			t.Errorf("shown as %+v", e)
		}
		if e := b.want(idle, StateBound); e.Address != bound {
			t.Errorf("shown as %+v", e)
		}
		b.wantLeases(2)
		b.wantLinks(1)
		b.wantTold(up, "adopted")
		b.wantTold(idle, "")
		b.c.exit(up)
		b.wait(time.Second)
		b.want(up, StateBound)
	})
}

func TestLinkDeletedByOthers(t *testing.T) {
	withAgent(t, func(b *bed) {
		b.k.lost = b.lost
		x := b.running("a", networked)
		before := b.find(x)
		attaches := b.k.attaches.Load()
		for range 600 { // the container deletes its interface ten times a second
			b.k.mu.Lock()
			if _, ok := b.k.links[before.Owner]; ok {
				b.k.lose(before.Owner)
			}
			b.k.mu.Unlock()
			b.wait(100 * time.Millisecond)
		}
		if n := b.k.attaches.Load() - attaches; n < 5 || n > 8 {
			t.Errorf("attached %d times in a minute, want every 10 s", n)
		}
		b.wait(time.Minute)
		if e := b.want(x, StateAttached); e.Address != before.Address || b.link(x) == nil {
			t.Errorf("shown as %+v", e)
		}
	})
	t.Run("with its task", func(t *testing.T) {
		withAgent(t, func(b *bed) {
			b.k.lost = b.lost
			x := b.running("a", networked)
			b.c.exit(x)
			b.wait(time.Second)
			b.wantTold(x, "bound attached detach")
		})
	})
}

func TestRepair(t *testing.T) {
	withAgent(t, func(b *bed) {
		x := b.running("a", networked)
		told, attaches := b.told(x), b.k.attaches.Load()
		if b.a.Repair(key("nobody")) {
			t.Error("repaired nothing")
		}
		if !b.a.Repair(x.Key) {
			t.Error("not repaired")
		}
		if err := b.a.Idle(b.Context(), x.Key); err != nil {
			t.Error(err)
		}
		if b.k.attaches.Load() != attaches+1 || b.told(x) != told {
			t.Errorf("%d attaches; events: %s", b.k.attaches.Load()-attaches, b.told(x))
		}
		if e := b.want(x, StateAttached); e.Grade != GradeEarly {
			t.Errorf("grade %s", e.Grade)
		}
		b.c.exit(x)
		b.wait(time.Second)
		b.want(x, StateBound)
	})
}

func TestMetrics(t *testing.T) {
	withAgent(t, func(b *bed) {
		x := b.running("a", networked)
		b.running("b", with(labelMTU, "x"))
		b.reg.MustRegister(b.a)
		b.c.exit(x)
		b.wait(time.Second)
		b.a.Hint(events.Hint{Key: x.Key, Topic: events.TaskStart}) // without a timestamp
		b.wait(time.Second)
		for _, m := range []struct {
			name, label string
			want        int
		}{
			{"stellar_attach_total", "attached", 1},
			{"stellar_attach_total", "adopted", 0},
			{"stellar_attach_total", "error", 0},
			{"stellar_attach_duration_seconds", "total", 1},
			{"stellar_detach_total", "ok", 1},
			{"stellar_detach_total", "error", 0},
			{"stellar_detach_duration_seconds", "", 1},
			{"stellar_ipam_allocate_duration_seconds", "ok", 1},
			{"stellar_reconcile_actions_total", "bind", 1},
			{"stellar_reconcile_actions_total", "attach", 1},
			{"stellar_reconcile_actions_total", "detach", 1},
			{"stellar_reconcile_queue", "working", 0},
			{"stellar_events_received_total", "/tasks/create", 2},
			{"stellar_events_received_total", "/tasks/start", 3},
			{"stellar_event_lag_seconds", "", 8},
			{"stellar_label_rejections_total", "label", 1},
			{"stellar_containerd_connected", "", 1},
		} {
			if got := b.counted(m.name, m.label); got != m.want {
				t.Errorf("%s %s is %d, want %d", m.name, m.label, got, m.want)
			}
		}
		if b.counted("stellar_reconcile_duration_seconds", "") < 4 {
			t.Error("passes are not timed")
		}
		families, _ := b.reg.Gather()
		states := ""
		for _, f := range families {
			if f.GetName() == "stellar_endpoints" {
				for _, m := range f.GetMetric() {
					if m.GetGauge().GetValue() == 0 {
						continue
					}
					states += fmt.Sprintf("%s %s %v; ", m.GetLabel()[0].GetValue(), m.GetLabel()[1].GetValue(), m.GetGauge().GetValue())
				}
			}
		}
		if states != " bound 1;  rejected 1; " {
			t.Errorf("endpoints: %q", states)
		}
		b.a.Connected(false, errNowhere)
		if n := b.counted("stellar_containerd_connected", ""); n != 0 {
			t.Errorf("connected is %d", n)
		}
		if up, since, err := b.a.Containerd(); up || since.IsZero() || err != errNowhere {
			t.Errorf("containerd: %v since %s: %v", up, since, err)
		}
	})
}

var errNowhere = fmt.Errorf("nowhere")
