package raftstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"stellar.io/stellar/ipam"
)

const (
	// leaderless is for how long a follower stays with a server that hears of no leader,
	// at first; twice as long each time that the next one does not either.
	leaderless    = 2 * time.Second
	maxLeaderless = 32 * time.Second
	// followPause is the pause after all servers have failed, at first and at most.
	followPause    = 200 * time.Millisecond
	maxFollowPause = 5 * time.Second
	// followDial bounds the making of a connection. A process that has ended refuses at
	// once; a server that many call at the same time needs a while, and who gave up too
	// early would call it again.
	followDial = 4 * time.Second
	// followJitter, and followShare for each node of the cluster, at most maxFollowJitter,
	// spread the followers of a server that has gone over time: it takes the next one
	// about a millisecond of a processor to let one in.
	followJitter    = 200 * time.Millisecond
	followShare     = 300 * time.Microsecond
	maxFollowJitter = 1500 * time.Millisecond
	// settleEvery is how often a follower goes back to the server that is its first
	// choice, so that a server that was away gets its share again. Up to a fifth more.
	settleEvery = 5 * time.Minute
)

// follower is this node's part in a cluster that it does not share Raft with: it
// follows a server. The problems that it answers:
//
//   - A server dies and says nothing: signs of life every second, another server after
//     three without, by the index that the follower has; a snapshot only when the other
//     one does not hold what came since.
//   - A server is alive and cut off from the leader: it says so, and the follower goes.
//   - A thousand followers choose the same server: each has an order of its own.
//   - The cluster was restored, or what the follower had is not in this log: each entry
//     says which one it comes after, and each snapshot its life of the cluster.
type follower struct {
	s       *Store
	unlock  func() error
	told    map[ipam.NodeID]string // servers, as of the join
	running atomic.Bool
	wide    atomic.Bool // something that all nodes should know came since the last save

	mu         sync.Mutex // guards what follows
	server     ipam.NodeID
	serverAddr string
	heard      time.Time     // the last frame of that server
	ago        time.Duration // since it had a word of the leader, then
	serverAt   uint64        // its last index, then
	standing   *standing     // the last one that any server sent; nil: none
	strayed    bool          // the state is not of the server's log: a snapshot is needed
	snapshots  uint64        // received
	savedAt    uint64
}

// errNoLeaderThere ends a stream of a server that hears of no leader.
var errNoLeaderThere = errors.New("the server hears of no leader")

// errSettle ends a stream because there is a better server.
var errSettle = errors.New("going back to the server of choice")

func (s *Store) isFollowing() bool { return s.following != nil && s.following.running.Load() }

// leader returns who leads by the word of a server that was heard a moment ago, also
// while this node goes from one to the next: the leader is asked directly.
func (f *follower) leader() (raft.ServerAddress, raft.ServerID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.standing == nil || time.Since(f.heard) > followSilence {
		return "", ""
	}
	id := f.standing.leader
	if a := f.s.addressOf(nodeID(id)); a != "" {
		return raft.ServerAddress(a), id
	}
	return raft.ServerAddress(f.standing.address()), id
}

// via returns whom a request to the leader is sent to: the server that is followed, or
// the leader itself while this node goes from one to the next.
func (f *follower) via(leader ipam.NodeID, addr string) (ipam.NodeID, string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.server == "" {
		return leader, addr
	}
	return f.server, f.serverAddr
}

// contact returns since when no leader was heard of, negative if never.
func (f *follower) contact() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.heard.IsZero() {
		return -1
	}
	return f.ago + time.Since(f.heard)
}

// removed reports whether this node's own record is a tombstone.
func (f *follower) removed() (yes bool) {
	f.s.View(func(st *ipam.State) {
		n, _ := st.Node(f.s.cfg.NodeID)
		yes = n.Removed
	})
	return yes
}

// runFollower is Run on a follower.
func (s *Store) runFollower(ctx context.Context) error {
	f := s.following
	s.fsm.hint = func(uint64, uint64) { f.wide.Store(true) }
	f.running.Store(true)
	close(s.started)
	// It has no part in Raft, and serves nobody: a chain of followers would be late.
	for _, l := range []StreamLayer{s.cfg.Streams, s.cfg.Followers} {
		if l != nil {
			l.Close()
		}
	}
	var tasks sync.WaitGroup
	tctx, cancel := context.WithCancel(ctx)
	defer cancel()
	tasks.Go(func() { f.keepSaved(tctx) })
	if s.cfg.Followers != nil {
		tasks.Go(func() { f.run(tctx) })
	}
	select {
	case <-ctx.Done():
	case <-s.fsm.stopped:
		s.cfg.Logger.Error("a committed entry cannot be applied, this node follows no more", "error", s.fsm.err())
		s.stop()
		<-ctx.Done()
	}
	s.stop()
	cancel()
	s.endOnce.Do(func() { close(s.ended) })
	s.drain()
	tasks.Wait()
	var err error
	if s.fsm.err() == nil {
		err = errors.Join(err, f.save())
	}
	if err := errors.Join(err, f.unlock()); err != nil {
		return fmt.Errorf("close store: %w", err)
	}
	return nil
}

