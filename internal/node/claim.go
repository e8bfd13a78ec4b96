package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"stellar.io/stellar/internal/atomicfile"
	"stellar.io/stellar/internal/failpoint"
	"stellar.io/stellar/ipam"
)

const (
	// heldFile is inside the data directory: what the node held when the cluster last
	// confirmed it.
	heldFile = "subnet.json"
	// claimPatience is how long a node that has held a subnet before waits for the
	// cluster to confirm it, before it goes on with what it remembers; and how long the
	// answer to one claim may take.
	claimPatience = 3 * time.Second
	// claimPause bounds the pause between two claims.
	claimPause = time.Second
	// leaderPoll is how often a node that has no leader looks for one between two claims.
	leaderPoll = 2 * time.Millisecond
)

// held is the subnet of this node, the network it lies in, and the address for other
// nodes that it was confirmed at.
type held struct {
	Network ipam.Network `json:"network"`
	Subnet  ipam.Subnet  `json:"subnet"`
	Address string       `json:"address,omitempty"`
	// Generation and Life are the era in which that was.
	Generation uint64 `json:"generation,omitempty"`
	Life       uint32 `json:"life,omitempty"`
}

// claim waits until the node is a member and holds a subnet, which it asks for as
// often as it takes. A node that held one before goes on with that one when no leader
// answers, or when it has been removed: what runs here needs its gateway and routes.
// later is then true, and keepClaiming goes on asking.
func (n *Node) claim(ctx context.Context, p *parts) (later bool, err error) {
	before, known := n.rememberedSubnet()
	patience := time.Now().Add(claimPatience)
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, claimPause) {
		h, err := n.claimOnce(ctx, p, 0)
		switch {
		case err == nil:
			p.network, p.subnet = h.Network, h.Subnet
			return false, n.rememberSubnet(h)
		case errors.Is(err, ipam.ErrNodeRemoved):
			n.standing(p, errRemoved, era{})
		case refused(err):
			return false, err
		case time.Now().After(patience), n.moved(p):
			n.ask(ctx, p, n.others(p))
		}
		fenced := n.fence.get()
		switch {
		case known && (fenced != nil || time.Now().After(patience)):
			n.log.Warn("going on with the subnet of before, which the cluster has not confirmed", "subnet", before.Subnet.Prefix, "err", err)
			p.network, p.subnet = before.Network, before.Subnet
			return true, nil
		case fenced != nil:
			n.setPhase(fenced.Error())
			<-ctx.Done()
			return false, ctx.Err()
		case errors.Is(err, ipam.ErrReclaiming), errors.Is(err, ipam.ErrNoAvailableSubnets):
			n.setPhase("waiting for a subnet: " + err.Error())
		}
		if err := p.rest(ctx, pause); err != nil {
			return false, err
		}
	}
}

// rest returns after the pause between two claims; earlier when there was no leader
// and one appears, and with the context's error when it ends.
func (p *parts) rest(ctx context.Context, pause time.Duration) error {
	end := time.Now().Add(pause)
	led := p.store.Stats().Leader != ""
	for {
		left := time.Until(end)
		if !led {
			left = min(left, leaderPoll)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(left):
		}
		if !time.Now().Before(end) || !led && p.store.Stats().Leader != "" {
			return nil
		}
	}
}

// refusal is what the state answered to a claim.
type refusal struct{ err error }

