package integration

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// envNodes says how many nodes the large clusters have that are measured, such as
// 64,1024,4096. All but 4,096 by default: those take some GB and minutes.
const envNodes = "STELLAR_BENCH_NODES"

const (
	manyNodes    = 1024 // where the bars are
	manyChanges  = 20
	manyIdle     = 20 * time.Second
	manyLeases   = 100 // a second, while leases are made
	manyBurst    = 5 * time.Second
	manyStopped  = 15 * time.Second
	seenLimit    = 300 // ms
	leaderLimit  = 20  // % of a core
	followsLimit = 5   // s from a server's death to a change that its followers see
)

// benchFollowers measures clusters of three servers and many followers, all on this
// machine: what one change of a subnet takes to be seen by all, and what it costs.
func benchFollowers(b *testing.B, t *table) {
	sizes := []int{64, 256, manyNodes}
	if list := os.Getenv(envNodes); list != "" {
		sizes = nil
		for _, text := range strings.Split(list, ",") {
			n, err := strconv.Atoi(text)
			if err != nil || n < 16 {
				b.Fatalf("%s: %q is no number of nodes, such as 1024", envNodes, text)
			}
			sizes = append(sizes, n)
		}
	}
	for _, size := range sizes {
		b.Run(strconv.Itoa(size), func(b *testing.B) {
			b.ReportMetric(0, "ns/op") // the table says it all
			benchMany(b, t, size)
		})
	}
}

// benchMany measures one size. The bars count up to manyNodes.
func benchMany(b *testing.B, t *table, size int) {
	processes := min(4, max(2, size/64))
	m := newMany(b, size, processes)
	limit := func(l bar) bar {
		if size > manyNodes {
			return bar{}
		}
		return l
	}
	tell("%d nodes …", size)
	joined := m.profile("join", 2*time.Second)
	used, began := m.usage(), time.Now()
	up := m.follow()
	took, cost := time.Since(began), used()
	joined()
	t.spread(fmt.Sprintf("%d nodes: a follower started, %d at a time → it has the state", size, manyAtOnce), "ms", up, bar{})
	t.value("  all of them", "s", len(up), took.Seconds(), bar{})
	t.value("  processor time of all servers for each of them", "ms", len(up), cost.servers/100*ms(took)/float64(len(up)), bar{})

	m.changes(scaled(manyChanges)/4+1, m.crowds) // warm
	s := m.changes(scaled(manyChanges), m.crowds)
	t.spread("  a subnet's change proposed by a server → seen by each follower", "ms", s.proposed, limit(bar{p99: seenLimit}))
	t.spread("    from the leader's own state on", "ms", s.committed, bar{})
	t.spread("    until the last one has seen it", "ms", s.last, bar{})

	wait := m.burst(m.crowds[0], manyLeases, manyBurst)
	profiled := m.profile("burst", manyBurst)
	used = m.usage()
	s = m.changes(scaled(manyChanges)/2, m.crowds)
	burst := wait()
	figures := used()
	profiled()
	// No bar: each lease is applied by all followers, so it is the machine's processors
	// that they share which is measured.
	t.spread(fmt.Sprintf("    while %d leases a second are made", manyLeases), "ms", s.proposed, bar{})
	t.spread("    such a lease, proposed by a follower", "ms", samples(burst.Took), bar{})
	t.value("    processor time of the leader meanwhile, of one core", "%", 1, figures.leader, bar{})
	t.value("    processor time of all followers together", "%", len(up), figures.followers, bar{})

	m.rest(b, t, len(up), limit)
	if size == manyNodes {
		m.trouble(b, t)
	}
	m.equal(m.crowds)
	for _, p := range m.processes() {
		p.kill() // memory and processors for the next size
	}
}

