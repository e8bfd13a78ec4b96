package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/peerapi"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/netsetup"
)

// A node's mode is replicated. It is chosen when the node becomes a member and changed
// when the node has no addresses in use: at a start, before the agent attaches anything.
// Until then what runs goes on as it is, and so does what is attached beside it.

const (
	modeCheck = "mode"
	// modePoll is how often a node that cannot change its mode looks whether it could.
	modePoll = time.Second
	// modePause is how long it lets pass after an attempt that failed for another reason
	// than addresses in use.
	modePause = time.Minute
)

// modeNote says why a node is not in the mode that it is to have.
type modeNote struct {
	state  api.CheckState
	reason string
	// ready reports whether it is worth another attempt. Nil: it never is.
	ready func(*parts) bool
}

// wantedMode returns the mode that this node is to have where subnets have the prefix
// length bits.
func (n *Node) wantedMode(bits int) (ipam.Mode, error) {
	configured := n.opts.Config.AttachMode()
	if configured == 0 {
		return ipam.ImpliedMode(bits), nil
	}
	return configured, carries(configured, bits)
}

// carries refuses a mode that cannot use what it would hold.
func carries(m ipam.Mode, bits int) error {
	if m.Carries(bits) {
		return nil
	}
	return api.Errorf(api.CodeConflict, "a node in mode %s serves subnets of /22 or smaller, and those of this cluster are /%d: a bridge has too few ports", m, bits).
		WithHint(`take mode = "` + m.String() + `" out of /etc/stellar/config.toml (and --mode ` + m.String() + ` from the command line) and restart the agent: it is then routed`)
}

// modeToJoin is the mode that a joining node asks for; implied: the cluster chooses. A
// node that has a subnet keeps its mode.
func (n *Node) modeToJoin() (m ipam.Mode, implied bool) {
	if h, ok := n.rememberedSubnet(); ok {
		return h.Subnet.Mode, false
	}
	if m = n.opts.Config.AttachMode(); m == 0 {
		return ipam.ModeBridge, true // what a server of an older version takes it for
	}
	return m, false
}

// modeOf is the mode in which a joining node is admitted.
func (p *parts) modeOf(r peerapi.JoinRequest) (m ipam.Mode, err error) {
	p.store.View(func(s *ipam.State) {
		net, _ := s.Network(ipam.DefaultNetwork)
		switch known, ok := s.Node(r.Node); {
		case ok && !known.Removed:
			m = known.Mode
		case r.ModeImplied:
			m = ipam.ImpliedMode(net.SubnetBits)
		default:
			m, err = r.Mode, carries(r.Mode, net.SubnetBits)
		}
	})
	return m, err
}

// presentMode is the mode that the node is in: as the cluster last confirmed it, else as
// the replica says. One that is in none yet gets the one that it is to have.
func (n *Node) presentMode(ctx context.Context, p *parts) (ipam.Mode, error) {
	if h, ok := n.rememberedSubnet(); ok {
		return h.Subnet.Mode, nil
	}
	if !p.knowsNetwork() {
		// The replica is empty still. What is committed brings it up to date, be it refused.
		if _, err := p.store.Propose(ctx, ipam.Envelope{Commands: []ipam.Command{ipam.ClaimSubnet{Node: n.id.ID, Network: ipam.DefaultNetwork}}}); err != nil {
			return 0, err
		}
	}
	var bits int
	var m ipam.Mode
	p.store.View(func(s *ipam.State) {
		net, _ := s.Network(ipam.DefaultNetwork)
		bits = net.SubnetBits
		if known, ok := s.Node(n.id.ID); ok && !known.Removed {
			m = known.Mode
		}
	})
	if m != 0 {
		return m, nil
	}
	return n.wantedMode(bits)
}

func (p *parts) knowsNetwork() (ok bool) {
	p.store.View(func(s *ipam.State) { _, ok = s.Network(ipam.DefaultNetwork) })
	return ok
}

// register proposes the member and the claim of its subnet. A mode that the node cannot
// change to, for it has leases, gives way to the one that it has.
func (p *parts) register(ctx context.Context, member ipam.RegisterNode) ([]ipam.Result, error) {
	propose := func() ([]ipam.Result, error) {
		return p.store.Propose(ctx, ipam.Envelope{Commands: []ipam.Command{
			member,
			ipam.ClaimSubnet{Node: member.Node, Network: ipam.DefaultNetwork},
		}})
	}
	results, err := propose()
	if err != nil || !errors.Is(results[0].Err, ipam.ErrModeInUse) {
		return results, err
	}
	p.store.View(func(s *ipam.State) {
		if m, ok := s.Node(member.Node); ok {
			member.Mode = m.Mode
		}
	})
	return propose()
}

// setUpHost makes what containers are attached to. Where the kernel has endpoints in the
// other mode than the cluster says, for it was recovered from before the change or the
// node has taken its own place, they decide: what runs goes on.
func (n *Node) setUpHost(ctx context.Context, p *parts) (err error) {
	p.stated = 0
	for {
		if p.net, err = netsetup.New(n.netConfig(p)); err != nil {
			return err
		}
		if err = p.net.Ensure(ctx); !errors.Is(err, netsetup.ErrOtherMode) || p.stated != 0 {
			return err
		}
		p.stated = p.subnet.Mode
		p.subnet.Mode = map[ipam.Mode]ipam.Mode{ipam.ModeBridge: ipam.ModeRouted, ipam.ModeRouted: ipam.ModeBridge}[p.stated]
		n.log.Error("endpoints of the other mode run: going on in theirs", "runs", p.subnet.Mode, "stated", p.stated)
		if err := p.net.Close(); err != nil {
			return err
		}
	}
}