// run follows one server after the other until ctx ends or the state has stopped.
func (f *follower) run(ctx context.Context) {
	log := f.s.cfg.Logger
	pause, patience := followPause, leaderless
	var left ipam.NodeID // the server that was left last
	for ctx.Err() == nil && f.s.fsm.err() == nil {
		served := false
		for _, c := range f.candidates(left) {
			led, err := f.follow(ctx, c, patience)
			f.leave()
			if ctx.Err() != nil || f.s.fsm.err() != nil {
				return
			}
			left = c.id
			if led {
				patience = leaderless
			} else if errors.Is(err, errNoLeaderThere) {
				patience = min(2*patience, maxLeaderless)
			}
			if errors.Is(err, errSettle) {
				left, served = "", true
				break
			}
			if led { // it was a stream, not an attempt
				served = true
				log.Warn("the server that this node follows has gone, looking for another", "server", c.id.Short(), "error", err)
				break
			}
			log.Debug("cannot follow a server", "server", c.id.Short(), "error", err)
		}
		if served {
			pause = followPause
			sleep(ctx, rand.N(f.jitter()))
			continue
		}
		left = ""
		sleep(ctx, pause/2+rand.N(pause))
		pause = min(2*pause, maxFollowPause)
	}
}

// jitter returns for how long a follower waits at most before it calls another server.
func (f *follower) jitter() time.Duration {
	nodes := 0
	f.s.View(func(st *ipam.State) {
		for range st.Nodes() {
			nodes++
		}
	})
	return min(followJitter+followShare*time.Duration(nodes), maxFollowJitter)
}

// leave notes that no server is followed.
func (f *follower) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.server = ""
}

// candidate is a server that may be followed.
type candidate struct {
	id      ipam.NodeID
	address string
	member  bool // of Raft, by the last word of a server
	score   uint64
}

// candidates returns the servers in this follower's own order: members of Raft, of
// which left, which was just left, comes last; then others that may have become members
// meanwhile.
func (f *follower) candidates(left ipam.NodeID) []candidate {
	addresses := map[ipam.NodeID]string{}
	for id, a := range f.told {
		addresses[id] = a
	}
	members := map[ipam.NodeID]bool{}
	f.mu.Lock()
	if f.standing != nil {
		for _, m := range f.standing.members {
			addresses[nodeID(m.ID)] = string(m.Address)
			members[nodeID(m.ID)] = true
		}
	}
	f.mu.Unlock()
	f.s.View(func(st *ipam.State) {
		for n := range st.Nodes() {
			if n.Removed || n.Role != ipam.RoleServer {
				delete(addresses, n.ID)
			} else if _, known := addresses[n.ID]; !known {
				addresses[n.ID] = n.Address
			}
		}
	})
	delete(addresses, f.s.cfg.NodeID)
	var list []candidate
	for id, a := range addresses {
		if now := f.s.addressOf(id); now != "" {
			a = now
		}
		h := fnv.New64a()
		io.WriteString(h, string(f.s.cfg.NodeID)+string(id))
		c := candidate{id, a, members[id], mix(h.Sum64())}
		if id == left {
			c.score = 0
		}
		if a != "" {
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(a, b candidate) int {
		if a.member != b.member {
			return map[bool]int{true: -1, false: 1}[a.member]
		}
		return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.id, b.id))
	})
	return list
}

// mix spreads what FNV leaves alike in the high bits of similar texts (MurmurHash3's
// finalizer).
func mix(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// follow follows one server until the stream ends. led: it knew a leader.
func (f *follower) follow(ctx context.Context, c candidate, patience time.Duration) (led bool, err error) {
	conn, err := f.s.cfg.Followers.Dial(c.address, followDial)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	h, err := f.hello().encode()
	if err != nil {
		return false, err
	}
	if err := conn.SetDeadline(time.Now().Add(followSilence)); err != nil {
		return false, err
	}
	if _, err := conn.Write(h); err != nil {
		return false, err
	}
	in := &inbound{f: f, conn: conn, from: c, since: time.Now(), settle: time.Now().Add(settleEvery + rand.N(settleEvery/5))}
	for {
		if err := in.frame(); err != nil {
			return in.led, err
		}
		switch now := time.Now(); {
		case in.lacksLeader(now) > patience:
			return in.led, errNoLeaderThere
		case now.After(in.settle):
			if best := f.candidates(""); len(best) > 0 && best[0].id != c.id && f.reachable(best[0]) {
				return in.led, errSettle
			}
			in.settle = now.Add(settleEvery)
		}
	}
}

// reachable reports whether a server lets this node in.
func (f *follower) reachable(c candidate) bool {
	conn, err := f.s.cfg.Followers.Dial(c.address, followDial)
	if err != nil {
		return false
	}
	return conn.Close() == nil
}

// hello is where this node is.
func (f *follower) hello() hello {
	f.mu.Lock()
	strayed := f.strayed
	f.mu.Unlock()
	h := hello{node: f.s.cfg.NodeID, tags: f.s.tagBase}
	f.s.View(func(st *ipam.State) {
		if c, ok := st.Cluster(); ok && !strayed {
			h.cluster, h.generation, h.life, h.index = c.ID, c.Generation, c.Life, st.Index()
		}
	})
	return h
}
