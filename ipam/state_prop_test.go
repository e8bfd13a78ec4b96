package ipam

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The random commands draw from few values each, so that they meet.
var (
	propNodes    = []int{1, 2, 3, 4}
	propOwners   = []string{"a", "b", "c", "d", "e"}
	propNetworks = []string{DefaultNetwork, DefaultNetwork, DefaultNetwork, DefaultNetwork, "other", ""}
)

const propPlan = "192.168.0.0/24" // four subnets of 64 addresses

func drawFence(t *rapid.T, s *State) Fence {
	n := rapid.SampledFrom(propNodes).Draw(t, "node")
	f := Fence{
		Subnet: SubnetKey{rapid.SampledFrom(propNetworks).Draw(t, "network"), drawSubnet(t)},
		Node:   nodeID(n), Epoch: Epoch{1, 1},
	}
	if sub, ok := s.Subnet(f.Subnet); ok && rapid.IntRange(0, 9).Draw(t, "stale") > 0 {
		f.Epoch, f.Node = sub.Epoch, sub.Node
	}
	return f
}

func drawSubnet(t *rapid.T) netip.Prefix {
	if rapid.IntRange(0, 30).Draw(t, "odd subnet") == 0 {
		return rapid.SampledFrom([]netip.Prefix{{}, mustPrefix("10.0.0.0/26"), mustPrefix("192.168.0.0/25"), mustPrefix("fd00::/26")}).Draw(t, "subnet")
	}
	return netip.PrefixFrom(uintToAddr(addrToUint(mustAddr("192.168.0.0"))+64*rapid.Uint32Range(0, 3).Draw(t, "subnet")), 26)
}

func drawAddr(t *rapid.T, p netip.Prefix) netip.Addr {
	if !p.Addr().Is4() || rapid.IntRange(0, 30).Draw(t, "odd address") == 0 {
		return rapid.SampledFrom([]netip.Addr{{}, mustAddr("10.0.0.1"), mustAddr("::1"), mustAddr("::ffff:192.168.0.5")}).Draw(t, "address")
	}
	offset := rapid.SampledFrom([]uint32{0, 1, 2, 3, 4, 5, 6, 7, 8, 63}).Draw(t, "offset")
	return uintToAddr(addrToUint(p.Addr()) + offset)
}

func drawOwner(t *rapid.T) Owner {
	o := owner(rapid.SampledFrom(propOwners).Draw(t, "owner"))
	if rapid.IntRange(0, 40).Draw(t, "odd owner") == 0 {
		o.Kind = 0
	}
	return o
}

func drawBlock(t *rapid.T) netip.Prefix {
	bits := rapid.SampledFrom([]int{23, 24, 25, 26, 27, 29, 30, 31, 32, 32, 32}).Draw(t, "bits")
	a := drawAddr(t, drawSubnet(t))
	if bits > a.BitLen() {
		return netip.Prefix{}
	}
	p := netip.PrefixFrom(a, bits)
	if rapid.IntRange(0, 20).Draw(t, "host bits") > 0 {
		p = p.Masked()
	}
	return p
}