// settleMode changes the node's mode to the one that it is to have, if nothing stands
// against it, and sets the kernel up anew. Nothing else uses the parts yet. later: the
// cluster has not confirmed the subnet.
func (n *Node) settleMode(ctx context.Context, p *parts, later bool) error {
	n.mode.Store(nil)
	want, err := n.wantedMode(p.network.SubnetBits)
	if err != nil {
		n.notInMode(&modeNote{state: api.Err, reason: fmt.Sprintf("%s, though configured otherwise: %v%s", p.subnet.Mode, err, hintOf(err))})
		return nil
	}
	if p.stated != 0 {
		n.notInMode(&modeNote{api.Err, fmt.Sprintf("%s, for containers run in that mode, though the cluster has this node as %s. It changes by itself when none is left: "+
			"stellar node drain %s, remove its containers, then stellar node drain %s --off", p.subnet.Mode, p.stated, n.id.Name, n.id.Name), (*parts).modeFree})
		return nil
	}
	if want == p.subnet.Mode {
		return nil
	}
	used, cooling, err := n.inMode(ctx, p)
	switch {
	case err != nil:
		return err
	case later:
		n.notInMode(&modeNote{api.Warn, fmt.Sprintf("%s, and changes to %s when a leader answers", p.subnet.Mode, want), (*parts).modeFree})
		return nil
	case used+cooling > 0:
		state := api.Err
		if n.opts.Config.AttachMode() == 0 { // nobody waits for it
			state = api.Warn
		}
		n.notInMode(&modeNote{state, fmt.Sprintf("%s, though it is to be %s: %d addresses in use, %d cooling. It changes by itself when none is left: "+
			"stellar node drain %s, remove its containers, then stellar node drain %s --off", p.subnet.Mode, want, used, cooling, n.id.Name, n.id.Name), (*parts).modeFree})
		return nil
	}
	why, err := n.changeMode(ctx, p, want)
	if err != nil {
		return err
	}
	if why != nil {
		again := time.Now().Add(modePause)
		n.notInMode(&modeNote{api.Warn, fmt.Sprintf("%s, and does not change to %s yet: %v", p.subnet.Mode, want, why),
			func(p *parts) bool { return time.Now().After(again) && p.modeFree() }})
	}
	return nil
}

func (n *Node) notInMode(note *modeNote) {
	n.mode.Store(note)
	n.log.Warn("the node is not in the mode that it is to have", "reason", note.reason)
}

// inMode counts what keeps the node in its mode: addresses in use, by what the journal,
// the replica or the kernel says, and those that cool.
func (n *Node) inMode(ctx context.Context, p *parts) (used, cooling int, err error) {
	endpoints, err := p.net.List(ctx)
	if err != nil {
		return 0, 0, err
	}
	c := p.holder.Counts()
	return max(c.Bound+c.Attached, len(endpoints)), c.Cooling, nil
}

// modeFree reports whether the node could change its mode now.
func (p *parts) modeFree() bool {
	c := p.holder.Counts()
	return c.Bound+c.Attached+c.Cooling == 0 && p.store.Stats().Leader != ""
}

// changeMode takes what the old mode has put into the kernel, has the cluster know the
// new one, and sets the kernel up for it. It may die anywhere: the next start takes the
// mode that was confirmed, and comes here again if that is still the old one. It returns
// why the mode is still the old one, and what keeps the node from working at all.
func (n *Node) changeMode(ctx context.Context, p *parts, to ipam.Mode) (why, err error) {
	from := p.subnet.Mode
	why = p.net.Cleanup(ctx)
	if why == nil {
		why = n.confirmMode(ctx, p, to)
	}
	if err := errors.Join(p.holder.Close(), p.net.Close()); err != nil {
		return why, err
	}
	if err := n.prepareKernel(ctx, p); err != nil {
		return why, err
	}
	if why == nil {
		n.log.Info("the node's mode has changed", "from", from, "to", to)
	}
	return why, nil
}

// confirmMode has the cluster know the new mode, and the data directory.
func (n *Node) confirmMode(ctx context.Context, p *parts, to ipam.Mode) error {
	h, err := n.claimOnce(ctx, p, to)
	switch {
	case err != nil:
		return err
	case h.Subnet.Mode != to:
		return ipam.ErrModeInUse
	}
	p.network, p.subnet = h.Network, h.Subnet
	return n.rememberSubnet(h)
}

// awaitMode has the node started anew when what kept it from its mode has gone.
func (n *Node) awaitMode(ctx context.Context, p *parts) error {
	note := n.mode.Load()
	if note == nil || note.ready == nil {
		return nil
	}
	tick := time.NewTicker(modePoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if !note.ready(p) {
			continue
		}
		n.log.Info("the node starts anew to change its mode")
		select {
		case n.restart <- struct{}{}:
		default:
		}
		return nil
	}
}

// checkMode says how containers are attached, and whether that is as configured.
func (n *Node) checkMode(p *parts, add addCheck) {
	if note := n.mode.Load(); note != nil {
		add(modeCheck, note.state, note.reason)
		return
	}
	add(modeCheck, api.OK, p.subnet.Mode.String())
}

// gateway is the next hop of this node's containers.
func (p *parts) gateway() netip.Addr {
	if p.subnet.Mode == ipam.ModeRouted {
		return netsetup.RoutedGateway
	}
	return p.subnet.Gateway()
}
