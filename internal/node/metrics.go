package node

import (
	"cmp"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/peerapi"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore/telemetry"
)

// What is counted as it happens is in meters; collectors read what the parts know
// when they are asked, so that nothing is counted twice. docs/metrics.md has them all.

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// gauges sends gauges to a scrape.
type gauges chan<- prometheus.Metric

func (g gauges) set(d *prometheus.Desc, v float64, labels ...string) {
	g <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (g gauges) count(d *prometheus.Desc, v float64, labels ...string) {
	g <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// registerProcess adds what every process has, what this one was built from, what
// Raft's libraries measure, and what can be said before there is a cluster.
func (n *Node) registerProcess() {
	v := n.opts.Version
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "stellar_build_info", Help: "1, with what the agent was built from.",
		ConstLabels: prometheus.Labels{"version": v.Version, "commit": v.Commit, "go_version": v.GoVersion},
	})
	build.Set(1)
	n.reg.MustRegister(build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		telemetry.Collector(), nodeCollector{n})
}

// meters count and time what happens.
type meters struct {
	proposals   *prometheus.HistogramVec
	repairs     *prometheus.CounterVec
	fsyncs      prometheus.Histogram
	fsyncErrors prometheus.Counter
	routeSyncs  *prometheus.HistogramVec
	routeWrites prometheus.Counter
	asked       *prometheus.CounterVec
	askedTime   *prometheus.HistogramVec
	served      *prometheus.CounterVec
}

// repairable are the kinds of kernel objects that are put right.
var repairable = []string{"bridge", "port", "filter", "forwarding", "forward rule", "route", "gateway", "unreachable route", "endpoint route", "neighbour"}

func newMeters(reg prometheus.Registerer) *meters {
	histogram := func(name, help string, first float64, n int) prometheus.HistogramOpts {
		return prometheus.HistogramOpts{Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(first, 2, n)}
	}
	counter := func(name, help string) prometheus.CounterOpts { return prometheus.CounterOpts{Name: name, Help: help} }
	m := &meters{
		proposals:   prometheus.NewHistogramVec(histogram("stellar_raft_apply_duration_seconds", "Time from a proposal to its commit on this node.", 0.0001, 16), []string{"result"}),
		repairs:     prometheus.NewCounterVec(counter("stellar_repairs_total", "Kernel objects of ours that others had changed and that were put right."), []string{"what"}),
		fsyncs:      prometheus.NewHistogram(histogram("stellar_journal_fsync_duration_seconds", "Time of each fsync of the journal of leases.", 0.0001, 16)),
		fsyncErrors: prometheus.NewCounter(counter("stellar_journal_fsync_errors_total", "Fsyncs of the journal that failed.")),
		routeSyncs:  prometheus.NewHistogramVec(histogram("stellar_route_sync_duration_seconds", "Time of one comparison of the routes with the kernel's.", 0.0001, 16), []string{"result"}),
		routeWrites: prometheus.NewCounter(counter("stellar_route_changes_total", "Routes that were added, replaced and deleted.")),
		asked:       prometheus.NewCounterVec(counter("stellar_peer_requests_total", "Requests sent to other nodes."), []string{"node", "result"}),
		askedTime:   prometheus.NewHistogramVec(histogram("stellar_peer_request_duration_seconds", "Time from a request to another node to the beginning of its answer.", 0.0005, 15), []string{"procedure"}),
		served:      prometheus.NewCounterVec(counter("stellar_peer_served_total", "Requests of other nodes that were answered."), []string{"procedure", "result"}),
	}
	reg.MustRegister(m.proposals, m.repairs, m.fsyncs, m.fsyncErrors, m.routeSyncs, m.routeWrites, m.asked, m.askedTime, m.served)
	for _, result := range []string{"ok", "error"} {
		m.proposals.WithLabelValues(result)
		m.routeSyncs.WithLabelValues(result)
	}
	for _, what := range repairable {
		m.repairs.WithLabelValues(what)
	}
	return m
}

func okOrError(err error) string {
	if err != nil {
		return "error"
	}
	return "ok"
}

