package integration

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"stellar.io/stellar/internal/peer"
	"stellar.io/stellar/internal/pki"
	"stellar.io/stellar/ipam"
)

const (
	manyServers = 3
	// seenPatience is for how long a change may be missing somewhere before the test fails.
	seenPatience = 60 * time.Second
)

// many is a large cluster on one machine: three servers, a process each, with their
// files on the disk, and followers in a few processes. A follower's files are in memory
// where there is a file system for that: a thousand machines have a thousand disks.
type many struct {
	t         testing.TB
	size      int // servers and followers
	dir, fast string
	ca, caKey []byte
	servers   []*manyPeer
	crowds    []*crowd
	nth       int          // changes so far
	guest     netip.Prefix // the subnet of a node that has joined and is to be removed
}

// manyPeer is one server, whose process may be another one after a while.
type manyPeer struct {
	*process
	ServerArgs
}

// crowd is one process of followers.
type crowd struct {
	*process
	first, count int
}

var manyClusters atomic.Int32 // of this process so far

// newMany starts the servers, makes the followers, which do not run yet, and fills the
// state with a subnet for each of them.
func newMany(t testing.TB, size, processes int) *many {
	t.Helper()
	m := &many{t: t, size: size, dir: t.TempDir(), fast: fastDir(t)}
	ca, err := pki.NewCA(storeCluster, time.Now())
	m.check(err)
	m.ca = ca.CertPEM()
	m.caKey, err = ca.KeyPEM()
	m.check(err)

	nth := int(manyClusters.Add(1))
	for i := range manyServers {
		// An address of its own for each, so that it is free when the server comes back.
		at := netip.AddrFrom4([4]byte{127, byte(1 + os.Getpid()%250), byte(os.Getpid() / 250 % 250), byte(3*nth + i)})
		m.servers = append(m.servers, &manyPeer{ServerArgs: ServerArgs{
			Node: i, Dir: filepath.Join(m.dir, manyName(i)), Listen: netip.AddrPortFrom(at, 9640), CA: m.ca, CAKey: m.caKey,
		}})
		m.check(os.Mkdir(m.servers[i].Dir, 0o700))
		m.startServer(i)
		if i > 0 {
			m.servers[0].call("Server.Add", m.servers[i].ServerArgs, &None{}, quiet)
		}
	}
	m.eventually(quiet, "three servers vote", func() error {
		if st := m.servers[0].stats(); st.Voters != manyServers {
			return fmt.Errorf("%d", st.Voters)
		}
		return nil
	})

	var followers []int
	for i := manyServers; i < size; i++ {
		followers = append(followers, i)
	}
	m.servers[0].call("Server.Fill", followers, &None{}, 4*quiet)
	m.makeCrowds(processes)
	return m
}

// fastDir is a directory in memory, or else on the disk.
func fastDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "stellar-many-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func (m *many) check(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *many) eventually(limit time.Duration, what string, try func() error) {
	m.t.Helper()
	var err error
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = try(); err == nil {
			return
		}
	}
	m.t.Fatalf("%s: not within %s: %v", what, limit, err)
}

// startServer starts a server's process, for the first time or again.
func (m *many) startServer(i int) {
	m.t.Helper()
	s := m.servers[i]
	s.process = startProcess(m.t, fmt.Sprint("server ", i), filepath.Join(m.dir, fmt.Sprint("server-", i, ".log")))
	s.call("Server.Start", s.ServerArgs, &None{}, quiet)
	s.Made = true
}

func (m *many) makeCrowds(processes int) {
	m.t.Helper()
	told := map[ipam.NodeID]string{}
	for i, s := range m.servers {
		told[manyID(i)] = peer.RaftAddress(manyID(i), s.Listen.String())
	}
	followers := m.size - manyServers
	calls := make(chan error, processes)
	for k := range processes {
		first, next := manyServers+k*followers/processes, manyServers+(k+1)*followers/processes
		c := &crowd{
			process: startProcess(m.t, fmt.Sprint("followers ", k), filepath.Join(m.dir, fmt.Sprint("followers-", k, ".log"))),
			first:   first, count: next - first,
		}
		m.crowds = append(m.crowds, c)
		args := CrowdArgs{First: first, Count: c.count, Dir: m.fast, CA: m.ca, CAKey: m.caKey, Servers: told}
		go func() { calls <- c.try("Crowd.Make", args, &None{}, 10*quiet) }()
	}
	for range processes {
		m.check(<-calls)
	}
}

func (p *manyPeer) stats() (st ServerStats) {
	p.t.Helper()
	p.call("Server.Stats", None{}, &st, quiet)
	return st
}

// leader returns the server that leads, and the others.
func (m *many) leader() (leader *manyPeer, others []*manyPeer) {
	m.t.Helper()
	m.eventually(quiet, "there is a leader", func() error {
		leader, others = nil, nil
		for _, s := range m.servers {
			if st := s.stats(); st.State == "leader" {
				leader = s
			} else {
				others = append(others, s)
			}
		}
		if leader == nil {
			return fmt.Errorf("none")
		}
		return nil
	})
	return leader, others
}

// manyAtOnce followers start at the same time: more would only wait for this machine's
// processors, where each should have its own.
const manyAtOnce = 64