func (r *refusal) Error() string { return "join the cluster's plan: " + r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

// refused reports whether asking again is in vain.
func refused(err error) bool {
	r, ok := errors.AsType[*refusal](err)
	return ok && !errors.Is(r, ipam.ErrReclaiming) && !errors.Is(r, ipam.ErrNoAvailableSubnets)
}

// claimOnce announces the node, with its present address and version, in the mode that
// is given, zero: the one that it is in, and asks for its subnet.
func (n *Node) claimOnce(ctx context.Context, p *parts, mode ipam.Mode) (h held, err error) {
	failpoint.Hit(failpoint.NodeClaim)
	member := n.member()
	if p.tls != nil {
		if id, ok := p.tls.Identity(); ok && id.Role == ipam.RoleNode {
			member.Role = id.Role // what its certificate may say of itself, and no more
		}
	}
	// A leader that takes this node out of Raft meanwhile never answers, nor does a disk
	// that hangs.
	asking, cancel := context.WithTimeout(ctx, claimPatience)
	defer cancel()
	if member.Mode = mode; mode == 0 {
		member.Mode, err = n.presentMode(asking, p)
	}
	var results []ipam.Result
	if err == nil {
		results, err = p.register(asking, member)
	}
	if err != nil {
		n.log.Debug("subnet not confirmed yet", "err", err)
		return h, err
	}
	failpoint.Hit(failpoint.NodeClaimed)
	// Committed and applied here: the state holds all that was committed before.
	p.confirmed.Store(true)
	n.contact.heard(0)
	p.applied(0, nil)
	for _, r := range results {
		if r.Err != nil {
			return h, &refusal{r.Err}
		}
	}
	p.store.View(func(s *ipam.State) {
		h.Network, _ = s.Network(ipam.DefaultNetwork)
		for sub := range s.SubnetsOf(n.id.ID) {
			if sub.Network == ipam.DefaultNetwork {
				h.Subnet = sub
			}
		}
	})
	e := p.era()
	h.Address, h.Generation, h.Life = member.Address, e.generation, e.life
	if !h.Subnet.Prefix.IsValid() {
		return h, fmt.Errorf("claim subnet: %w", ipam.ErrSubnetNotFound)
	}
	return h, nil
}

// keepClaiming asks on until the cluster has confirmed what the node went on with. A
// subnet that is another's by now fences the holder, which finds that out itself.
func (n *Node) keepClaiming(ctx context.Context, p *parts) error {
	tick := time.NewTicker(claimPause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		h, err := n.claimOnce(ctx, p, 0)
		switch {
		case err == nil && h.Subnet.SubnetKey == p.subnet.SubnetKey && h.Subnet.Epoch == p.subnet.Epoch:
			n.log.Info("the cluster has confirmed the subnet", "subnet", p.subnet.Prefix)
			p.routes.Changed()
			return n.rememberSubnet(h)
		case err == nil:
			n.log.Warn("the cluster has another subnet for this node: restart the agent when its containers have gone",
				"has", p.subnet.Prefix, "epoch", p.subnet.Epoch, "gets", h.Subnet.Prefix, "at", h.Subnet.Epoch)
			return nil
		case errors.Is(err, ipam.ErrNodeRemoved):
			n.standing(p, errRemoved, era{})
			return nil
		case refused(err):
			n.log.Warn("the subnet is not confirmed", "err", err)
			return nil
		}
	}
}

func (n *Node) heldPath() string { return filepath.Join(n.opts.Config.DataDir, heldFile) }

// rememberSubnet stores what the cluster has confirmed, if it is new.
func (n *Node) rememberSubnet(h held) error {
	if was, ok := n.rememberedSubnet(); ok && was == h {
		return nil
	}
	data, err := json.MarshalIndent(h, "", "  ")
	if err != nil {
		return err
	}
	if err := atomicfile.Write(n.heldPath(), append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("remember subnet: %w", err)
	}
	failpoint.Hit(failpoint.NodeRemembered)
	return nil
}

// rememberedSubnet returns what the cluster last confirmed. A file that cannot be
// read says nothing: the cluster is asked.
func (n *Node) rememberedSubnet() (h held, ok bool) {
	data, err := os.ReadFile(n.heldPath())
	if errors.Is(err, fs.ErrNotExist) {
		return h, false
	}
	if err == nil {
		err = json.Unmarshal(data, &h)
	}
	if err != nil || h.Subnet.Node != n.id.ID || !h.Subnet.Prefix.IsValid() || !h.Network.Prefix.IsValid() {
		n.log.Warn("the remembered subnet cannot be read", "file", n.heldPath(), "err", err)
		return held{}, false
	}
	return h, true
}
