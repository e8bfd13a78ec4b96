package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/peerapi"
	"stellar.io/stellar/api/server"
	"stellar.io/stellar/internal/peer"
	"stellar.io/stellar/ipam"
)

// After a restore or a recovery each node tells the leader what it holds, once for
// each era and leader; the leader enters what its state lacks, and keeps what it has
// refused for the operator to see.

// claimMemory is for how long a refused claim is shown that is not repeated.
const claimMemory = 30 * time.Second

// claimNote is what became of one node's claim.
type claimNote struct {
	name   string
	subnet string
	err    error // nil: it stands
	at     time.Time
}

// claims are those that this node, while it leads, has heard in one era.
type claims struct {
	mu   sync.Mutex // guards what follows
	era  era
	of   map[ipam.NodeID]claimNote
	told era // the era in which this node's own claim was accepted,
	by   ipam.NodeID
}

func (c *claims) note(at era, id ipam.NodeID, n claimNote) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of == nil || c.era != at {
		c.era, c.of = at, map[ipam.NodeID]claimNote{}
	}
	n.at = time.Now()
	c.of[id] = n
}

// heard returns the claims of the era, without refusals that were not repeated.
func (c *claims) heard(at era) map[ipam.NodeID]claimNote {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[ipam.NodeID]claimNote{}
	for id, n := range c.of {
		if c.era == at && (n.err == nil || time.Since(n.at) < claimMemory) {
			out[id] = n
		}
	}
	return out
}

// Claim implements peerapi.Members.
func (b peerBackend) Claim(ctx context.Context, c peerapi.Caller, claim peerapi.Claim) (peerapi.ClaimAnswer, error) {
	stats, now := b.p.store.Stats(), b.p.era()
	out := peerapi.ClaimAnswer{Generation: now.generation, Life: now.life, Leader: stats.Leader, LeaderAddress: stats.LeaderAddress}
	if stats.State != "leader" {
		return out, nil
	}
	if err := b.n.fence.get(); err != nil {
		return out, api.Errorf(api.CodeConflict, "the node that was asked is fenced itself: %w", err)
	}
	err := b.p.enter(ctx, c, claim)
	if api.CodeOf(err) == api.CodeNoLeader || api.CodeOf(err) == api.CodeUnknownOutcome {
		return out, err
	}
	b.n.claims.note(now, c.Node, claimNote{name: c.Name, subnet: subnetText(claim.Subnet), err: err})
	if err != nil {
		b.n.log.Warn("a node's claim is refused", "node", c.Name, "id", c.Node.Short(), "subnet", subnetText(claim.Subnet), "epoch", claim.Epoch, "err", err)
		return out, err
	}
	if claim.Empty && c.Raft && !b.p.inRaft(c.Node) {
		if err := b.p.store.AddServer(ctx, c.Node, peer.RaftAddress(c.Node, claim.Address)); err != nil {
			return out, outcome(err)
		}
		b.n.log.Info("a node that was left behind is back", "node", c.Name, "id", c.Node.Short(), "subnet", subnetText(claim.Subnet))
	}
	out.Accepted = true
	return out, nil
}

// enter has the state say what the node claims. A node that it does not know, for it
// joined after what was restored, is taken in during the re-claim: its certificate is
// as good as ever.
func (p *parts) enter(ctx context.Context, c peerapi.Caller, claim peerapi.Claim) error {
	key := ipam.SubnetKey{Network: ipam.DefaultNetwork, Prefix: claim.Subnet}
	known, held, reclaim := false, false, false
	p.store.View(func(s *ipam.State) {
		cl, _ := s.Cluster()
		reclaim = cl.Reclaim
		_, known = s.Node(c.Node)
		sub, ok := s.Subnet(key)
		held = ok && sub.State == ipam.Held && sub.Node == c.Node && sub.Epoch == claim.Epoch
	})
	if !known && !reclaim {
		return api.Errorf(api.CodeConflict, "node %s is not known, and the re-claim has ended", c.Name).
			WithHint("empty its data directory and join anew")
	}
	role := ipam.RoleNode
	if c.Role == api.RoleServer {
		role = ipam.RoleServer
	}
	if err := p.ensure(ctx, ipam.RegisterNode{
		Node: c.Node, Name: claim.Name, MachineID: claim.MachineID, Address: claim.Address, Version: claim.Version, Mode: claim.Mode, Role: role,
	}); err != nil {
		return err
	}
	if held || !claim.Subnet.IsValid() {
		return nil
	}
	return p.ensure(ctx, ipam.ClaimHeld{Fence: ipam.Fence{Subnet: key, Node: c.Node, Epoch: claim.Epoch}})
}

func subnetText(p netip.Prefix) string {
	if !p.IsValid() {
		return "no subnet"
	}
	return p.String()
}