func (m *meters) proposed(took time.Duration, err error) {
	m.proposals.WithLabelValues(okOrError(err)).Observe(took.Seconds())
}

func (m *meters) synced(took time.Duration, err error) {
	m.fsyncs.Observe(took.Seconds())
	if err != nil {
		m.fsyncErrors.Inc()
	}
}

func (m *meters) routed(took time.Duration, changes int, err error) {
	m.routeSyncs.WithLabelValues(okOrError(err)).Observe(took.Seconds())
	m.routeWrites.Add(float64(changes))
}

// otherProcedure stands for paths that are none of the API: whatever somebody sends
// must not become a series.
const otherProcedure = "other"

func procedureLabel(path string) string {
	if peerapi.Known(path) {
		return path[1:]
	}
	return otherProcedure
}

func statusLabel(status int) string {
	switch status {
	case http.StatusOK:
		return "ok"
	case 0:
		return "unreachable"
	}
	return "refused"
}

// requested counts a request to another node.
func (m *meters) requested(name, path string, took time.Duration, status int) {
	m.asked.WithLabelValues(cmp.Or(name, "any"), statusLabel(status)).Inc()
	if status != 0 {
		m.askedTime.WithLabelValues(procedureLabel(path)).Observe(took.Seconds())
	}
}

// serving counts the requests that h answers.
func (m *meters) serving(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen := &statusWriter{ResponseWriter: w}
		defer func() {
			m.served.WithLabelValues(procedureLabel(r.URL.Path), statusLabel(cmp.Or(seen.status, http.StatusOK))).Inc()
		}()
		h.ServeHTTP(seen, r)
	})
}

// statusWriter remembers the status.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = cmp.Or(w.status, status)
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController; Flush for who asks for an http.Flusher.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Flush implements http.Flusher.
func (w *statusWriter) Flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() }

// onRequest names the node of each request. The names come from the state, so that
// they are as many as the cluster has had members.
func (n *Node) onRequest(p *parts) func(ipam.NodeID, string, time.Duration, int) {
	return func(to ipam.NodeID, path string, took time.Duration, status int) {
		name := ""
		if to != "" && p.store != nil {
			name = p.nameOf(to)
		}
		n.meters.requested(name, path, took, status)
	}
}

// nodeCollector is what a node can say of itself in every state.
type nodeCollector struct{ n *Node }

var (
	logDesc      = desc("stellar_log_messages_total", "Lines of the agent's log.", "level")
	fencedDesc   = desc("stellar_node_fenced", "1 when this node was removed or left behind: it binds no new address.")
	silenceDesc  = desc("stellar_leader_silence_seconds", "Time since this node last knew that it was led; counted through restarts and reboots.")
	certDesc     = desc("stellar_certificate_expiry_timestamp_seconds", "When this node's certificate ends.")
	caDesc       = desc("stellar_ca_expiry_timestamp_seconds", "When the certificate of the cluster's CA ends.")
	checkDesc    = desc("stellar_check_state", "What `stellar status` says: 0 OK, 1 WARN, 2 ERR.", "check")
	checkNumbers = map[api.CheckState]float64{api.OK: 0, api.Warn: 1, api.Err: 2}
)

// Describe implements prometheus.Collector.
func (c nodeCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{logDesc, fencedDesc, silenceDesc, certDesc, caDesc, checkDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c nodeCollector) Collect(ch chan<- prometheus.Metric) {
	g := gauges(ch)
	for level, count := range c.n.opts.Logs.Counts() {
		g.count(logDesc, float64(count), level)
	}
	g.set(fencedDesc, truth(c.n.fence.get() != nil))
	if silence, known := c.n.contact.silence(); known {
		g.set(silenceDesc, silence.Seconds())
	}
	if tls := c.n.tls.Load(); tls != nil {
		if until, ok := tls.Expires(); ok {
			g.set(certDesc, float64(until.Unix()))
		}
		if roots := tls.Roots(); len(roots) > 0 {
			g.set(caDesc, float64(roots[0].NotAfter.Unix()))
		}
	}
	for _, check := range c.n.checks() {
		g.set(checkDesc, checkNumbers[check.State], check.Name)
	}
}
