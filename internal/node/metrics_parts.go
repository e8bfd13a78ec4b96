package node

import (
	"github.com/prometheus/client_golang/prometheus"

	"stellar.io/stellar/api"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore"
	"stellar.io/stellar/routes"
)

var (
	raftStateDesc    = desc("stellar_raft_state", "1 for the present Raft state of this node, 0 for the others.", "state")
	raftLeaderDesc   = desc("stellar_raft_has_leader", "1 while a leader is known.")
	raftContactDesc  = desc("stellar_raft_leader_last_contact_seconds", "Time since the leader was heard; 0 on the leader; absent if it never was.")
	raftTermDesc     = desc("stellar_raft_term", "Present Raft term.")
	raftLastDesc     = desc("stellar_raft_last_index", "Index of the last entry in the log.")
	raftCommitDesc   = desc("stellar_raft_commit_index", "Index of the last committed entry.")
	raftAppliedDesc  = desc("stellar_raft_applied_index", "Index of the last applied entry.")
	raftSnapshotDesc = desc("stellar_raft_snapshot_index", "Index of the last snapshot.")
	raftSizeDesc     = desc("stellar_raft_snapshot_bytes", "Size of the last snapshot.")
	raftLogDesc      = desc("stellar_raft_log_bytes", "Size of the log's file.")
	raftPeersDesc    = desc("stellar_raft_peers", "Servers in Raft's configuration.", "voter")
	raftSilentDesc   = desc("stellar_raft_peers_silent", "Servers that do not answer this node while it leads; 0 elsewhere.")
	raftFailedDesc   = desc("stellar_raft_fsm_failed", "1 when a committed entry could not be applied.")
	raftBusyDesc     = desc("stellar_raft_disk_busy_seconds", "For how long the present write to the log has taken; 0: none is under way.")
	raftDiskDesc     = desc("stellar_raft_disk_failed", "1 when the last write to the log failed, or hangs.")
)

// raftStates are those of raftstore.Stats.State.
var raftStates = []string{"leader", "follower", "candidate", "shutdown", "stopped", "starting", "joining", "removed", "following"}

// raftCollector is about the replicated log.
type raftCollector struct{ store *raftstore.Store }

// Describe implements prometheus.Collector.
func (c raftCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		raftStateDesc, raftLeaderDesc, raftContactDesc, raftTermDesc, raftLastDesc, raftCommitDesc, raftAppliedDesc, raftSnapshotDesc,
		raftSizeDesc, raftLogDesc, raftPeersDesc, raftSilentDesc, raftFailedDesc, raftBusyDesc, raftDiskDesc,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c raftCollector) Collect(ch chan<- prometheus.Metric) {
	g, s := gauges(ch), c.store.Stats()
	for _, state := range raftStates {
		g.set(raftStateDesc, truth(s.State == state), state)
	}
	g.set(raftLeaderDesc, truth(s.Leader != ""))
	if s.LastContact >= 0 {
		g.set(raftContactDesc, s.LastContact.Seconds())
	}
	g.set(raftTermDesc, float64(s.Term))
	g.set(raftLastDesc, float64(s.LastIndex))
	g.set(raftCommitDesc, float64(s.CommitIndex))
	g.set(raftAppliedDesc, float64(s.AppliedIndex))
	g.set(raftSnapshotDesc, float64(s.SnapshotIndex))
	if size, err := c.store.SnapshotSize(); err == nil {
		g.set(raftSizeDesc, float64(size))
	}
	g.set(raftLogDesc, float64(s.LogBytes))
	g.set(raftPeersDesc, float64(s.Voters), "true")
	g.set(raftPeersDesc, float64(s.Servers-s.Voters), "false")
	silent := 0
	for _, p := range c.store.Peers() {
		if p.State == api.RaftSilent {
			silent++
		}
	}
	g.set(raftSilentDesc, float64(silent))
	g.set(raftFailedDesc, truth(s.FSMError != nil))
	g.set(raftBusyDesc, s.DiskBusy.Seconds())
	g.set(raftDiskDesc, truth(s.DiskHung || s.DiskError != nil))
}

var (
	addressesDesc   = desc("stellar_ipam_addresses", "Addresses of this node's subnet by state; they add up to the subnet.", "state")
	provisionalDesc = desc("stellar_ipam_provisional_leases", "Bound and attached addresses that no leader has confirmed.")
	leaksDesc       = desc("stellar_ipam_leaks", "Addresses held by containers that this node does not know; `stellar ipam check` looks closer.")
	subnetsDesc     = desc("stellar_ipam_subnets", "Subnets of the network by state, as this node's replica has them.", "state")
	capacityDesc    = desc("stellar_ipam_subnets_capacity", "Subnets that the network is divided into.")
	aloneDesc       = desc("stellar_ipam_alone", "1 while leases are provisional for want of a leader.")
	haltedDesc      = desc("stellar_ipam_halted", "1 when this node binds no new address: it is fenced, its state has stopped, or its journal cannot be written.")
	journalDesc     = desc("stellar_journal_bytes", "Size of the journal of leases.")
	recordsDesc     = desc("stellar_journal_records", "Records that the journal amounts to, about.")
	nodesDesc       = desc("stellar_nodes", "Members of the cluster by status, as this node's replica has them.", "status")
	reclaimDesc     = desc("stellar_reclaiming", "1 while no subnet is handed out after a restore or a recovery.")
)

