package agent

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/events"
)

// simSteps is how many things happen in one simulated history.
const simSteps = 1000

// TestSimulate runs seeded histories of agent, holder, journal and state in one
// goroutine each; see world. A seed that breaks a promise prints the command that
// replays it, with its trace. STELLAR_SEEDS says how many (10,000; with the race
// detector 200), STELLAR_SEED runs one.
func TestSimulate(t *testing.T) {
	if s := os.Getenv("STELLAR_SEED"); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		w := simulateSeed(seed, true)
		t.Logf("history of seed %d:\n%s", seed, w.trace.all)
		if w.broken != "" {
			t.Error(w.broken)
		}
		return
	}
	seeds := uint64(10_000)
	if raceEnabled {
		seeds = 200
	}
	if s := os.Getenv("STELLAR_SEEDS"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seeds = n
	}
	begin, busy := time.Now(), cpuTime()
	var next, steps atomic.Uint64
	var failed sync.Map
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for seed := next.Add(1); seed <= seeds; seed = next.Add(1) {
				w := simulateSeed(seed, false)
				steps.Add(uint64(w.steps))
				if w.broken != "" {
					failed.Store(seed, w.broken)
				}
			}
		})
	}
	workers.Wait()
	n := 0
	for seed := uint64(1); seed <= seeds; seed++ {
		if why, ok := failed.Load(seed); ok {
			if n++; n <= 10 {
				t.Errorf("%s\n\treplay: STELLAR_SEED=%d go test -tags hashicorpmetrics -run '^TestSimulate$' -v ./agent", why, seed)
			}
		}
	}
	if n > 0 {
		t.Errorf("%d of %d seeds failed", n, seeds)
	}
	t.Logf("%d seeds, %d steps in %s, %s of processor time", seeds, steps.Load(), time.Since(begin).Round(10*time.Millisecond), (cpuTime() - busy).Round(10*time.Millisecond))
}

// TestSimulateReplays: a seed is a history, byte for byte.
func TestSimulateReplays(t *testing.T) {
	seeds := uint64(20)
	if raceEnabled {
		seeds = 3
	}
	for seed := uint64(1); seed <= seeds; seed++ {
		a, b := simulateSeed(seed, true), simulateSeed(seed, true)
		if !bytes.Equal(a.trace.all, b.trace.all) || a.trace.sum != b.trace.sum {
			t.Errorf("seed %d has two histories: %x and %x\n%s", seed, a.trace.sum, b.trace.sum, firstDifference(a.trace.all, b.trace.all))
		}
		if c := simulateSeed(seed, false); c.trace.sum != a.trace.sum {
			t.Errorf("seed %d has another history when nobody looks", seed)
		}
		if bytes.Count(a.trace.all, []byte("\n")) < simSteps/2 {
			t.Errorf("seed %d: hardly anything happened", seed)
		}
	}
}

// cpuTime is the processor time of this process, which other load does not change.
func cpuTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func firstDifference(a, b []byte) string {
	x, y := bytes.Split(a, []byte("\n")), bytes.Split(b, []byte("\n"))
	for i := range min(len(x), len(y)) {
		if !bytes.Equal(x[i], y[i]) {
			return fmt.Sprintf("line %d: %s\n      or: %s", i+1, x[i], y[i])
		}
	}
	return fmt.Sprintf("%d and %d lines", len(x), len(y))
}

// simulateSeed runs one history until its end or its first broken promise.
func simulateSeed(seed uint64, keep bool) *world {
	w := newWorld(seed)
	w.trace.keep = keep
	for w.steps < simSteps && w.broken == "" {
		w.step()
		w.check()
	}
	if w.broken == "" {
		w.settle()
	}
	return w
}

// step lets one thing happen: to the machine, to the cluster, or in the agent.
func (w *world) step() {
	w.steps++
	w.now += time.Duration(w.rng.IntN(2000)) * time.Microsecond
	if w.life != nil && w.life.dead && w.depth == 0 {
		w.life = nil
	}
	n := w.rng.IntN(1000)
	switch {
	case w.life == nil && w.depth == 0 && n < 300:
		w.boot()
	case n < 330:
		w.user()
	case n < 350:
		w.cluster()
	case n < 365:
		w.containerd()
	case n < 368 && w.depth == 0:
		w.die()
	case w.life == nil || w.life.dead:
		w.pause(w.rng.IntN(1000) < 20)
	case n < 560 && len(w.c.hints) > 0:
		w.c.deliver()
	case n < 600 && len(w.over)+len(w.lost) > 0:
		w.notice()
	case n < 625:
		w.list()
	case n < 675:
		w.round()
	default:
		if wait, worked := w.pass(); !worked {
			w.sleep(wait)
		}
	}
}

// sleep goes to when the next container is due, or some of the way.
func (w *world) sleep(wait time.Duration) {
	w.now += min(wait, time.Duration(w.rng.Int64N(int64(2*time.Second))))
	w.pause(w.luck(10))
}

// pause lets much time pass, sometimes.
func (w *world) pause(long bool) {
	switch {
	case !long:
	case w.luck(100):
		w.now += 11 * time.Minute
	default:
		w.now += time.Duration(w.rng.Int64N(int64(90 * time.Second)))
	}
}

