package routes

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// auditEvery is how often the table is compared without a reason.
	auditEvery = 10 * time.Second
	// settle is how long changes are collected before the table is compared: a
	// flapping link or a flush makes many.
	settle = 50 * time.Millisecond
	// Retries after a failure start at retryMin, double, and stay at retryMax.
	retryMin = 100 * time.Millisecond
	retryMax = time.Minute
)

// Config says whose routes a Manager keeps. It is not changed after New.
type Config struct {
	// Namespace is an open descriptor of the host's network namespace; -1 is
	// the calling thread's.
	Namespace int
	// Wants returns what the routes follow from, now. It must not block.
	Wants func() Wants
	// OnRepair is told of each route that somebody else had removed. nil: nobody.
	OnRepair func(Route)
	Logger   *slog.Logger // nil discards
}

// Manager keeps the kernel's routes as they are wanted. Make it with New, run
// it with Run. It leaves the routes in place when it ends.
type Manager struct {
	cfg  Config
	log  *slog.Logger
	kick chan struct{} // capacity 1: compare now

	mu     sync.Mutex // guards what follows
	placed map[key]bool
	last   []Status
}

// New returns a manager that has not started.
func New(cfg Config) *Manager {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Manager{cfg: cfg, log: cfg.Logger, kick: make(chan struct{}, 1), placed: map[key]bool{}}
}

// Changed has the routes compared soon: what is wanted may have changed.
func (m *Manager) Changed() {
	select {
	case m.kick <- struct{}{}:
	default:
	}
}

// Run compares and repairs until ctx ends.
func (m *Manager) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return watch(ctx, m.cfg.Namespace, m.Changed) })
	g.Go(func() error { return m.loop(ctx) })
	return g.Wait()
}

func (m *Manager) loop(ctx context.Context) error {
	k, err := openKernel(m.cfg.Namespace)
	if err != nil {
		return err
	}
	defer k.close()
	for fails := 0; ; {
		pause := auditEvery
		if err := m.reconcile(k); err != nil {
			fails++
			pause = min(retryMin<<min(fails-1, 10), retryMax)
			pause = pause*4/5 + rand.N(pause*2/5)
			m.log.Warn("routes will be tried again", "err", err, "in", pause)
		} else {
			fails = 0
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		case <-m.kick:
			timer.Stop()
			if !sleep(ctx, settle) {
				return nil
			}
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// reconcile makes the kernel's table what is wanted. It adds before it deletes,
// so that no packet meets a gap, and goes on past a failure.
func (m *Manager) reconcile(k *kernel) error {
	wants := m.cfg.Wants()
	want := desired(wants)
	have, err := k.read(wants.Network)
	if err != nil {
		return err
	}
	add, del := plan(want, have)
	var problems []error
	for _, r := range add {
		_, replace := have.ours[r.key()]
		if err := k.add(r, replace); err != nil {
			problems = append(problems, err)
			continue
		}
		have.ours[r.key()] = r
		m.added(r)
	}
	for _, r := range del {
		if err := k.remove(r); err != nil {
			problems = append(problems, err)
			continue
		}
		delete(have.ours, r.key())
		m.log.Info("route removed", "destination", r.Destination)
	}
	status := compare(want, have)
	m.mu.Lock()
	m.last = status
	m.mu.Unlock()
	return errors.Join(problems...)
}

// added tells a repair from a first placing.
func (m *Manager) added(r Route) {
	m.mu.Lock()
	again := m.placed[r.key()]
	m.placed[r.key()] = true
	m.mu.Unlock()
	if !again {
		m.log.Info("route added", "destination", r.Destination)
		return
	}
	m.log.Warn("route restored", "destination", r.Destination)
	if m.cfg.OnRepair != nil {
		m.cfg.OnRepair(r)
	}
}

// Status returns how the routes stood when they were last compared, this
// node's own subnet first.
func (m *Manager) Status() []Status {
	w := m.cfg.Wants()
	m.mu.Lock()
	defer m.mu.Unlock()
	out := []Status{{State: OK, Route: Route{Kind: Local, Destination: w.Subnet, Device: w.Device, Node: w.Node}}}
	return append(out, m.last...)
}

// Cleanup removes every route that bears our mark from the namespace.
func Cleanup(namespace int) error {
	k, err := openKernel(namespace)
	if err != nil {
		return err
	}
	defer k.close()
	have, err := k.read(netip.Prefix{})
	if err != nil {
		return err
	}
	var problems []error
	for _, r := range have.ours {
		problems = append(problems, k.remove(r))
	}
	return errors.Join(problems...)
}

// Use is a range that the host itself uses.
type Use struct {
	Prefix netip.Prefix
	Device string
}

// Overlaps returns what the host itself uses inside p, by its routes (each
// address has one): routes of other programs that overlap p, those over
// ignoreDevice left out. Routes shorter than /8, such as the default route,
// say nothing about use and are left out too.
func Overlaps(namespace int, p netip.Prefix, ignoreDevice string) ([]Use, error) {
	k, err := openKernel(namespace)
	if err != nil {
		return nil, err
	}
	defer k.close()
	have, err := k.read(netip.Prefix{})
	if err != nil {
		return nil, err
	}
	var out []Use
	for _, r := range have.foreign {
		if r.Device != ignoreDevice && r.Destination.Bits() >= 8 && r.Destination.Overlaps(p) {
			out = append(out, Use{r.Destination, r.Device})
		}
	}
	slices.SortFunc(out, func(a, b Use) int { return a.Prefix.Addr().Compare(b.Prefix.Addr()) })
	return out, nil
}