// rest measures the cluster with nothing to do.
func (m *many) rest(b *testing.B, t *table, followers int, limit func(bar) bar) {
	b.Helper()
	profiled := m.profile("idle", manyIdle)
	used := m.usage()
	pause("idle", time.Duration(scaled(int(manyIdle))))
	f := used()
	profiled()
	t.value("  at rest: processor time of the leader, of one core", "%", 1, f.leader, limit(bar{p50: leaderLimit}))
	t.value("    of another server, the busiest", "%", 1, f.server, bar{})
	t.value("    of all followers together", "%", followers, f.followers, bar{})
	t.value("    written by the leader", "kB/s", 1, f.written/1000, bar{})
	leader, _ := m.leader()
	t.value("    memory of the leader", "MB", 1, residentMB(b, leader.pid()), bar{})
	rss := 0.0
	for _, c := range m.crowds {
		rss += residentMB(b, c.pid())
	}
	t.value("    memory of a follower, its share of its process", "MB", followers, rss/float64(followers), bar{})
}

// trouble measures what happens when some do not read, and when the leader dies.
func (m *many) trouble(b *testing.B, t *table) {
	b.Helper()
	crowd, others := m.crowds[len(m.crowds)-1], m.crowds[:len(m.crowds)-1]
	var during spread
	caught := m.stopped(crowd, manyStopped, func() { during = m.changes(scaled(manyChanges), others) })
	t.spread(fmt.Sprintf("  %d followers do not read for %.0f s: a change seen by the others", crowd.count, manyStopped.Seconds()), "ms", during.proposed, bar{p99: seenLimit})
	t.value("    they read again → the last one has caught up", "ms", len(caught), caught.quantile(1), bar{})
	m.equal(m.crowds)

	before := m.following()
	killed, seen := m.killLeader()
	i := slices.Index(m.servers, killed)
	t.value("  the leader is killed → the last follower has seen the next change", "s", len(seen), seen.quantile(1)/1000, bar{p50: followsLimit})
	t.value("    how many have followed it, and follow another", "", len(seen), float64(before[manyID(i)]), bar{})
	if left := m.following()[manyID(i)]; left != 0 {
		b.Errorf("%d follow a dead server", left)
	}
	began := time.Now()
	m.startServer(i)
	m.caughtUp(i)
	t.value("    it is started again → it has the others' state", "s", 1, time.Since(began).Seconds(), bar{})
}

// caughtUp waits until a server has what the leader had a moment ago.
func (m *many) caughtUp(i int) {
	m.t.Helper()
	leader, _ := m.leader()
	index := leader.stats().Index
	m.eventually(quiet, "the server that was away has caught up", func() error {
		if st := m.servers[i].stats(); st.Index < index {
			return fmt.Errorf("at %d of %d", st.Index, index)
		}
		return nil
	})
}

// usage is what a cluster costs for a while.
type usage struct {
	leader, server, followers float64 // processor time, % of one core; server: the busiest of the others
	servers                   float64 // of all three
	written                   float64 // bytes a second, by the leader
}

// usage measures from now on until the function is called that it returns.
func (m *many) usage() func() usage {
	m.t.Helper()
	leader, others := m.leader()
	cpu := map[*process]time.Duration{}
	for _, p := range m.processes() {
		cpu[p] = cpuTime(m.t, p.pid())
	}
	written, began := leader.written(), time.Now()
	return func() (u usage) {
		m.t.Helper()
		took := time.Since(began)
		of := func(p *process) float64 { return 100 * (cpuTime(m.t, p.pid()) - cpu[p]).Seconds() / took.Seconds() }
		u.leader, u.written = of(leader.process), float64(leader.written()-written)/took.Seconds()
		u.servers = u.leader
		for _, s := range others {
			u.server = max(u.server, of(s.process))
			u.servers += of(s.process)
		}
		for _, c := range m.crowds {
			u.followers += of(c.process)
		}
		return u
	}
}

// processes are those of all servers and followers.
func (m *many) processes() (all []*process) {
	for _, s := range m.servers {
		all = append(all, s.process)
	}
	for _, c := range m.crowds {
		all = append(all, c.process)
	}
	return all
}

// profile looks at all processes, if somebody asked for it.
func (m *many) profile(when string, d time.Duration) (wait func()) {
	var all []func()
	for _, p := range m.processes() {
		all = append(all, p.profile(fmt.Sprint(m.size, " ", when), d))
	}
	return func() {
		for _, wait := range all {
			wait()
		}
	}
}
