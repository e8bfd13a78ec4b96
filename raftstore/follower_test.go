package raftstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"stellar.io/stellar/ipam"
)

// followsOf is a host's StreamLayer of followers, beside Raft's.
type followsOf struct{ streamsOf }

func (s followsOf) Dial(address string, timeout time.Duration) (net.Conn, error) {
	return s.f.dial(s.host, "fl:"+address, timeout)
}

// followOf makes a node that follows the bed's members, registers it and waits for it.
func (b *bed) followOf(i int) *member1 {
	t := b.t
	t.Helper()
	servers := map[ipam.NodeID]string{}
	for _, n := range b.nodes {
		if follows, err := Follows(n.cfg.Dir); err == nil && !follows {
			servers[n.id] = n.address
		}
	}
	n := b.add(i)
	if err := InitFollow(t.Context(), n.cfg, servers); err != nil {
		t.Fatal(err)
	}
	n.start()
	node := register(i)
	node.Role = ipam.RoleNode
	b.retry(func() error {
		_, err := b.anyLeader().Propose(within(t, 5*time.Second), ipam.Envelope{Commands: []ipam.Command{node}})
		return err
	})
	b.waitLeader(n)
	b.retry(func() error {
		_, err := n.Propose(within(t, 5*time.Second), ipam.Envelope{Commands: []ipam.Command{node, ipam.ClaimSubnet{Node: n.id, Network: ipam.DefaultNetwork}}})
		return err
	})
	if !b.subnet(n.Store, n.id).Prefix.IsValid() {
		t.Fatal("a follower's own proposal does not show")
	}
	return n
}

func (b *bed) atSameIndex(servers ...*member1) {
	b.t.Helper()
	l := b.anyLeader()
	waitIn(b.t, 10*time.Second, func() bool {
		at := l.fsm.index()
		return !slices.ContainsFunc(servers, func(n *member1) bool { return n.fsm.index() != at })
	})
}

// server returns the member of Raft that a follower follows.
func (b *bed) server(n *member1) *member1 {
	b.t.Helper()
	var s *member1
	waitIn(b.t, 15*time.Second, func() bool {
		id := n.Stats().Following
		i := slices.IndexFunc(b.nodes, func(o *member1) bool { return o.id == id })
		if i >= 0 {
			s = b.nodes[i]
		}
		return i >= 0
	})
	return s
}

func TestFollower(t *testing.T) {
	t.Parallel()
	b := newBed(t, nil)
	b.form(3, 3)
	one, two := b.followOf(3), b.followOf(4)
	b.same()
	for _, n := range []*member1{one, two} {
		waitIn(t, 5*time.Second, func() bool { return n.Stats().Voters == 3 })
		st := n.Stats()
		if st.State != "following" || st.Leader != b.anyLeader().id || st.Servers != 3 || st.Voters != 3 || st.LastContact < 0 || st.LastContact > 3*time.Second {
			t.Errorf("%s: %+v", n.host, st)
		}
		if st.Received != 1 {
			t.Errorf("%s has been sent %d snapshots, want 1", n.host, st.Received)
		}
		if got := len(n.Peers()); got != 3 {
			t.Errorf("%s knows %d members of raft, want 3", n.host, got)
		}
		if err := n.LinearizableRead(within(t, 5*time.Second)); err != nil {
			t.Error(err)
		}
	}
	if got := len(b.anyLeader().Peers()); got != 3 {
		t.Errorf("raft has %d members, want 3: followers are none", got)
	}
	followers := 0
	for _, n := range b.nodes[:3] {
		followers += n.Stats().Followers
		if len(n.FollowedBy()) != n.Stats().Followers {
			t.Errorf("%s: %v, and %d followers", n.host, n.FollowedBy(), n.Stats().Followers)
		}
	}
	if followers != 2 {
		t.Errorf("the servers count %d followers, want 2", followers)
	}
	// A membership change goes through, and the followers hear of it.
	b.retry(func() error { return one.TransferLeader(within(t, 5*time.Second), "") })
	waitIn(t, 5*time.Second, func() bool {
		l := b.anyLeader()
		return one.Stats().Leader == l.id && two.Stats().Leader == l.id
	})
	b.same()
}

