package node

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"stellar.io/stellar/agent"
	"stellar.io/stellar/api"
	"stellar.io/stellar/events"
	"stellar.io/stellar/internal/hold"
)

// holding is the hold as the agent uses it.
type holding struct{ *hold.Holder }

func holdKey(k events.Key) hold.Key { return hold.Key{Namespace: k.Namespace, ID: k.ID} }

func (h holding) Arm(k events.Key, deadline time.Duration) { h.Holder.Arm(holdKey(k), deadline) }

func (h holding) Disarm(k events.Key) { h.Holder.Disarm(holdKey(k)) }

func (h holding) Second(k events.Key, pid int, created time.Time) {
	h.Holder.Second(holdKey(k), pid, created)
}

func (h holding) Release(k events.Key, pid int) bool { return h.Holder.Release(holdKey(k), pid).Held }

// newHold returns the hold, nil where it is switched off. seized is told of each
// process that is held.
func (n *Node) newHold(seized func(events.Key, int, time.Time)) *hold.Holder {
	c := n.opts.Config
	if !c.Hold.Enabled {
		return nil
	}
	runtime.GOMAXPROCS(runtime.NumCPU() + hold.Processors)
	ends, held := newHoldMetrics(n.reg)
	return hold.New(hold.Config{
		Roots: []string{c.Containerd.StateDir}, Deadline: c.Hold.Deadline.Duration, Logger: n.log,
		OnHeld: func(k hold.Key, pid int, at time.Time) { seized(events.Key{Namespace: k.Namespace, ID: k.ID}, pid, at) },
		OnEnd: func(_ hold.Key, e hold.End) {
			ends.WithLabelValues(e.How.String()).Inc()
			if e.Held > 0 {
				held.Observe(e.Held.Seconds())
			}
		},
	})
}

func newHoldMetrics(reg prometheus.Registerer) (ends *prometheus.CounterVec, held prometheus.Histogram) {
	ends = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "stellar_holds_total", Help: "Programs kept from their start until their network was up, by how that ended.",
	}, []string{"result"})
	held = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "stellar_hold_duration_seconds", Help: "Time from the seizure of an init process until it was let go.",
		Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14), // 0.5 ms to 4 s
	})
	reg.MustRegister(ends, held)
	for _, how := range hold.Hows() {
		ends.WithLabelValues(how.String())
	}
	return ends, held
}

// taskDir is where containerd's shims have their bundles, below its state directory.
const taskDir = "/io.containerd.runtime.v2.task/"

// Hint implements events.Sink: the bundle that an event names tells where
// containerd's state is.
func (s containerdSink) Hint(h events.Hint) {
	if root, _, ok := strings.Cut(h.Bundle, taskDir); ok && s.hold != nil {
		s.hold.Learn(root)
	}
	s.Agent.Hint(h)
}

// runHold starts the hold, if there is one.
func runHold(ctx context.Context, g *errgroup.Group, h *hold.Holder) {
	if h != nil {
		g.Go(func() error { return h.Run(ctx) })
	}
}

// holdOf is h as the agent takes it: a nil interface for none.
func holdOf(h *hold.Holder) agent.Hold {
	if h == nil {
		return nil
	}
	return holding{h}
}

// checkHold: programs can be kept until their networks are up.
func (p *parts) checkHold(add addCheck) {
	if p.hold == nil {
		add("hold", api.OK, "switched off: a program may start before its network is up")
		return
	}
	s := p.hold.Status()
	if !s.Working {
		add("hold", api.Warn, s.Reason+": a program may start before its network is up")
		return
	}
	add("hold", api.OK, fmt.Sprintf("%d programs held so far, %d now", s.Holds, s.Holding))
}
