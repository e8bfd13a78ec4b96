package agent

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"time"

	"stellar.io/stellar/events"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore/holder"
)

// world is one simulated machine and its cluster, in one goroutine. All that
// happens in it is drawn from rng, so a seed is a history.
//
// Real: the agent with its queue, hints, looks, decisions and records; parseWish;
// the holder with its merge, its rounds and its picker; the journal's format, of
// which a machine that dies loses the end; the replicated state, entry by entry.
// Modelled: containerd (records, tasks, listings, hints), the kernel (processes,
// namespaces, links), the log (a list of entries that may come late or never),
// the journal's disk, and time. Not in it: attachments without a container, the
// hold, reservations, Raft itself (see raftstore) and netlink (see netsetup).
//
// Concurrency is nesting: whoever calls out of the agent may find that something
// else happens before the call takes effect, another worker's whole pass included.
type world struct {
	rng    *rand.Rand
	now    time.Duration // since dawn
	trace  trace
	faults bool
	depth  int    // of nesting
	broken string // the first promise that was broken
	steps  int

	k    simKernel
	c    simContainerd
	s    simStore
	disk simDisk
	life *life // nil while the agent is not running
	lost []ipam.Owner
	over []func() // exits that pidfds tell of, not yet delivered

	acked    map[ipam.Owner]netip.Addr // reported by Bind, not yet released
	released map[netip.Addr]rest
	busy     bool // a round of the holder is under way
}

// rest is an address's after its release.
type rest struct {
	by    ipam.Owner
	since time.Duration
}

// life is the process of an agent, from its start to its death. After that nothing
// it does has an effect.
type life struct {
	agent     *Agent
	holder    *holder.Holder
	dead      bool
	connected bool     // to containerd, as the agent was told
	server    int      // the start of containerd that it is connected to
	listing   *simList // begun, not yet delivered
	listed    bool     // the first listing has been delivered
}

var (
	dawn    = time.Unix(1_700_000_000, 0)
	errDead = errors.New("the process has died")
	errLuck = errors.New("out of luck")
)

func newWorld(seed uint64) *world {
	w := &world{
		rng: rand.New(rand.NewPCG(seed, 1)), faults: true, trace: newTrace(),
		acked: map[ipam.Owner]netip.Addr{}, released: map[netip.Addr]rest{},
	}
	w.k.init(w)
	w.c.init(w)
	w.s.init(w)
	w.disk.init(w)
	w.faults = false
	w.boot() // the very first start needs a leader, and has one
	w.faults = true
	return w
}

func (w *world) time() time.Time { return dawn.Add(w.now) }

// luck reports true so often in 1000.
func (w *world) luck(permille int) bool { return w.rng.IntN(1000) < permille }

// breaks notes a broken promise; the first one counts.
func (w *world) breaks(format string, args ...any) {
	if w.broken == "" {
		w.broken = fmt.Sprintf(format, args...)
		w.trace.line("BROKEN").text(w.broken).end(w)
	}
}

// effect is what every call out of the agent goes through before it does anything.
func (w *world) effect(l *life, op string) error {
	if l.dead {
		return errDead
	}
	if !w.faults {
		return nil
	}
	w.now += 100 * time.Microsecond
	switch n := w.rng.IntN(1000); {
	case n == 0:
		w.crash(l, op)
	case n < 25:
		w.trace.line("fails").text(op).end(w)
		return errLuck
	case n < 120:
		w.meanwhile()
	}
	if l.dead {
		return errDead
	}
	return nil
}

// after may end the process just when a call has taken effect.
func (w *world) after(l *life, op string) error {
	if w.faults && !l.dead && w.rng.IntN(1000) == 0 {
		w.crash(l, op)
	}
	if l.dead {
		return errDead
	}
	return nil
}

func (w *world) crash(l *life, op string) {
	w.trace.line("crash").text(op).end(w)
	l.dead = true
}