// A follower needs no way to the leader, when its server has one.
func TestFollowerAsksItsServer(t *testing.T) {
	t.Parallel()
	b := newBed(t, nil)
	b.form(3, 3)
	n := b.followOf(3)
	if s := b.server(n); s == b.anyLeader() {
		other := b.follower()
		b.retry(func() error { return s.TransferLeader(within(t, 5*time.Second), other.id) })
	}
	l := b.anyLeader()
	if b.server(n) == l {
		t.Fatal("the follower follows the leader")
	}
	waitIn(t, 5*time.Second, func() bool { return n.Stats().Leader == l.id })
	b.f.isolate(n.host, []string{l.host}, true)
	b.f.breakConns(func(p *pipe) bool { return p.from == n.host && p.to == l.host })
	for range 5 {
		if _, err := n.Propose(within(t, 5*time.Second), tickEnvelope()); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.LinearizableRead(within(t, 5*time.Second)); err != nil {
		t.Error(err)
	}
	if err := n.Promote(within(t, 5*time.Second), n.id, false); !errors.Is(err, ErrNotMember) {
		t.Errorf("promote a follower: %v, want %v", err, ErrNotMember)
	}
}

// The subnet of a new node is seen by followers as soon as by members.
func TestFollowerHearsAtOnce(t *testing.T) {
	t.Parallel()
	b := newBed(t, nil)
	b.form(1, 1)
	n := b.followOf(1)
	for i := 10; i < 20; i++ {
		seen := n.Changed()
		begin := time.Now()
		if _, err := b.nodes[0].Propose(t.Context(), ipam.Envelope{Commands: []ipam.Command{register(i), ipam.ClaimSubnet{Node: idOf(i), Network: ipam.DefaultNetwork}}}); err != nil {
			t.Fatal(err)
		}
		<-seen
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("seen after %s", took)
		}
	}
	b.same()
}

// A server that falls silent, and one that is cut off from its leader, are left.
func TestFollowerGoesToAnotherServer(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		lose func(b *bed, server *member1)
	}{
		{"silent", func(b *bed, s *member1) { b.f.isolate(s.host, b.hosts(), true) }},
		{"killed", func(b *bed, s *member1) { b.f.kill(s.host, b.hosts()) }},
		{"cut off from the others", func(b *bed, s *member1) { b.f.isolate(s.host, []string{"n0", "n1", "n2"}, true) }},
		{"stopped", func(_ *bed, s *member1) { s.stop() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, nil)
			b.form(3, 3)
			n := b.followOf(3)
			s := b.server(n)
			received := n.Stats().Received
			c.lose(b, s)
			begin := time.Now()
			for {
				ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
				_, err := n.Propose(ctx, tickEnvelope())
				cancel()
				if err == nil && n.Stats().Following != s.id {
					break
				}
				if time.Since(begin) > 20*time.Second {
					t.Fatalf("nothing can be proposed: %v; %+v", err, n.Stats())
				}
				time.Sleep(20 * time.Millisecond)
			}
			took := time.Since(begin)
			t.Logf("%s: the next proposal went through after %s", c.name, took)
			if took > 10*time.Second { // 5 s on a machine that has nothing else to do
				t.Errorf("the next proposal went through after %s", took)
			}
			if st := n.Stats(); st.Received != received {
				t.Errorf("a snapshot was sent, although the other server has what came since")
			}
			b.f.isolate(s.host, b.hosts(), false)
		})
	}
}

// A follower that does not read holds up nobody and comes back by a snapshot when it
// has missed more than is kept.
func TestFollowerTooSlow(t *testing.T) {
	t.Parallel()
	b := newBed(t, func(c *Config) { c.FollowLog = 8 })
	b.form(1, 1)
	n, other := b.followOf(1), b.followOf(2)
	l := b.nodes[0]
	b.f.hold(l.host, n.host, true)
	big := bytes.Repeat([]byte{'x'}, 100)
	for i := range 50 {
		begin := time.Now()
		node := register(2)
		node.Role, node.Version = ipam.RoleNode, fmt.Sprint(i, string(big))
		if _, err := l.Propose(within(t, 10*time.Second), ipam.Envelope{Commands: []ipam.Command{node}}); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took > 3*time.Second {
			t.Errorf("a proposal took %s beside a follower that does not read", took)
		}
	}
	b.atSameIndex(other)
	if st := l.Stats(); st.FollowLog > 8 {
		t.Errorf("%d commands are kept, want 8 at most", st.FollowLog)
	}
	waitIn(t, 20*time.Second, func() bool { return n.Stats().Following == "" })
	b.f.hold(l.host, n.host, false)
	b.atSameIndex(n, other)
	if st := n.Stats(); st.Received < 2 {
		t.Errorf("%d snapshots, want one more for what was missed", st.Received)
	}
	b.same()
}

