package node

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"stellar.io/stellar/api"
	"stellar.io/stellar/raftstore"
)

// Collectors read what the parts know when they are asked: nothing is counted twice.

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// registerProcess adds what every process has, and what this one was built from.
func registerProcess(reg prometheus.Registerer, v api.VersionInfo) {
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "stellar_build_info", Help: "1, with what the agent was built from.",
		ConstLabels: prometheus.Labels{"version": v.Version, "commit": v.Commit, "go_version": v.GoVersion},
	})
	build.Set(1)
	reg.MustRegister(build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
}

var (
	raftStateDesc    = desc("stellar_raft_state", "1 for the present Raft state of this node.", "state")
	raftLeaderDesc   = desc("stellar_raft_has_leader", "1 while a leader is known.")
	raftTermDesc     = desc("stellar_raft_term", "Present Raft term.")
	raftLastDesc     = desc("stellar_raft_last_index", "Index of the last entry in the log.")
	raftCommitDesc   = desc("stellar_raft_commit_index", "Index of the last committed entry.")
	raftAppliedDesc  = desc("stellar_raft_applied_index", "Index of the last applied entry.")
	raftSnapshotDesc = desc("stellar_raft_snapshot_index", "Index of the last snapshot.")
	raftFailedDesc   = desc("stellar_raft_fsm_failed", "1 when a committed entry could not be applied.")
)

type raftCollector struct{ store *raftstore.Store }

// Describe implements prometheus.Collector.
func (c raftCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{raftStateDesc, raftLeaderDesc, raftTermDesc, raftLastDesc, raftCommitDesc, raftAppliedDesc, raftSnapshotDesc, raftFailedDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c raftCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.store.Stats()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(raftStateDesc, 1, s.State)
	gauge(raftLeaderDesc, truth(s.Leader != ""))
	gauge(raftTermDesc, float64(s.Term))
	gauge(raftLastDesc, float64(s.LastIndex))
	gauge(raftCommitDesc, float64(s.CommitIndex))
	gauge(raftAppliedDesc, float64(s.AppliedIndex))
	gauge(raftSnapshotDesc, float64(s.SnapshotIndex))
	gauge(raftFailedDesc, truth(s.FSMError != nil))
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

var addressesDesc = desc("stellar_ipam_addresses", "Addresses of this node's subnet by state.", "state")

type leaseCollector struct{ p *parts }

// Describe implements prometheus.Collector.
func (c leaseCollector) Describe(ch chan<- *prometheus.Desc) { ch <- addressesDesc }

// Collect implements prometheus.Collector.
func (c leaseCollector) Collect(ch chan<- prometheus.Metric) {
	n := c.p.holder.Counts()
	for state, count := range map[string]int{
		"bound": n.Bound, "attached": n.Attached, "cooling": n.Cooling,
		"free": n.Free, "reserved": n.Reserved, "provisional": n.Provisional,
	} {
		ch <- prometheus.MustNewConstMetric(addressesDesc, prometheus.GaugeValue, float64(count), state)
	}
}
