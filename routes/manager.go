package routes

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// auditEvery is how often the table is compared without a reason.
	auditEvery = 10 * time.Second
	// Kernel changes are collected for a while before the table is compared: a
	// flapping link or a flush makes many. The time doubles, up to settleMax,
	// while somebody keeps removing our routes, and a repair is still quick.
	settleMin = 50 * time.Millisecond
	settleMax = time.Second
	// Retries after a failure start at retryMin, double, and stay at auditEvery.
	retryMin = 100 * time.Millisecond
)

// Config says whose routes a Manager keeps. It is not changed after New.
type Config struct {
	// Namespace is an open descriptor of the host's network namespace; -1 is
	// the calling thread's.
	Namespace int
	// Wants returns what the routes follow from, now. It must not block.
	Wants func() Wants
	// OnRepair is told of each route that somebody else had removed or changed.
	// nil: nobody. It must not block.
	OnRepair func(Route)
	// OnRound is told of each comparison: how long it took, how many routes it
	// changed, and what it could not do. nil: nobody. It must not block.
	OnRound func(took time.Duration, changes int, err error)
	Logger  *slog.Logger // nil discards
}

// Manager keeps the kernel's routes as they are wanted. Make it with New, run
// it with Run. It leaves the routes in place when it ends.
type Manager struct {
	cfg   Config
	log   *slog.Logger
	kick  chan struct{} // capacity 1: what is wanted has changed
	moved chan struct{} // capacity 1: the kernel's side has changed
	asks  chan ask
	view  view

	mu         sync.Mutex // guards what follows
	last       []Status
	conditions []Condition
}

// New returns a manager that has not started.
func New(cfg Config) *Manager {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Manager{
		cfg: cfg, log: cfg.Logger,
		kick: make(chan struct{}, 1), moved: make(chan struct{}, 1), asks: make(chan ask),
	}
}

// Changed has the routes compared at once: what is wanted may have changed. It
// does not block, and may be called often.
func (m *Manager) Changed() { signal(m.kick) }

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Run compares and repairs until ctx ends. It is called once.
func (m *Manager) Run(ctx context.Context) error {
	// Before the first look, so that nothing is missed between the two.
	sub, err := subscribe(m.cfg.Namespace)
	if err != nil {
		return err
	}
	defer sub.Close()
	k, err := openKernel(m.cfg.Namespace)
	if err != nil {
		return err
	}
	defer k.close()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return watch(ctx, sub, &m.view, func() { signal(m.moved) }) })
	g.Go(func() error { return m.loop(ctx, k) })
	return g.Wait()
}

// loop is the one place that reads and changes the kernel's table.
func (m *Manager) loop(ctx context.Context, k fib) error {
	r := newRound(m, k)
	p := pacer{next: time.Now()}
	for {
		timer := time.NewTimer(time.Until(p.next))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-m.kick:
			p.soon()
		case <-m.moved:
			r.forget()
			p.settled()
		case a := <-m.asks:
			r.forget()
			if a.dryRun {
				a.reply <- answerOf(r.run(true))
			} else {
				a.reply <- answerOf(m.round(r, &p))
			}
		case <-timer.C:
			_, _ = m.round(r, &p) // logged there
		}
		timer.Stop()
	}
}

// round runs one round, and says what it could not do and when it is tried again.
func (m *Manager) round(r *round, p *pacer) ([]Change, error) {
	start := time.Now()
	if start.Sub(p.audited) >= auditEvery {
		r.forget()
		p.audited = start
	}
	changes, err := r.run(false)
	if m.cfg.OnRound != nil {
		m.cfg.OnRound(time.Since(start), len(changes), err)
	}
	p.ended(start, r.repaired > 0, err)
	if err != nil {
		m.log.Warn("routes will be tried again", "err", err, "in", time.Until(p.next).Round(time.Millisecond))
	}
	return changes, err
}

// pacer says when the next round is due.
type pacer struct {
	next    time.Time
	audited time.Time // when everything was last asked anew without a reason
	end     time.Time // of the last round
	took    time.Duration
	fails   int           // in a row
	settle  time.Duration // 0: settleMin
	fought  time.Time     // the last repair
}

// soon is for a change of what is wanted: at once, but rounds take at most half
// of the time.
func (p *pacer) soon() { p.due(p.end.Add(p.took)) }

// settled is for a change in the kernel: when things have calmed down, and so
// that somebody who changes routes all the time does not keep us busy.
func (p *pacer) settled() {
	p.due(time.Now().Add(max(settleMin, p.settle, min(5*p.took, settleMax))))
}

func (p *pacer) due(t time.Time) {
	if t.Before(p.next) {
		p.next = t
	}
}

// ended notes a round that began at start.
func (p *pacer) ended(start time.Time, repaired bool, err error) {
	p.end = time.Now()
	p.took = p.end.Sub(start)
	switch {
	case repaired:
		p.settle, p.fought = min(max(2*p.settle, 2*settleMin), settleMax), p.end
	case p.end.Sub(p.fought) > auditEvery:
		p.settle = 0
	}
	pause := auditEvery
	p.fails++
	if err == nil {
		p.fails = 0
	} else {
		pause = min(retryMin<<min(p.fails-1, 10), auditEvery)
		pause = pause*4/5 + rand.N(pause*2/5)
	}
	p.next = p.end.Add(pause)
}

// Status returns how the routes stood at the last look, this node's own
// subnet first, then by destination.
func (m *Manager) Status() []Status {
	w := m.cfg.Wants()
	m.mu.Lock()
	defer m.mu.Unlock()
	out := []Status{{State: OK, Route: Route{Kind: Local, Destination: w.Subnet, Device: w.Device, Node: w.Node}}}
	return append(out, m.last...)
}

// Drift returns what of Status is not OK. To learn what differs right now, call
// Sync with dryRun before: that is a look, too.
func (m *Manager) Drift() []Status {
	return slices.DeleteFunc(m.Status(), func(s Status) bool { return s.State == OK })
}

// Conditions returns what was found about the host at the last look, sorted.
func (m *Manager) Conditions() []Condition {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.conditions)
}

// publish makes the outcome of a round visible and returns the one before.
func (m *Manager) publish(status []Status, conditions []Condition) (old []Status, oldConditions []Condition) {
	m.mu.Lock()
	defer m.mu.Unlock()
	old, oldConditions = m.last, m.conditions
	m.last, m.conditions = status, conditions
	return old, oldConditions
}