// leaseCollector is about addresses, subnets and members.
type leaseCollector struct{ p *parts }

// Describe implements prometheus.Collector.
func (c leaseCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		addressesDesc, provisionalDesc, leaksDesc, subnetsDesc, capacityDesc, aloneDesc, haltedDesc, journalDesc, recordsDesc, nodesDesc, reclaimDesc,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c leaseCollector) Collect(ch chan<- prometheus.Metric) {
	g, n := gauges(ch), c.p.holder.Counts()
	for state, count := range map[string]int{
		"bound": n.Bound, "attached": n.Attached, "cooling": n.Cooling, "free": n.Free, "reserved": n.Reserved,
	} {
		g.set(addressesDesc, float64(count), state)
	}
	g.set(provisionalDesc, float64(n.Provisional))
	g.set(leaksDesc, float64(c.p.leaks()))
	alone, halted := c.p.holder.Status()
	g.set(aloneDesc, truth(alone))
	g.set(haltedDesc, truth(halted != nil))
	bytes, records := c.p.holder.JournalSize()
	g.set(journalDesc, float64(bytes))
	g.set(recordsDesc, float64(records))
	c.cluster(g)
	g.set(reclaimDesc, truth(c.p.reclaiming()))
}

// cluster counts subnets and members.
func (c leaseCollector) cluster(g gauges) {
	subnets := map[ipam.SubnetState]int{}
	nodes := map[string]int{api.NodeReady: 0, api.NodeDraining: 0}
	capacity := 0
	c.p.store.View(func(s *ipam.State) {
		if network, ok := s.Network(ipam.DefaultNetwork); ok {
			capacity = int(network.SubnetCount())
		}
		for sub := range s.Subnets() {
			subnets[sub.State]++
		}
		for m := range s.Nodes() {
			switch {
			case m.Removed: // its tombstone stays for ever
			case m.Draining:
				nodes[api.NodeDraining]++
			default:
				nodes[api.NodeReady]++
			}
		}
	})
	g.set(capacityDesc, float64(capacity))
	g.set(subnetsDesc, float64(subnets[ipam.Held]), "held")
	g.set(subnetsDesc, float64(subnets[ipam.Quarantined]), "quarantined")
	g.set(subnetsDesc, float64(capacity-subnets[ipam.Held]-subnets[ipam.Quarantined]), "free")
	for status, count := range nodes {
		g.set(nodesDesc, float64(count), status)
	}
}

// leaks counts the leases whose owners the agent does not know, after it has looked
// at all containers once.
func (p *parts) leaks() (n int) {
	if !p.settled() {
		return 0
	}
	for _, h := range p.holder.All() {
		if !p.agent.Knows(h.Owner) {
			n++
		}
	}
	return n
}

var (
	routesDesc     = desc("stellar_routes", "Routes to other nodes by state, at the last look.", "state")
	conditionsDesc = desc("stellar_route_conditions", "What was found about the host that may lose packets, at the last look.", "condition")
	reconnectDesc  = desc("stellar_containerd_reconnects_total", "Connections to containerd that were lost.")
	listingsDesc   = desc("stellar_containerd_listings_total", "Listings of all containers.", "result")
	listedDesc     = desc("stellar_containerd_last_listing_timestamp_seconds", "When containerd was last listed whole.")
	undecodedDesc  = desc("stellar_events_undecoded_total", "Events of containerd that could not be read.")
	holdingDesc    = desc("stellar_holds_active", "Programs that are being kept from their start.")
	armedDesc      = desc("stellar_holds_armed", "Containers whose next program will be kept.")
	workingDesc    = desc("stellar_hold_working", "1 while programs can be kept until their network is up.")
)

// hostCollector is about this machine: routes, containerd, held programs.
type hostCollector struct{ p *parts }

// Describe implements prometheus.Collector.
func (c hostCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		routesDesc, conditionsDesc, reconnectDesc, listingsDesc, listedDesc, undecodedDesc, holdingDesc, armedDesc, workingDesc,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c hostCollector) Collect(ch chan<- prometheus.Metric) {
	g := gauges(ch)
	states := map[routes.State]int{routes.OK: 0, routes.Missing: 0, routes.Conflict: 0, routes.NotAdjacent: 0, routes.Stray: 0}
	for _, s := range c.p.routes.Status() {
		if s.Kind != routes.Local {
			states[s.State]++
		}
	}
	for state, count := range states {
		g.set(routesDesc, float64(count), string(state))
	}
	conditions := map[string]int{"rp_filter": 0, "carrier": 0, "overlap": 0}
	for _, found := range c.p.routes.Conditions() {
		conditions[found.Name]++
	}
	for name, count := range conditions {
		g.set(conditionsDesc, float64(count), name)
	}
	s := c.p.containerd.Stats()
	g.count(reconnectDesc, float64(s.Reconnects))
	g.count(listingsDesc, float64(s.Relists), "ok")
	g.count(listingsDesc, float64(s.RelistErrors), "error")
	if !s.LastListing.IsZero() {
		g.set(listedDesc, float64(s.LastListing.UnixNano())/1e9)
	}
	g.count(undecodedDesc, float64(s.DecodeErrors))
	if c.p.hold != nil {
		h := c.p.hold.Status()
		g.set(holdingDesc, float64(h.Holding))
		g.set(armedDesc, float64(h.Armed))
		g.set(workingDesc, truth(h.Working))
	}
}
