package node

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/server"
	"stellar.io/stellar/ipam"
)

const (
	// checkTimeout is how long one node may take to check itself.
	checkTimeout = 20 * time.Second
	// checkAtOnce bounds how many nodes are asked at the same time.
	checkAtOnce = 32
	// checkStrays bounds the addresses of a report that other nodes are asked about.
	checkStrays = 256
)

// Check implements server.Backend. A request that another node has passed on is about
// this one.
func (n *Node) Check(ctx context.Context, thisNode bool) (api.IpamReport, error) {
	p, err := n.ready()
	if err != nil {
		return api.IpamReport{}, err
	}
	own, err := n.checkSelf(ctx, p)
	if _, forwarded := server.Forwarded(ctx); thisNode || forwarded {
		return own, err
	}
	reports := map[ipam.NodeID]api.IpamReport{n.id.ID: own}
	failed := map[ipam.NodeID]error{}
	if err != nil {
		failed[n.id.ID] = err
	}
	n.checkOthers(ctx, p, reports, failed)
	out := api.IpamReport{Time: time.Now(), Node: n.id.Name, Problems: []api.IpamProblem{}}
	for id, r := range reports {
		part := api.IpamNodeCheck{Node: p.nameOf(id), Checked: r.Checked}
		if err := failed[id]; err != nil {
			part.Error = err.Error()
		}
		out.Nodes = append(out.Nodes, part)
		out.Checked += r.Checked
		for _, problem := range r.Problems {
			problem.Node = part.Node
			out.Problems = append(out.Problems, problem)
		}
	}
	n.findDoubles(ctx, p, out.Problems)
	return out, nil
}

// checkOthers asks all other members at once.
func (n *Node) checkOthers(ctx context.Context, p *parts, reports map[ipam.NodeID]api.IpamReport, failed map[ipam.NodeID]error) {
	members := map[ipam.NodeID]string{}
	p.store.View(func(s *ipam.State) {
		for m := range s.Nodes() {
			if !m.Removed && m.ID != n.id.ID {
				members[m.ID] = m.Address
			}
		}
	})
	var mu sync.Mutex // guards reports and failed
	var tasks sync.WaitGroup
	turns := make(chan struct{}, checkAtOnce)
	for id, address := range members {
		tasks.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			ctx, cancel := context.WithTimeout(ctx, checkTimeout)
			defer cancel()
			var r api.IpamReport
			c, err := p.relay(ctx, id, address)
			if err == nil {
				r, err = c.CheckIpam(ctx, true)
			}
			mu.Lock()
			defer mu.Unlock()
			reports[id] = r
			if err != nil {
				failed[id] = err
			}
		})
	}
	tasks.Wait()
}

// findDoubles looks up who has the addresses that nodes carry without holding them:
// one that somebody else holds is on two nodes.
func (n *Node) findDoubles(ctx context.Context, p *parts, problems []api.IpamProblem) {
	asked := 0
	for i := range problems {
		problem := &problems[i]
		if problem.Kind != "orphaned" || asked == checkStrays {
			continue
		}
		asked++
		a, err := n.addressAt(ctx, p, problem.Address)
		if err != nil || a.Owner == nil || a.Node == problem.Node || a.State == api.AddressCooling || a.State == api.AddressFree {
			continue
		}
		problem.Kind = "doubled"
		problem.Message += fmt.Sprintf(", and node %s has it %s by %s/%s", a.Node, a.State, a.Owner.Namespace, a.Owner.Container)
	}
}

// addressAt asks the holder of an address's subnet about it; where it does not answer,
// the replica.
func (n *Node) addressAt(ctx context.Context, p *parts, addr netip.Addr) (api.Address, error) {
	if c, err := p.toHolder(ctx, netip.PrefixFrom(addr, addr.BitLen())); err == nil && c != nil && !p.subnet.Prefix.Contains(addr) {
		ctx, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		if a, err := c.Address(ctx, addr); err == nil {
			return a, nil
		}
	}
	return n.Address(ctx, addr)
}

// checkSelf holds leases, journal, kernel and containers of this node against each
// other.
func (n *Node) checkSelf(ctx context.Context, p *parts) (api.IpamReport, error) {
	c := comparison{report: api.IpamReport{Time: time.Now(), Node: n.id.Name, Problems: []api.IpamProblem{}}}
	held := p.holder.All() // before the rest: what is bound meanwhile is no problem
	replica := map[netip.Addr]ipam.Lease{}
	var invariant error
	var subnet ipam.Subnet
	p.store.View(func(s *ipam.State) {
		invariant = s.Check()
		subnet, _ = s.Subnet(p.subnet.SubnetKey)
		for l := range s.Leases(p.subnet.SubnetKey) {
			replica[l.Addr] = l
		}
	})
	endpoints, err := p.net.List(ctx)
	if err != nil {
		return c.report, err
	}
	if invariant != nil {
		c.problem("inconsistent", netip.Addr{}, ipam.Owner{}, false, invariant.Error())
	}
	if subnet.State != 0 && (subnet.Node != n.id.ID || subnet.Epoch != p.subnet.Epoch) {
		c.problem("disputed", p.subnet.Prefix.Addr(), ipam.Owner{}, false, fmt.Sprintf("subnet %s is served here at epoch %s; the replicated state says %s by %s at %s",
			p.subnet.Prefix, p.subnet.Epoch, subnet.State, p.nameOf(subnet.Node), subnet.Epoch))
	}
	c.run(held, replica, endpoints, func(o ipam.Owner) (bool, error) { return p.exists(ctx, o) })
	c.report.Problems = p.still(c.report.Problems)
	c.report.Nodes = []api.IpamNodeCheck{{Node: n.id.Name, Checked: c.report.Checked}}
	return c.report, nil
}

// exists reports whether an owner's container is there, as the agent knows, or else as
// containerd says.
func (p *parts) exists(ctx context.Context, o ipam.Owner) (bool, error) {
	if p.agent.Knows(o) {
		return true, nil
	}
	return p.agent.Exists(ctx, o)
}

// still drops the problems that have gone already: the four records were not read at
// one moment.
func (p *parts) still(problems []api.IpamProblem) []api.IpamProblem {
	out := problems[:0]
	for _, problem := range problems {
		if !problem.Address.IsValid() || !p.subnet.Prefix.Contains(problem.Address) || problem.Kind == "disputed" {
			out = append(out, problem)
			continue
		}
		held, ok := p.holder.LookupAddr(problem.Address)
		same := problem.Owner != nil && ok && owner(held.Owner).Equal(*problem.Owner)
		switch problem.Kind {
		case "leaked", "unproven", "unreplicated":
			if !same || problem.Kind == "unreplicated" && held.Provisional {
				continue
			}
		case "orphaned", "forgotten":
			if same {
				continue
			}
		}
		out = append(out, problem)
	}
	return out
}