// boot starts an agent: first its holder, with what the kernel has, then itself.
func (w *world) boot() {
	l := &life{}
	w.trace.line("boot").end(w)
	w.s.reopen()
	w.c.notices()
	h, err := holder.Open(holder.Config{
		Node: simNode, Cluster: simCluster, Subnet: w.s.subnet, JournalPath: "/sim/journal", Store: simProposer{&w.s, l},
		FS: simFS{&w.disk, l}, Clock: simClock{w, l}, Flights: math.MaxInt, Gather: 1,
	})
	if err != nil {
		w.trace.line("boot fails").text(err.Error()).end(w)
		if !w.faults {
			w.breaks("holder does not open: %v", err)
		}
		return
	}
	var live []holder.Live
	for _, k := range w.k.links {
		live = append(live, holder.Live{Addr: k.Addr, Owner: k.Owner})
	}
	if err := h.Adopt(context.Background(), live); err != nil {
		w.trace.line("adopt fails").text(err.Error()).end(w)
		if !w.faults || errors.Is(err, holder.ErrConflict) {
			w.breaks("holder does not adopt: %v", err)
		}
		return
	}
	l.holder = h
	l.agent = New(Config{NodeName: "n1", Containers: simLooks{&w.c, l}, Leases: simLeases{h, w, l}, Network: simNet{&w.k, l}})
	a := l.agent
	a.now, a.queue.now = w.time, w.time
	a.queue.jitter = func(d time.Duration) time.Duration { return time.Duration(w.rng.Int64N(int64(d))) }
	a.onExit = w.k.watch(l)
	if err := a.adopt(context.Background()); err != nil {
		w.trace.line("agent does not adopt").text(err.Error()).end(w)
		return
	}
	close(a.adoption)
	a.doubt.remember(w.c.known, w.time()) // the file that has it is another test's
	if l.dead {
		return
	}
	w.life = l
	w.checkAcked()
}

// meanwhile lets something happen in the middle of a call.
func (w *world) meanwhile() {
	if w.depth >= 3 {
		return
	}
	w.depth++
	w.step()
	w.depth--
}

// pass has a worker take the next container that is due. It reports false when
// none is, and for how long.
func (w *world) pass() (wait time.Duration, worked bool) {
	q := w.life.agent.queue
	key, ok, wait := q.take()
	if !ok {
		return wait, false
	}
	w.trace.line("work").key(key).end(w)
	a := w.life.agent
	q.done(key, a.work(context.Background(), key))
	return 0, true
}

// round lets the replica follow the journal.
func (w *world) round() {
	if w.busy {
		return
	}
	w.busy = true
	_, err := w.life.holder.Round(context.Background())
	w.busy = false
	w.trace.line("round").ok(err).end(w)
}

// simClock is the holder's time. Whoever sleeps lets others act.
type simClock struct {
	w *world
	l *life
}

// simContext ends at a moment of the simulated time.
type simContext struct {
	context.Context
	w   *world
	end time.Duration
}

func (c simContext) Err() error {
	if c.w.now >= c.end {
		return context.DeadlineExceeded
	}
	return c.Context.Err()
}

func (c simClock) Now() time.Time { return c.w.time() }
func (c simClock) Go(fn func())   { fn() }

func (c simClock) Sleep(ctx context.Context, d time.Duration) error {
	if c.l.dead {
		return errDead
	}
	if c.w.faults && c.w.luck(100) {
		c.w.meanwhile()
	}
	c.w.now += d
	return ctx.Err()
}

func (c simClock) WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return simContext{ctx, c.w, c.w.now + d}, func() {}
}

// trace is the history as text, of which only the hash is kept unless somebody wants
// to read it.
type trace struct {
	sum  uint64
	buf  []byte
	keep bool
	all  []byte
}

func newTrace() trace { return trace{sum: 14695981039346656037} }

func (t *trace) line(what string) *trace {
	t.buf = append(t.buf[:0], what...)
	return t
}

func (t *trace) text(s string) *trace {
	t.buf = append(append(t.buf, ' '), s...)
	return t
}

func (t *trace) num(n int64) *trace {
	t.buf = strconv.AppendInt(append(t.buf, ' '), n, 10)
	return t
}

func (t *trace) key(k events.Key) *trace {
	t.text(k.Namespace)
	t.buf = append(append(t.buf, '/'), k.ID...)
	return t
}

func (t *trace) owner(o ipam.Owner) *trace {
	return t.text(o.Namespace).text(o.ID).num(o.Created - dawn.UnixNano()).text(o.Interface)
}

func (t *trace) addr(a netip.Addr) *trace {
	if a.IsValid() {
		t.buf = a.AppendTo(append(t.buf, ' '))
	}
	return t
}

func (t *trace) ok(err error) *trace {
	if err != nil {
		return t.text("error")
	}
	return t
}

// end adds the line, with its time, to the history.
func (t *trace) end(w *world) {
	t.num(int64(w.now / time.Microsecond))
	t.num(int64(w.depth))
	t.buf = append(t.buf, '\n')
	for _, b := range t.buf { // FNV-1a
		t.sum = (t.sum ^ uint64(b)) * 1099511628211
	}
	if t.keep {
		t.all = append(t.all, t.buf...)
	}
}