// drawCommand returns a random command, now and then an impossible one.
func drawCommand(t *rapid.T, s *State) Command {
	n := rapid.SampledFrom(propNodes).Draw(t, "node")
	switch rapid.IntRange(0, 29).Draw(t, "command") {
	case 0:
		c := initCmd()
		c.Prefix, c.SubnetBits = mustPrefix(propPlan), rapid.SampledFrom([]int{26, 26, 26, 25, 31}).Draw(t, "subnet bits")
		return c
	case 1:
		c := registerCmd(n)
		c.Mode = rapid.SampledFrom([]Mode{0, ModeBridge, ModeBridge, ModeRouted}).Draw(t, "mode")
		if rapid.IntRange(0, 9).Draw(t, "another name") == 0 {
			c.Name = registerCmd(1).Name
		}
		return c
	case 2:
		return UpdateNode{Node: nodeID(n), Version: rapid.SampledFrom([]string{"", "2", "\x01"}).Draw(t, "version"),
			Mode: rapid.SampledFrom([]Mode{0, ModeBridge, ModeRouted}).Draw(t, "mode")}
	case 3:
		if rapid.IntRange(0, 2).Draw(t, "really") > 0 {
			return Tick{time.Duration(rapid.Int64().Draw(t, "elapsed"))}
		}
		return RemoveNode{Node: nodeID(n), Force: rapid.Bool().Draw(t, "force"), Dead: rapid.Bool().Draw(t, "dead")}
	case 4, 5, 6:
		return ClaimSubnet{Node: nodeID(n), Network: rapid.SampledFrom(propNetworks).Draw(t, "network")}
	case 7:
		return ReleaseSubnet{Network: DefaultNetwork, Prefix: drawSubnet(t)}
	case 8, 9:
		f := drawFence(t, s)
		c := ReserveAddress{Network: f.Subnet.Network, Prefix: drawBlock(t), Reason: "why", Node: f.Node, Epoch: f.Epoch}
		if rapid.Bool().Draw(t, "no fence") {
			c.Node, c.Epoch = "", Epoch{}
		}
		if rapid.Bool().Draw(t, "unreserve") {
			return UnreserveAddress{c.Network, c.Prefix, c.Node, c.Epoch}
		}
		return c
	case 10, 11:
		f := drawFence(t, s)
		return MarkLease{f, drawAddr(t, f.Subnet.Prefix), drawOwner(t), LeaseState(rapid.IntRange(0, 3).Draw(t, "state"))}
	case 12, 13:
		f := drawFence(t, s)
		return ReleaseLease{f, drawAddr(t, f.Subnet.Prefix), drawOwner(t)}
	case 14, 15:
		f := drawFence(t, s)
		return FreeLease{f, drawAddr(t, f.Subnet.Prefix), drawOwner(t)}
	case 16, 17, 18, 19, 20, 21, 22, 23, 24:
		return drawMembership(t, s, n)
	}
	f := drawFence(t, s)
	return BindLease{f, drawAddr(t, f.Subnet.Prefix), drawOwner(t), rapid.Bool().Draw(t, "static"),
		rapid.SampledFrom([]string{"", "web", "a b"}).Draw(t, "host name")}
}

// drawMembership returns a random command about members, tokens or generations.
func drawMembership(t *rapid.T, s *State, n int) Command {
	k := rapid.IntRange(1, 3).Draw(t, "token")
	later := rapid.SampledFrom([]int64{0, 0, 0, 200_000}).Draw(t, "later")
	switch rapid.IntRange(0, 11).Draw(t, "membership") {
	case 0, 1, 2:
		c := tokenCmd(k)
		c.Now, c.Expires = c.Now+later, c.Expires+later
		c.Role = rapid.SampledFrom([]Role{0, RoleServer, RoleServer, RoleNode}).Draw(t, "role")
		return c
	case 3:
		return RevokeToken{tokenID(k)}
	case 4:
		return DrainNode{nodeID(n), rapid.Bool().Draw(t, "drain")}
	case 5:
		return RaiseGeneration{rapid.Uint64Range(0, 4).Draw(t, "generation")}
	case 6:
		return EndReclaim{rapid.Uint64Range(0, 3).Draw(t, "generation")}
	case 7, 8:
		c := ClaimHeld{drawFence(t, s)}
		c.Epoch = Epoch{rapid.Uint64Range(0, 3).Draw(t, "generation"), rapid.Uint64Range(0, 3).Draw(t, "counter")}
		c.Node = nodeID(n)
		return c
	}
	c := joinCmd(k)
	c.RegisterNode = registerCmd(n)
	c.Role = rapid.SampledFrom([]Role{0, 0, RoleServer, RoleNode}).Draw(t, "role")
	c.Mode = rapid.SampledFrom([]Mode{ModeBridge, ModeBridge, ModeRouted}).Draw(t, "mode")
	c.Now += later + rapid.SampledFrom([]int64{0, 0, 0, 3600}).Draw(t, "expired")
	c.Replace = rapid.SampledFrom([]string{"", "", "nodeb", "nodec", "ghost"}).Draw(t, "replace")
	if rapid.IntRange(0, 5).Draw(t, "another key") == 0 {
		c.KeyHash = hashOf(77)
	}
	for range rapid.IntRange(0, 2).Draw(t, "ranges") {
		c.HostRanges = append(c.HostRanges, rapid.SampledFrom([]netip.Prefix{
			drawBlock(t), mustPrefix("10.0.0.0/8"), mustPrefix("192.168.0.192/28"), mustPrefix("192.168.0.0/16"),
		}).Draw(t, "range"))
	}
	return c
}

// replica follows the log of the leading state from behind: it is fed decoded
// and encoded anew, is restored now and then, and must end up the same.
type replica struct{ s *State }