// ownClaim is what this node holds: what it serves, or last served.
func (n *Node) ownClaim(p *parts, empty bool) peerapi.Claim {
	m := n.member()
	c := peerapi.Claim{Name: m.Name, MachineID: m.MachineID, Address: m.Address, Version: m.Version, Empty: empty}
	c.Mode, _ = n.modeToJoin()
	if h, ok := n.rememberedSubnet(); ok {
		c.Subnet, c.Epoch = h.Subnet.Prefix, h.Subnet.Epoch
	}
	return c
}

// report tells the leader what this node holds, once for each era and leader while
// the re-claim lasts.
func (n *Node) report(ctx context.Context, p *parts) {
	now, stats := p.era(), p.store.Stats()
	if stats.Leader == "" || !p.reclaiming() || n.fence.get() != nil {
		return
	}
	n.claims.mu.Lock()
	told := n.claims.told == now && n.claims.by == stats.Leader
	n.claims.mu.Unlock()
	if told {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var a peerapi.ClaimAnswer
	var err error
	if stats.State == "leader" {
		own := peerapi.Caller{Node: n.id.ID, Name: n.id.Name, Role: api.RoleServer}
		a, err = peerBackend{n, p}.Claim(ctx, own, n.ownClaim(p, false)) // who leads is a server
	} else if p.port != nil {
		a, err = p.client(stats.Leader, stats.LeaderAddress).Claim(ctx, n.ownClaim(p, false))
	}
	if err != nil || !a.Accepted {
		n.log.Debug("the claim was not taken yet", "err", err)
		return
	}
	n.claims.mu.Lock()
	n.claims.told, n.claims.by = now, stats.Leader
	n.claims.mu.Unlock()
	if h, ok := n.rememberedSubnet(); ok {
		h.Generation, h.Life = now.generation, now.life
		if err := n.rememberSubnet(h); err != nil {
			n.log.Warn("the new generation is not remembered", "err", err)
		}
	}
}

// lived is the latest era that this node was part of.
func (n *Node) lived(p *parts) era {
	own := p.era()
	if h, ok := n.rememberedSubnet(); ok && own.compare(era{h.Generation, h.Life}) < 0 {
		return era{h.Generation, h.Life}
	}
	return own
}

func (p *parts) reclaiming() (yes bool) {
	p.store.View(func(s *ipam.State) {
		c, _ := s.Cluster()
		yes = c.Reclaim
	})
	return yes
}

// reclaimCheck is the name of status's check of it.
const reclaimCheck = "reclaim"

// checkReclaim says how far the re-claim is. The leader knows; another node asks it.
func (n *Node) checkReclaim(ctx context.Context, p *parts, add addCheck) {
	s := p.store.Stats()
	if s.State != "leader" {
		if _, forwarded := server.Forwarded(ctx); forwarded || p.port == nil || s.Leader == "" || !p.reclaiming() {
			return
		}
		ctx, cancel := context.WithTimeout(ctx, leaderPatience)
		defer cancel()
		r, err := p.relayTo(ctx, s.Leader, s.LeaderAddress).Status(ctx)
		if c, ok := r.Check(reclaimCheck); err == nil && ok {
			add(c.Name, c.State, c.Reason)
		}
		return
	}
	now := p.era()
	heard := n.claims.heard(now)
	var waiting, refused []string
	members := 0
	p.store.View(func(s *ipam.State) {
		for m := range s.Nodes() {
			if m.Removed {
				continue
			}
			members++
			if c, ok := heard[m.ID]; !ok || c.err != nil {
				waiting = append(waiting, m.Name)
			}
		}
	})
	for id, c := range heard {
		if c.err != nil {
			refused = append(refused, fmt.Sprintf("%s (%s) claims %s: %v", c.name, id.Short(), c.subnet, c.err))
		}
	}
	slices.Sort(waiting)
	slices.Sort(refused)
	switch {
	case len(refused) > 0:
		add(reclaimCheck, api.Err, fmt.Sprintf("generation %d: %s (end one of the two: `stellar node rm --force NAME` or empty the claimant's data directory)",
			now.generation, strings.Join(refused, "; ")))
	case !p.reclaiming():
	case len(waiting) > 0:
		add(reclaimCheck, api.Warn, fmt.Sprintf("generation %d: %d of %d nodes have claimed what they hold, missing: %s; no subnet is handed out until `stellar cluster end-reclaim`",
			now.generation, members-len(waiting), members, strings.Join(waiting, ", ")))
	default:
		add(reclaimCheck, api.Warn, fmt.Sprintf("generation %d: all %d nodes have claimed what they hold; no subnet is handed out until `stellar cluster end-reclaim`",
			now.generation, members))
	}
}

// errNotTakenBack is why a node that was left behind still is.
var errNotTakenBack = errors.New("not taken back")