// A follower that was off goes on where it was; without a server it shows what it had.
func TestFollowerRestarts(t *testing.T) {
	t.Parallel()
	b := newBed(t, nil)
	b.form(1, 1)
	n := b.followOf(1)
	n.stop()
	for i := 10; i < 15; i++ {
		if _, err := b.nodes[0].Propose(t.Context(), ipam.Envelope{Commands: []ipam.Command{register(i)}}); err != nil {
			t.Fatal(err)
		}
	}
	n.restart()
	b.waitLeader(n)
	b.same()
	if st := n.Stats(); st.Received != 0 {
		t.Errorf("%d snapshots, want none: the server has what came since", st.Received)
	}
	index := n.fsm.index()
	n.stop()
	b.nodes[0].stop()
	n.restart()
	if got := n.fsm.index(); got != index {
		t.Errorf("without a server it is at %d, was at %d", got, index)
	}
	waitIn(t, 5*time.Second, func() bool { return n.Stats().State == "following" })
	if _, err := n.Propose(within(t, time.Second), tickEnvelope()); !errors.Is(err, ErrNoLeader) {
		t.Errorf("without a server: %v, want %v", err, ErrNoLeader)
	}
	b.nodes[0].restart()
	b.waitLeader(n)
	b.same()
}

func TestFollowerDamagedSnapshot(t *testing.T) {
	t.Parallel()
	b := newBed(t, nil)
	b.form(1, 1)
	n := b.followOf(1)
	n.stop()
	path := filepath.Join(n.cfg.Dir, stateFile)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	n.restart()
	b.waitLeader(n)
	b.same()
	if n.Stats().Received != 1 {
		t.Errorf("%d snapshots, want 1", n.Stats().Received)
	}
	if aside, _ := filepath.Glob(path + ".damaged-*"); len(aside) != 1 {
		t.Errorf("set aside: %v, want one file", aside)
	}
	saved := n.following.saved() // before: the next save may come at any time
	if again, err := Peek(n.cfg); err != nil || again.Index() < saved {
		t.Errorf("a look at the store beside its process: %v", err)
	}
}

// After a restore the followers go on with what was restored.
func TestFollowerRestore(t *testing.T) {
	t.Parallel()
	b := newBed(t, nil)
	b.form(3, 3)
	n := b.followOf(3)
	l := b.anyLeader()
	var saved bytes.Buffer
	if _, err := l.SnapshotSave(t.Context(), &saved); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Propose(t.Context(), ipam.Envelope{Commands: []ipam.Command{register(10)}}); err != nil {
		t.Fatal(err)
	}
	b.atSameIndex(n)
	_, err := l.SnapshotRestore(t.Context(), &saved, RestoreOptions{Merge: func(restored, live *ipam.State) (*ipam.State, error) {
		return restored.ForRestore(live, 7)
	}})
	if err != nil {
		t.Fatal(err)
	}
	waitIn(t, 10*time.Second, func() (same bool) {
		n.View(func(st *ipam.State) {
			c, _ := st.Cluster()
			same = c.Life == 7
		})
		return same
	})
	b.waitLeader(n)
	b.same()
}

// Followers are at the same state as members while all propose at once.
func TestFollowersUnderLoad(t *testing.T) {
	t.Parallel()
	b := newBed(t, func(c *Config) { c.FollowLog = 32 })
	b.form(3, 3)
	one, two := b.followOf(3), b.followOf(4)
	var tasks sync.WaitGroup
	var done atomic.Int64
	end := time.Now().Add(3 * time.Second)
	for i, n := range []*member1{b.nodes[0], b.nodes[1], one, two, one, two} {
		tasks.Go(func() {
			for seq := 0; time.Now().Before(end); seq++ {
				node := register(20 + i)
				node.Version = fmt.Sprint(seq)
				_, err := n.Propose(within(t, 10*time.Second), ipam.Envelope{Commands: []ipam.Command{node}})
				if (n == one || n == two) && errors.Is(err, ErrUnknownOutcome) {
					continue // 32 commands were missed: a snapshot brought it
				}
				if err != nil {
					t.Errorf("%s: %v", n.host, err)
					return
				}
				seen := false
				n.View(func(st *ipam.State) {
					m, _ := st.Node(node.Node)
					seen = m.Version == node.Version
				})
				if !seen {
					t.Errorf("%s does not show what it has proposed", n.host)
					return
				}
				done.Add(1)
			}
		})
	}
	tasks.Go(func() { // one that comes and goes
		for time.Now().Before(end) {
			b.f.breakConns(func(p *pipe) bool { return p.from == two.host && p.slow }) // its stream
			time.Sleep(300 * time.Millisecond)
		}
	})
	tasks.Wait()
	t.Logf("%d proposals", done.Load())
	b.same()
}

