package agent

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"stellar.io/stellar/events"
)

// Metrics counts and times what the agent does. A nil *Metrics does nothing.
type Metrics struct {
	attachTotal   *prometheus.CounterVec
	attachSeconds *prometheus.HistogramVec
	detachTotal   prometheus.Counter
	eventsTotal   *prometheus.CounterVec
	eventLag      prometheus.Histogram
	reconcile     prometheus.Histogram
	rejections    *prometheus.CounterVec
	grades        *prometheus.CounterVec
	connected     prometheus.Gauge
}

// NewMetrics registers the agent's metrics with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	fast := prometheus.ExponentialBuckets(0.00005, 2, 18) // 50 µs to 6.5 s
	m := &Metrics{
		attachTotal: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stellar_attach_total", Help: "Endpoints attached or adopted, and attempts that failed.",
		}, []string{"result"}),
		attachSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "stellar_attach_duration_seconds", Buckets: fast,
			Help: "Time of an attach by phase; total starts at the event's timestamp.",
		}, []string{"phase"}),
		detachTotal: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "stellar_detach_total", Help: "Endpoints removed.",
		}),
		eventsTotal: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stellar_events_received_total", Help: "Events received from containerd.",
		}, []string{"topic"}),
		eventLag: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "stellar_event_lag_seconds", Buckets: fast,
			Help: "Time from an event's timestamp to its receipt.",
		}),
		reconcile: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "stellar_reconcile_duration_seconds", Buckets: fast,
			Help: "Time of one pass over one container.",
		}),
		rejections: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stellar_label_rejections_total", Help: "Containers rejected, by reason.",
		}, []string{"reason"}),
		grades: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stellar_endpoint_ready_total", Help: "Endpoints that came up, by how they were ready in relation to their program's first instruction.",
		}, []string{"grade"}),
		connected: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "stellar_containerd_connected", Help: "1 while containerd answers.",
		}),
	}
	reg.MustRegister(m.attachTotal, m.attachSeconds, m.detachTotal, m.eventsTotal, m.eventLag, m.reconcile, m.rejections, m.grades, m.connected)
	for _, g := range []Grade{GradeSync, GradeHeld, GradeEarly, GradeLate, GradeAdopted} {
		m.grades.WithLabelValues(string(g))
	}
	for _, result := range []string{"attached", "adopted", "error"} {
		m.attachTotal.WithLabelValues(result)
	}
	return m
}

func (m *Metrics) attached(result string, phases []Phase) {
	if m == nil {
		return
	}
	m.attachTotal.WithLabelValues(result).Inc()
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

func (m *Metrics) detached() {
	if m != nil {
		m.detachTotal.Inc()
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

var endpointsDesc = prometheus.NewDesc("stellar_endpoints", "Containers that ask for a network, by state and by how early they were ready.", []string{"state", "grade"}, nil)

// Describe implements prometheus.Collector.
func (a *Agent) Describe(ch chan<- *prometheus.Desc) { ch <- endpointsDesc }

// Collect implements prometheus.Collector.
func (a *Agent) Collect(ch chan<- prometheus.Metric) {
	type class struct {
		state State
		grade Grade
	}
	count := map[class]int{}
	a.mu.Lock()
	for _, r := range a.records {
		if r.shown.State != "" {
			count[class{r.shown.State, r.shown.Grade}]++
		}
	}
	for _, x := range a.attachments {
		count[class{x.shown.State, x.shown.Grade}]++
	}
	a.mu.Unlock()
	for c, n := range count {
		ch <- prometheus.MustNewConstMetric(endpointsDesc, prometheus.GaugeValue, float64(n), string(c.state), string(c.grade))
	}
}
