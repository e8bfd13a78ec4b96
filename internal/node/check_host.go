package node

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/server"
	"stellar.io/stellar/internal/check"
	"stellar.io/stellar/internal/hold"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/routes"
)

const (
	// nowTimeout is how long another agent may take to say that it is there: longer than
	// a busy machine's pause, shorter than an operator's patience.
	nowTimeout = 3 * time.Second
	// nowMost bounds for how long all of them together are asked.
	nowMost = 8 * time.Second
)

// CheckHost implements server.HostChecker.
func (n *Node) CheckHost(ctx context.Context, allNodes bool) (api.CheckReport, error) {
	n.checking.Lock()
	own, err := n.checkOwnHost(ctx)
	n.checking.Unlock()
	if err != nil {
		return own, err
	}
	p, _ := n.current()
	if _, forwarded := server.Forwarded(ctx); !allNodes || forwarded || p == nil {
		return own, nil
	}
	var mu sync.Mutex // guards own
	p.eachPeer(ctx, func(m ipam.Node) {
		ctx, cancel := context.WithTimeout(ctx, checkTimeout)
		defer cancel()
		node := api.CheckedNode{Node: m.Name}
		c, err := p.relay(ctx, m.ID, m.Address)
		var r api.CheckReport
		if err == nil {
			r, err = c.CheckHost(ctx, false)
		}
		if err != nil {
			node.Error = err.Error()
		}
		mu.Lock()
		defer mu.Unlock()
		own.Nodes, own.Items = append(own.Nodes, node), append(own.Items, r.Items...)
		for _, note := range r.Notes {
			own.Notes = append(own.Notes, m.Name+": "+note)
		}
	})
	slices.SortFunc(own.Nodes, func(a, b api.CheckedNode) int { return compareText(a.Node, b.Node) })
	return own, nil
}

// eachPeer calls fn for all other members, several at once, and returns when all have
// returned.
func (p *parts) eachPeer(_ context.Context, fn func(ipam.Node)) {
	var members []ipam.Node
	p.store.View(func(s *ipam.State) {
		for m := range s.Nodes() {
			if !m.Removed && m.ID != p.subnet.Node {
				members = append(members, m)
			}
		}
	})
	var tasks sync.WaitGroup
	turns := make(chan struct{}, checkAtOnce)
	for _, m := range members {
		tasks.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			fn(m)
		})
	}
	tasks.Wait()
}

func compareText(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// checkOwnHost collects the facts of this host and judges them.
func (n *Node) checkOwnHost(ctx context.Context) (api.CheckReport, error) {
	cfg := n.opts.Config
	status, err := n.Status(ctx)
	if err != nil {
		return api.CheckReport{}, err
	}
	g := check.Given{
		Node: n.id.Name, Status: status.Checks, Bridge: cfg.Bridge, Masquerade: cfg.Masquerade, DataDir: cfg.DataDir,
		Containerd: check.Containerd{Address: cfg.Containerd.Address}, HoldOff: !cfg.Hold.Enabled, Ptrace: hold.Permitted(),
		Routed: cfg.AttachMode() == ipam.ModeRouted,
	}
	n.askContainerd(ctx, &g)
	if p, _ := n.current(); p != nil {
		n.known(ctx, p, &g)
	} else {
		g.Status = nil // it waits for something, and says so itself
	}
	f, err := check.Collect(ctx, g)
	if err != nil {
		return api.CheckReport{}, err
	}
	return report(f), nil
}

func report(f check.Facts) api.CheckReport {
	return api.CheckReport{Node: f.Node, Time: time.Now(), Items: check.Judge(f), Nodes: []api.CheckedNode{{Node: f.Node}}, Notes: f.Doubts}
}

// askContainerd fills in whether containerd answers, and its version.
func (n *Node) askContainerd(ctx context.Context, g *check.Given) {
	c, err := n.containerd()
	if err == nil {
		defer c.Close()
		ctx, cancel := context.WithTimeout(ctx, nowTimeout)
		defer cancel()
		g.Containerd.Version, err = c.Version(ctx)
		g.Containerd.PID = c.ServerPID()
	}
	if err != nil {
		g.Containerd.Down = err.Error()
	}
}

// known fills in what a member knows.
func (n *Node) known(ctx context.Context, p *parts, g *check.Given) {
	g.Member, g.Wants, g.Gateway = true, p.wants(n.id, n.opts.Config.Bridge)(), p.subnet.Gateway()
	g.Routed, g.MACs = p.subnet.Mode == ipam.ModeRouted, map[netip.Addr]string{}
	for _, e := range p.agent.Endpoints() {
		g.MACs[e.Address] = e.MAC
	}
	if p.port != nil {
		g.Address = p.port.Advertise()
	}
	if up, changed, err := p.agent.Containerd(); !up && err != nil {
		g.Containerd.Down = fmt.Sprintf("%v (for %s)", err, since(changed))
	}
	if p.hold != nil {
		if s := p.hold.Status(); !s.Working && g.Ptrace == "" {
			g.Ptrace = s.Reason
		}
	}
	g.Peers = p.askPeers(ctx, g.Wants)
}

// askPeers asks the agents of all other members what time it is.
func (p *parts) askPeers(ctx context.Context, w routes.Wants) []check.Peer {
	ctx, cancel := context.WithTimeout(ctx, nowMost)
	defer cancel()
	var mu sync.Mutex // guards out
	var out []check.Peer
	p.eachPeer(ctx, func(m ipam.Node) {
		q := peerOf(m.Name, m.Address, w)
		if p.port != nil && q.Address.IsValid() && ctx.Err() == nil {
			q.Asked = true
			ctx, cancel := context.WithTimeout(ctx, nowTimeout)
			defer cancel()
			before := time.Now()
			there, macs, err := p.relayTo(ctx, m.ID, m.Address).Now(ctx)
			took := time.Since(before)
			switch code := api.CodeOf(err); {
			case err == nil:
				q.Ahead, q.Within, q.MACs = there.Sub(before.Add(took/2)), took/2, macs
			case code == api.CodeUnreachable || code == api.CodeTimeout:
				q.Silent = err.Error()
			} // an older agent answers, and does not know the question
		}
		mu.Lock()
		defer mu.Unlock()
		out = append(out, q)
	})
	slices.SortFunc(out, func(a, b check.Peer) int { return compareText(a.Name, b.Name) })
	return out
}

// peerOf is a member with its subnet.
func peerOf(name, address string, w routes.Wants) check.Peer {
	q := check.Peer{Name: name}
	q.Address, _ = netip.ParseAddrPort(address) // without one it is not asked
	for _, r := range w.Peers {
		if r.Node == name && !r.Quarantined {
			q.Subnet = r.Subnet
		}
	}
	return q
}