func (r *replica) follow(t *rapid.T, index uint64, data []byte) Outcome {
	if rapid.IntRange(0, 15).Draw(t, "restore") == 0 {
		var b bytes.Buffer
		if _, err := r.s.Snapshot().WriteTo(&b); err != nil {
			t.Fatal(err)
		}
		restored, err := Restore(bytes.NewReader(b.Bytes()))
		if err != nil {
			t.Fatalf("restore: %v", err)
		}
		equal(t, "restored derived", restored.derived, r.s.derived)
		r.s = restored
	}
	out, err := r.s.Apply(index, data)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestStateAgainstModel runs random envelopes, valid and invalid, on two states
// and a model. After each one the state must be sound and equal to the model, the
// second state, restored from snapshots on the way, must have the same hash, a
// refused command must have changed nothing, and a replay changes nothing either.
func TestStateAgainstModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s, follower := New(), &replica{New()}
		m := newModel()
		var log [][]byte
		commit := func(data []byte) Outcome {
			index := s.Index() + rapid.Uint64Range(1, 3).Draw(t, "gap")
			out, err := s.Apply(index, data)
			if err != nil {
				t.Fatal(err)
			}
			equal(t, "follower's outcome", follower.follow(t, index, data), out)
			if err := s.Check(); err != nil {
				t.Fatal(err)
			}
			if s.Hash() != follower.s.Hash() {
				t.Fatal("the two states differ")
			}
			return out
		}
		start := Envelope{Commands: []Command{drawInit(t)}}
		for seq := range rapid.Uint64Range(1, 60).Draw(t, "steps") {
			env := Envelope{Request: RequestID{nodeID(rapid.SampledFrom(propNodes).Draw(t, "proposer")), seq + 1}}
			if seq == 0 {
				env = start
			}
			for seq > 0 && len(env.Commands) == 0 || seq > 0 && rapid.Bool().Draw(t, "more") {
				env.Commands = append(env.Commands, drawCommand(t, s))
			}
			data, err := env.Encode()
			if err != nil {
				t.Fatal(err)
			}
			before := s.Hash()
			out := commit(data)
			accepted := 0
			for i, r := range out.Results {
				if r.Err == nil {
					accepted++
					m.step(t, env.Commands[i], r)
				} else if ErrorCode(r.Err) <= 1 {
					t.Fatalf("%T: %v has no code", env.Commands[i], r.Err)
				}
			}
			if accepted == 0 && len(out.Deltas) > 0 {
				t.Fatalf("all refused, yet %v", out.Deltas)
			}
			if accepted == 0 && s.windows[env.Request.Node].requests == 0 && s.Hash() != before {
				t.Fatal("all refused, yet the state has changed")
			}
			m.compare(t, s)
			if log = append(log, data); rapid.Bool().Draw(t, "replay") {
				replay(t, s, commit, rapid.SampledFrom(log).Draw(t, "entry"))
				m.compare(t, s)
			}
		}
	})
}

func drawInit(t *rapid.T) InitCluster {
	c := initCmd()
	c.Prefix, c.SubnetBits = mustPrefix(propPlan), 26
	return c
}

// replay commits an entry again: if it is remembered, nothing may change.
func replay(t *rapid.T, s *State, commit func([]byte) Outcome, data []byte) {
	env, err := DecodeEnvelope(data)
	if err != nil {
		t.Fatal(err)
	}
	if _, remembered := s.requests.get(env.Request); !remembered {
		return
	}
	before := s.Hash()
	if out := commit(data); !out.Duplicate || len(out.Deltas) > 0 || s.Hash() != before {
		t.Fatalf("a replay was executed: %+v", out)
	}
}

// TestCommandsAreIdempotent: every command that was accepted is accepted again,
// without a request id, and then changes nothing.
func TestCommandsAreIdempotent(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := New()
		do(t, s, drawInit(t))
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			c := drawCommand(t, s)
			if do(t, s, c).Results[0].Err != nil {
				continue
			}
			if tick, ok := c.(Tick); ok && tick.Elapsed > 0 {
				continue // by nature not "ensure" style; the leader never repeats one
			}
			before := s.Hash()
			out := do(t, s, c)
			if _, ok := c.(UnreserveAddress); ok {
				equal(t, "code", ErrorCode(out.Results[0].Err), ErrorCode(ErrReservationNotFound))
			} else if out.Results[0].Err != nil {
				t.Fatalf("%+v the second time: %v", c, out.Results[0].Err)
			}
			if s.Hash() != before || len(out.Deltas) > 0 {
				t.Fatalf("%+v the second time: %v", c, fmt.Sprint(out.Deltas))
			}
		}
	})
}