// follow starts all followers and returns how long each took to have the state.
func (m *many) follow() (took samples) {
	m.t.Helper()
	answers := make([][]float64, len(m.crowds))
	errs := make(chan error, len(m.crowds))
	for k, c := range m.crowds {
		go func() { errs <- c.try("Crowd.Run", manyAtOnce/len(m.crowds), &answers[k], 20*quiet) }()
	}
	for range m.crowds {
		m.check(<-errs)
	}
	for _, some := range answers {
		took = append(took, some...)
	}
	return took
}

func sinceMS(began, at int64) float64 { return ms(time.Duration(at - began)) }

// seen waits until all followers of some processes are at an index and returns when they
// were.
func (m *many) seen(crowds []*crowd, index uint64, patience time.Duration) (all []int64) {
	m.t.Helper()
	answers := make([][]int64, len(crowds))
	errs := make(chan error, len(crowds))
	for k, c := range crowds {
		go func() {
			errs <- c.try("Crowd.Seen", SeenArgs{index, patience}, &answers[k], patience+quiet)
		}()
	}
	for range crowds {
		m.check(<-errs)
	}
	missing := 0
	for _, list := range answers {
		for _, at := range list {
			if at == 0 {
				missing++
			}
		}
		all = append(all, list...)
	}
	if missing > 0 {
		m.t.Fatalf("%d of %d followers are not at index %d after %s\n%s", missing, len(all), index, patience, crowds[0].tail())
	}
	return all
}

// change lets a node join, which gets a subnet, or removes the one that has joined last.
// The servers that run propose it in turns.
func (m *many) change() (c Change) {
	m.t.Helper()
	var up []*manyPeer
	for _, s := range m.servers {
		if !s.ended {
			up = append(up, s)
		}
	}
	args := ChangeArgs{Node: m.size + m.nth/2, Subnet: m.guest}
	up[m.nth%len(up)].call("Server.Change", args, &c, seenPatience)
	if m.nth++; m.guest.IsValid() {
		m.guest = netip.Prefix{}
	} else {
		m.guest = c.Subnet
	}
	return c
}

// spread says how a change spread.
type spread struct {
	proposed  samples // from its proposal to each follower's state
	committed samples // from the leader's state to each follower's
	last      samples // from its proposal to the last follower's state
}

// changes has subnets come and go and returns how that spread among the followers of
// some processes.
func (m *many) changes(count int, crowds []*crowd) (s spread) {
	m.t.Helper()
	leader, _ := m.leader()
	for range count {
		c := m.change()
		var applied int64
		leader.call("Server.Seen", c.Index, &applied, quiet)
		all := m.seen(crowds, c.Index, seenPatience)
		for _, at := range all {
			s.proposed = append(s.proposed, sinceMS(c.Began, at))
			s.committed = append(s.committed, sinceMS(applied, at))
		}
		s.last = append(s.last, sinceMS(c.Began, slices.Max(all)))
	}
	return s
}

// equal waits until all servers and followers have the same state.
func (m *many) equal(crowds []*crowd) {
	m.t.Helper()
	m.eventually(2*quiet, "all have the same state", func() error {
		all := map[string]int{}
		for _, s := range m.servers {
			all[s.stats().Hash]++
		}
		for _, c := range crowds {
			var some map[string]int
			c.call("Crowd.Hashes", None{}, &some, 4*quiet)
			for hash, n := range some {
				all[hash] += n
			}
		}
		if len(all) != 1 {
			return fmt.Errorf("%v", slices.Sorted(maps.Values(all)))
		}
		return nil
	})
}

// following returns how many follow each server.
func (m *many) following() map[ipam.NodeID]int {
	m.t.Helper()
	all := map[ipam.NodeID]int{}
	for _, c := range m.crowds {
		var st CrowdStats
		c.call("Crowd.Stats", None{}, &st, quiet)
		for id, n := range st.Following {
			all[id] += n
		}
	}
	return all
}

// burst has the first nodes of a process bind leases in the background.
func (m *many) burst(c *crowd, perSecond int, d time.Duration) (wait func() Burst) {
	m.t.Helper()
	var nodes []int
	for i := range 10 {
		nodes = append(nodes, c.first+i)
	}
	var b Burst
	done := make(chan error, 1)
	go func() { done <- c.try("Crowd.Burst", BurstArgs{nodes, perSecond, d}, &b, d+2*quiet) }()
	return func() Burst {
		m.t.Helper()
		m.check(<-done)
		return b
	}
}

// killLeader kills the process of the leader and changes a subnet. It returns how long
// after the kill each follower had seen that.
func (m *many) killLeader() (killed *manyPeer, took samples) {
	m.t.Helper()
	killed, _ = m.leader()
	began := monotonic()
	killed.kill()
	c := m.change()
	for _, at := range m.seen(m.crowds, c.Index, seenPatience) {
		took = append(took, sinceMS(began, at))
	}
	return killed, took
}

// stopped stops a process of followers for a while, which then says nothing and reads
// nothing, and calls meanwhile. It returns how long after its end each of the followers
// had the state of that moment.
func (m *many) stopped(c *crowd, d time.Duration, meanwhile func()) (took samples) {
	m.t.Helper()
	began := time.Now()
	c.signal(syscall.SIGSTOP)
	meanwhile()
	time.Sleep(time.Until(began.Add(d)))
	c.signal(syscall.SIGCONT)
	cont := monotonic()
	last := m.change()
	for _, at := range m.seen([]*crowd{c}, last.Index, seenPatience) {
		took = append(took, sinceMS(cont, at))
	}
	return took
}
