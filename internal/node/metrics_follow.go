package node

import (
	"github.com/prometheus/client_golang/prometheus"

	"stellar.io/stellar/raftstore"
)

var (
	followersDesc      = desc("stellar_followers", "Nodes that follow this server at present.")
	followersMaxDesc   = desc("stellar_followers_behind_max", "Entries that the slowest follower of this server was not sent yet.")
	followersCutDesc   = desc("stellar_followers_cut_total", "Followers that read too slowly and were cut off; they come back.")
	followLogDesc      = desc("stellar_follow_log_entries", "Entries that this server keeps for followers.")
	followBytesDesc    = desc("stellar_follow_log_bytes", "Size of the entries that this server keeps for followers.")
	followSentDesc     = desc("stellar_follow_snapshots_sent_total", "Snapshots that this server has sent to followers.")
	followedDesc       = desc("stellar_follow_connected", "1 while this node follows a server; absent on a member of Raft.")
	followBehindDesc   = desc("stellar_follow_behind", "Entries that this node is behind the server that it follows; absent on a member of Raft.")
	followReceivedDesc = desc("stellar_follow_snapshots_received_total", "Snapshots that this follower was sent; absent on a member of Raft.")
)

// followCollector is about followers, on both sides.
type followCollector struct{ store *raftstore.Store }

// Describe implements prometheus.Collector.
func (c followCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		followersDesc, followersMaxDesc, followersCutDesc, followLogDesc, followBytesDesc, followSentDesc, followedDesc, followBehindDesc, followReceivedDesc,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c followCollector) Collect(ch chan<- prometheus.Metric) {
	g, s := gauges(ch), c.store.Stats()
	if c.store.Follows() {
		g.set(followedDesc, truth(s.Following != ""))
		g.set(followBehindDesc, float64(s.Behind))
		g.count(followReceivedDesc, float64(s.Received))
		return
	}
	g.set(followersDesc, float64(s.Followers))
	g.set(followersMaxDesc, float64(c.store.SlowestBehind()))
	g.count(followersCutDesc, float64(s.FollowersCut))
	g.set(followLogDesc, float64(s.FollowLog))
	g.set(followBytesDesc, float64(s.FollowBytes))
	g.count(followSentDesc, float64(s.SnapshotsSent))
}
