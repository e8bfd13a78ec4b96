package agent

import (
	"cmp"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"stellar.io/stellar/events"
)

// Metrics counts and times what the agent does. A nil *Metrics does nothing. No label
// has a value that grows with the containers: neither names nor addresses.
type Metrics struct {
	attachTotal   *prometheus.CounterVec
	attachSeconds *prometheus.HistogramVec
	detachTotal   *prometheus.CounterVec
	detachSeconds prometheus.Histogram
	allocate      *prometheus.HistogramVec
	eventsTotal   *prometheus.CounterVec
	eventLag      prometheus.Histogram
	reconcile     prometheus.Histogram
	actions       *prometheus.CounterVec
	rejections    *prometheus.CounterVec
	grades        *prometheus.CounterVec
	connected     prometheus.Gauge
}

// The values of labels, so that each series is there from the start: a counter that
// appears with its first increment hides it from rate().
var (
	attachSources    = []string{"label", "annotation", SourceCNI, SourceManual, sourceUnknown}
	attachResults    = []string{"attached", "adopted", "error"}
	attachPhases     = []string{"event", "queue", "look", "open", "lease", "prepare", "netns", "link", "host", "guest", "total"}
	allocateResults  = []string{"ok", "provisional", "error"}
	eventTopics      = events.Topics()
	rejectionReasons = []string{
		"address", "address-reserved", "address-taken", "host-network", "image-label", "image-unreadable", "interface",
		"label", "mac", "mtu", "network", "node-full", "route", "runtime", "subnet-full",
	}
	actionNames = map[step]string{stepDetach: "detach", stepRelease: "release", stepBind: "bind", stepAttach: "attach", stepForget: "forget"}
)

// sourceUnknown is the source of an endpoint that an earlier agent has made, as long
// as nothing is known of its container.
const sourceUnknown = "unknown"

// NewMetrics registers the agent's metrics with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	fast := prometheus.ExponentialBuckets(0.00005, 2, 18) // 50 µs to 6.5 s
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	timing := func(name, help string) prometheus.HistogramOpts {
		return prometheus.HistogramOpts{Name: name, Help: help, Buckets: fast}
	}
	m := &Metrics{
		attachTotal:   counter("stellar_attach_total", "Endpoints attached or adopted, and attempts that failed.", "source", "result"),
		attachSeconds: prometheus.NewHistogramVec(timing("stellar_attach_duration_seconds", "Time of an attach by phase; total starts at the event's timestamp."), []string{"phase"}),
		detachTotal:   counter("stellar_detach_total", "Endpoints removed, and attempts that failed.", "result"),
		detachSeconds: prometheus.NewHistogram(timing("stellar_detach_duration_seconds", "Time until the kernel has confirmed that an endpoint is gone.")),
		allocate:      prometheus.NewHistogramVec(timing("stellar_ipam_allocate_duration_seconds", "Time until an address was in the journal and committed, or provisional."), []string{"result"}),
		eventsTotal:   counter("stellar_events_received_total", "Events received from containerd.", "topic"),
		eventLag:      prometheus.NewHistogram(timing("stellar_event_lag_seconds", "Time from an event's timestamp to its receipt.")),
		reconcile:     prometheus.NewHistogram(timing("stellar_reconcile_duration_seconds", "Time of one pass over one container.")),
		actions:       counter("stellar_reconcile_actions_total", "Steps that passes over containers have taken.", "action"),
		rejections:    counter("stellar_label_rejections_total", "Containers rejected, by reason.", "reason"),
		grades:        counter("stellar_endpoint_ready_total", "Endpoints that came up, by how they were ready in relation to their program's first instruction.", "grade"),
		connected: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "stellar_containerd_connected", Help: "1 while containerd answers.",
		}),
	}
	reg.MustRegister(m.attachTotal, m.attachSeconds, m.detachTotal, m.detachSeconds, m.allocate, m.eventsTotal, m.eventLag, m.reconcile,
		m.actions, m.rejections, m.grades, m.connected)
	m.begin()
	return m
}