// Nothing that is not this protocol is taken for it.
func FuzzFollowFrames(f *testing.F) {
	l := newEntry([]byte("data"))
	l.Index, l.Term = 7, 3
	f.Add(appendRecord(nil, 6, &l))
	f.Add((&standing{term: 2, leader: raft.ServerID(idOf(1)), members: []raft.Server{{ID: raft.ServerID(idOf(1)), Address: "a:1"}}}).encode()[frameHead:])
	h, _ := hello{node: idOf(1), cluster: cluster, index: 5}.encode()
	f.Add(h)
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, prev, rest, ok := cutRecord(b); ok {
			if again := append(appendRecord(nil, prev, &l), rest...); !bytes.Equal(again, b) {
				t.Errorf("%x reads as %x", b, again)
			}
		}
		if s, err := decodeStanding(b); err == nil {
			if again, err := decodeStanding(s.encode()[frameHead:]); err != nil || !again.equal(s) {
				t.Errorf("%x reads as %+v", b, s)
			}
		}
		if h, err := readHello(bytes.NewReader(b)); err == nil {
			again, err := h.encode()
			if err != nil || h.cluster != "" && !bytes.Equal(again, b[:helloSize]) {
				t.Errorf("%x reads as %x: %v", b, again, err)
			}
		}
	})
}

func TestRing(t *testing.T) {
	t.Parallel()
	r := newRing(4, 1<<20)
	r.reset(10)
	start := r.now()
	entry := func(i uint64) *raft.Log {
		l := newEntry([]byte("d"))
		l.Index = i
		return &l
	}
	prev := uint64(10)
	for _, i := range []uint64{11, 13, 14, 17, 18} { // others are not commands
		r.add(prev, entry(i), true)
		prev = i
	}
	for _, c := range []struct {
		name string
		at   place
		want []uint64
		ok   bool
	}{
		{"from the first that is kept", place{11, start.life}, []uint64{13, 14, 17, 18}, true},
		{"fallen out", place{10, start.life}, nil, false},
		{"at the end", place{18, start.life}, nil, true},
		{"ahead of this server", place{25, start.life}, nil, true},
		{"from the middle", place{14, start.life}, []uint64{17, 18}, true},
		{"where no command is", place{15, start.life}, nil, false},
		{"before the state was replaced", place{14, start.life - 1}, nil, false},
	} {
		b, after, _, ok := r.next(nil, c.at, 1<<20)
		var got []uint64
		for len(b) > 0 {
			l, _, rest, read := cutRecord(b)
			if !read {
				t.Fatalf("%s: no record", c.name)
			}
			got, b = append(got, l.Index), rest
		}
		if ok != c.ok || !slices.Equal(got, c.want) || len(got) > 0 && after.index != 18 {
			t.Errorf("%s: %v %t, want %v %t", c.name, got, ok, c.want, c.ok)
		}
	}
	if b, after, _, _ := r.next(nil, place{11, start.life}, 1); len(b) == 0 || after.index != 13 {
		t.Errorf("in small parts: %d bytes up to %d, want up to 13", len(b), after.index)
	}
	r.reset(18)
	if r.holds(place{18, start.life}) {
		t.Error("a place of before the state was replaced still counts")
	}
	tiny := newRing(4, 1) // keeps nothing
	tiny.reset(10)
	before := tiny.now()
	tiny.add(10, entry(11), true)
	if _, _, _, ok := tiny.next(nil, before, 1<<20); ok {
		t.Error("a command that was too large to be kept is passed over")
	}
	small := newRing(100, 3*recordHead)
	for i := uint64(1); i < 50; i++ {
		small.add(i-1, entry(i), false)
	}
	if small.bytes > 3*recordHead || len(small.recs) == 0 {
		t.Errorf("%d bytes in %d records", small.bytes, len(small.recs))
	}
}