// notice delivers what pidfds and the watch of links tell.
func (w *world) notice() {
	if len(w.over) > 0 && (len(w.lost) == 0 || w.luck(500)) {
		tell := w.over[0]
		w.over = w.over[1:]
		tell()
		return
	}
	o := w.lost[0]
	w.lost = w.lost[1:]
	if !w.faults || w.luck(800) {
		w.trace.line("link lost").owner(o).end(w)
		w.life.agent.Lost(o, "its link has disappeared")
	}
}

// list brings the connection to containerd and its listings forward.
func (w *world) list() {
	l := w.life
	switch {
	case l.connected && (!w.c.up || l.server != w.c.starts):
		l.connected, l.listing = false, nil
		l.agent.Connected(false, events.ErrNotConnected)
		w.trace.line("disconnected").end(w)
	case !w.c.up:
	case !l.connected:
		l.connected, l.listed, l.server = true, false, w.c.starts
		l.agent.Connected(true, nil)
		w.trace.line("connected").end(w)
	case l.listing == nil:
		l.listing = w.c.beginList()
	default:
		w.c.endList(l)
	}
}

// cluster changes what the log does.
func (w *world) cluster() {
	switch n := w.rng.IntN(10); {
	case n < 2 && w.s.leader:
		w.s.leader = false
		w.trace.line("no leader").end(w)
	case n < 6:
		if !w.s.leader {
			w.trace.line("leader").end(w)
		}
		w.s.leader = true
		w.s.catchUp()
	case len(w.s.late) > 0:
		w.s.lateComes()
	}
}

// containerd stops, starts, or comes back without its data.
func (w *world) containerd() {
	switch {
	case !w.c.up:
		w.c.up = true
		w.c.starts++
		if w.luck(150) {
			w.c.lose()
		}
		w.trace.line("containerd up").end(w)
	case w.luck(250):
		w.c.up = false
		w.c.hints = nil
		w.trace.line("containerd down").end(w)
	}
}

// die ends the agent, or the whole machine.
func (w *world) die() {
	if w.life != nil {
		w.life.dead = true
	}
	w.life = nil
	if !w.luck(200) {
		w.trace.line("agent killed").end(w)
		return
	}
	w.trace.line("reboot").end(w)
	w.k.reboot()
	w.disk.reboot()
	w.over, w.lost, w.c.hints, w.c.orphans = nil, nil, nil, nil
	w.c.up = true
	for _, x := range w.c.slots {
		if x != nil {
			x.proc, x.Task, x.changed = nil, nil, w.now
			if x.join != nil { // its pin is gone too: it has its own from now on
				x.join, x.NetNS, x.NetNSPath = nil, events.NetNSNew, ""
			}
		}
	}
}

// user does one thing to one container.
func (w *world) user() {
	if n := len(w.c.orphans); n > 0 && w.luck(150) {
		i := w.rng.IntN(n)
		p := w.c.orphans[i]
		w.c.orphans = append(w.c.orphans[:i], w.c.orphans[i+1:]...)
		w.k.kill(p)
		return
	}
	i, n := w.rng.IntN(len(simKeys)), w.rng.IntN(100)
	x := w.c.slots[i]
	switch {
	case !w.c.up:
		if x != nil && x.proc != nil && n < 30 {
			w.k.kill(x.proc)
		}
	case x == nil:
		w.c.create(i)
	case n < 8:
		x.Labels, x.changed = w.c.labels(), w.now
		w.c.tell(x.Key, events.ContainerUpdate, 0)
	case x.Task == nil && n < 75:
		w.c.task(x)
	case x.Task == nil:
		w.c.remove(i)
	case x.Task.Status == events.TaskCreated && n < 75 && !x.proc.dead:
		w.c.run(x)
	case n < 80: // the record goes first
		w.c.remove(i)
	case n < 86:
		w.k.kill(x.proc) // containerd sees it later, or never
	default:
		w.c.exit(x)
	}
}

// settle ends all faults and lets time pass until everything has had its chance.
func (w *world) settle() {
	w.trace.line("faults end").end(w)
	w.faults = false
	w.c.up, w.s.leader = true, true
	for len(w.s.late) > 0 {
		w.s.lateComes()
	}
	w.s.catchUp()
	if w.life == nil || w.life.dead {
		w.life = nil
		w.boot()
	}
	for minute := 0; minute < 14 && w.broken == ""; minute++ {
		for range 3 {
			w.list()
		}
		end := w.now + time.Minute
		for n := 0; w.now < end && w.broken == ""; n++ {
			if n > 3000 {
				w.breaks("it does not settle: %d passes in a minute", n)
			}
			w.calmly(end)
		}
		w.round()
		w.check()
	}
	if w.broken == "" {
		w.round()
		w.checkEnd()
	}
}

// calmly lets the next thing happen that is due before end.
func (w *world) calmly(end time.Duration) {
	switch {
	case len(w.c.hints) > 0:
		w.c.deliver()
	case len(w.over)+len(w.lost) > 0:
		w.notice()
	default:
		if wait, worked := w.pass(); !worked {
			w.now = min(w.now+wait+time.Millisecond, end)
		}
	}
}