// begin makes the series whose labels are known.
func (m *Metrics) begin() {
	for _, g := range []Grade{GradeSync, GradeHeld, GradeEarly, GradeLate, GradeAdopted} {
		m.grades.WithLabelValues(string(g))
	}
	for _, source := range attachSources {
		for _, result := range attachResults {
			m.attachTotal.WithLabelValues(source, result)
		}
	}
	for _, phase := range attachPhases {
		m.attachSeconds.WithLabelValues(phase)
	}
	for _, result := range []string{"ok", "error"} {
		m.detachTotal.WithLabelValues(result)
	}
	for _, result := range allocateResults {
		m.allocate.WithLabelValues(result)
	}
	for _, topic := range eventTopics {
		m.eventsTotal.WithLabelValues(string(topic))
	}
	for _, name := range actionNames {
		m.actions.WithLabelValues(name)
	}
	for _, reason := range rejectionReasons {
		m.rejections.WithLabelValues(reason)
	}
}

func (m *Metrics) attached(source, result string, phases []Phase) {
	if m == nil {
		return
	}
	m.attachTotal.WithLabelValues(cmp.Or(source, sourceUnknown), result).Inc()
	if result != "attached" {
		return
	}
	for _, p := range phases {
		m.attachSeconds.WithLabelValues(p.Name).Observe(p.Duration.Seconds())
	}
}

// ready counts an endpoint that came up, once for each task.
func (m *Metrics) ready(g Grade) {
	if m != nil && g != "" {
		m.grades.WithLabelValues(string(g)).Inc()
	}
}

func (m *Metrics) detached(took time.Duration, err error) {
	if m == nil {
		return
	}
	m.detachTotal.WithLabelValues(okOrError(err)).Inc()
	if err == nil {
		m.detachSeconds.Observe(took.Seconds())
	}
}

// allocated times a Bind.
func (m *Metrics) allocated(took time.Duration, provisional bool, err error) {
	if m == nil {
		return
	}
	result := okOrError(err)
	if err == nil && provisional {
		result = "provisional"
	}
	m.allocate.WithLabelValues(result).Observe(took.Seconds())
}

func okOrError(err error) string {
	if err != nil {
		return "error"
	}
	return "ok"
}

func (m *Metrics) acted(s step) {
	if m != nil {
		m.actions.WithLabelValues(actionNames[s]).Inc()
	}
}

func (m *Metrics) eventReceived(h events.Hint) {
	if m == nil {
		return
	}
	m.eventsTotal.WithLabelValues(string(h.Topic)).Inc()
	if !h.Time.IsZero() {
		m.eventLag.Observe(h.Received.Sub(h.Time).Seconds())
	}
}

func (m *Metrics) reconciled(d time.Duration) {
	if m != nil {
		m.reconcile.Observe(d.Seconds())
	}
}

func (m *Metrics) rejected(code string) {
	if m != nil {
		m.rejections.WithLabelValues(code).Inc()
	}
}

func (m *Metrics) containerdConnected(up bool) {
	if m == nil {
		return
	}
	if up {
		m.connected.Set(1)
	} else {
		m.connected.Set(0)
	}
}

var (
	endpointsDesc = prometheus.NewDesc("stellar_endpoints", "Containers that ask for a network, by state and by how early they were ready.", []string{"state", "grade"}, nil)
	queueDesc     = prometheus.NewDesc("stellar_reconcile_queue", "Containers that a pass is due for, that wait for a later one, and that one is under way for.", []string{"state"}, nil)
)

var states = []State{StatePending, StateBound, StateAttached, StateProvisional, StateShared, StateRetrying, StateRejected}

// Describe implements prometheus.Collector.
func (a *Agent) Describe(ch chan<- *prometheus.Desc) { ch <- endpointsDesc; ch <- queueDesc }

// Collect implements prometheus.Collector.
func (a *Agent) Collect(ch chan<- prometheus.Metric) {
	type class struct {
		state State
		grade Grade
	}
	count := map[class]int{}
	for _, s := range states {
		count[class{s, ""}] = 0
	}
	for _, e := range a.Endpoints() {
		count[class{e.State, e.Grade}]++
	}
	for c, n := range count {
		ch <- prometheus.MustNewConstMetric(endpointsDesc, prometheus.GaugeValue, float64(n), string(c.state), string(c.grade))
	}
	due, later, working := a.queue.sizes()
	for state, n := range map[string]int{"due": due, "later": later, "working": working} {
		ch <- prometheus.MustNewConstMetric(queueDesc, prometheus.GaugeValue, float64(n), state)
	}
}
