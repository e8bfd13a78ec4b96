package agent

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"stellar.io/stellar/events"
	"stellar.io/stellar/ipam"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bed is an agent among fakes, in a bubble of fake time.
type bed struct {
	*testing.T
	k       *fakeKernel
	c       *fakeContainerd
	l       *fakeLeases
	a       *Agent
	metrics *Metrics
	reg     *prometheus.Registry
	log     *bytes.Buffer
	dir     string // of requests
	barred  atomic.Pointer[error]
	stop    context.CancelFunc
	ended   sync.WaitGroup
}

const bedSubnet = "172.16.0.0/24"

// withAgent runs test with a running agent that has seen its first listing, and
// checks afterwards that no promise was broken and that the agent let go of all.
func withAgent(t *testing.T, test func(*bed)) {
	t.Helper()
	withSubnet(t, bedSubnet, test)
}

func withSubnet(t *testing.T, subnet string, test func(*bed)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, subnet)
		b.start()
		b.list()
		test(b)
		b.halt()
		b.verify()
	})
}

func newBed(t *testing.T, subnet string) *bed {
	b := &bed{T: t, k: newFakeKernel(), l: newFakeLeases(subnet)}
	b.c = newFakeContainerd(b.k)
	b.k.held = func(o ipam.Owner) (netip.Addr, bool) {
		h, ok := b.l.Lookup(o)
		return h.Addr, ok
	}
	b.k.mayDetach = b.mayDetach
	b.l.linked = func(o ipam.Owner) bool {
		b.k.mu.Lock()
		defer b.k.mu.Unlock()
		return b.k.links[o] != nil
	}
	return b
}

// mayDetach: a link is taken from a living namespace only where its container
// does not want it there, or did not a moment ago.
func (b *bed) mayDetach(o ipam.Owner, ns *fakeNS) bool {
	b.c.mu.Lock()
	defer b.c.mu.Unlock()
	key, moment := keyOf(o), 100*time.Millisecond
	x := b.c.all[key]
	switch {
	case x == nil:
		return time.Since(b.c.gone[key]) < moment
	case time.Since(x.changed) < moment:
		return true
	case x.Created.UnixNano() == o.Created:
		if a, _ := b.l.Lookup(o); x.Labels[labelIP] != "" && x.Labels[labelIP] != a.Addr.String() {
			return true // the address is exchanged when the task starts again
		}
		return x.Labels[labelNetwork] != "true" || x.proc != nil && x.proc.ns != ns
	}
	return x.proc != nil && x.proc.ns == ns // it was given to the wrong container
}

func (b *bed) start() {
	ctx, stop := context.WithCancel(b.Context())
	if b.stop == nil {
		b.log = &bytes.Buffer{}
	}
	log := slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	b.stop, b.reg = stop, prometheus.NewRegistry()
	b.metrics = NewMetrics(b.reg)
	b.a = New(Config{
		NodeName: "n1", Containers: b.c, Leases: b.l, Network: b.k, Metrics: b.metrics,
		Logger: log, Dir: b.dir, Barred: func() error {
			if why := b.barred.Load(); why != nil {
				return *why
			}
			return nil
		},
	})
	b.ended.Go(func() {
		if err := b.a.Run(ctx); err != nil {
			b.Errorf("Run: %v", err)
		}
	})
	b.c.mu.Lock()
	b.c.sink, b.c.log = b.a, log
	b.c.mu.Unlock()
	b.a.Connected(true, nil)
}

// halt stops the agent and checks that it holds nothing any more.
func (b *bed) halt() {
	b.c.mu.Lock()
	b.c.sink = nil
	b.c.mu.Unlock()
	b.stop()
	b.ended.Wait()
	b.k.mu.Lock()
	defer b.k.mu.Unlock()
	if b.k.open != 0 {
		b.Errorf("%d processes left open", b.k.open)
	}
}

func (b *bed) restart() {
	b.halt()
	b.start()
	b.list()
	b.wait(time.Second)
}

func (b *bed) verify() {
	for _, s := range append(b.k.broken, b.l.broken...) {
		b.Error(s)
	}
	if b.Failed() {
		b.Logf("log:\n%s", b.log)
	}
}

// list hands a listing over, as every 30 s.
func (b *bed) list() { b.a.Synced(b.c.list()) }

func (b *bed) wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func key(id string) events.Key { return events.Key{Namespace: "default", ID: id} }

var networked = map[string]string{labelNetwork: "true"}

func with(pairs ...string) map[string]string {
	m := map[string]string{labelNetwork: "true"}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return m
}

// running makes a container with a running task and waits until all is calm.
func (b *bed) running(id string, labels map[string]string, opts ...func(*fakeContainer)) *fakeContainer {
	x := b.c.create(key(id), labels, opts...)
	b.wait(time.Second)
	b.c.task(x)
	b.wait(10 * time.Millisecond)
	b.c.run(x)
	b.wait(time.Second)
	return x
}

// find returns what is shown of a container; the zero Endpoint if nothing is.
func (b *bed) find(x *fakeContainer) Endpoint {
	for _, e := range b.a.Endpoints() {
		if e.Key == x.Key {
			return e
		}
	}
	return Endpoint{}
}

func (b *bed) want(x *fakeContainer, s State) Endpoint {
	b.Helper()
	e := b.find(x)
	if e.State != s {
		b.Errorf("%s is %q (%s), want %q", x.Key, e.State, e.Reason, s)
	}
	return e
}

// link returns the link in a container's namespace.
func (b *bed) link(x *fakeContainer) *fakeLink {
	b.Helper()
	b.k.mu.Lock()
	defer b.k.mu.Unlock()
	var found *fakeLink
	for _, l := range b.k.links {
		if x.proc != nil && l.ns == x.proc.ns {
			if found != nil {
				b.Errorf("%s has two links: %s and %s", x.Key, found.Owner, l.Owner)
			}
			found = l
		}
	}
	return found
}

func (b *bed) wantLinks(n int) {
	b.Helper()
	b.k.mu.Lock()
	defer b.k.mu.Unlock()
	if len(b.k.links) != n {
		b.Errorf("%d links, want %d", len(b.k.links), n)
	}
}

func (b *bed) wantLeases(n int) {
	b.Helper()
	if got := b.l.All(); len(got) != n {
		b.Errorf("%d leases, want %d: %v", len(got), n, got)
	}
}

// told returns the types of the events about a container, in order.
func (b *bed) told(x *fakeContainer) string {
	list, _, _ := b.a.Events(0)
	var types []string
	for _, e := range list {
		if e.Subject == x.Key.String() {
			types = append(types, e.Type)
		}
	}
	return strings.Join(types, " ")
}

func (b *bed) wantTold(x *fakeContainer, want string) {
	b.Helper()
	if got := b.told(x); got != want {
		b.Errorf("events of %s: %s; want %s", x.Key, got, want)
	}
}

// counted returns a counter, or the number of a histogram's observations.
func (b *bed) counted(name, label string) int {
	b.Helper()
	families, err := b.reg.Gather()
	if err != nil {
		b.Fatal(err)
	}
	n := 0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if l := m.GetLabel(); len(l) == 0 && label == "" || len(l) > 0 && l[0].GetValue() == label {
				n += int(m.GetCounter().GetValue()+m.GetGauge().GetValue()) + int(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return n
}
