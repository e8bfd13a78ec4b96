package node

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"stellar.io/stellar/agent"
	"stellar.io/stellar/api"
	"stellar.io/stellar/internal/pki"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore"
	"stellar.io/stellar/routes"
)

type addCheck func(name string, state api.CheckState, reason string)

// clusterID is as the certificate says, for the replica of a node that nobody speaks
// to any more may be empty.
func (p *parts) clusterID() (id string) {
	if p.tls != nil {
		if own, ok := p.tls.Identity(); ok {
			return own.Cluster
		}
	}
	p.store.View(func(s *ipam.State) {
		if c, ok := s.Cluster(); ok {
			id = c.ID
		}
	})
	return id
}

func (p *parts) settled() bool {
	select {
	case <-p.agent.Settled():
		return true
	default:
		return false
	}
}

// checkReady: containerd is connected, the first round is over, the subnet is held.
func (p *parts) checkReady(add addCheck) {
	up, _, _ := p.agent.Containerd()
	switch {
	case p.settled():
		add(api.CheckReady, api.OK, "")
	case up:
		add(api.CheckReady, api.Warn, "the first round over the containers is not over yet")
	default:
		add(api.CheckReady, api.Warn, "waiting for containerd (is it running? systemctl status containerd)")
	}
}

func (p *parts) checkContainerd(add addCheck) {
	up, changed, err := p.agent.Containerd()
	switch {
	case up:
		add("containerd", api.OK, "connected for "+since(changed))
	case err != nil:
		add("containerd", api.Warn, fmt.Sprintf("away for %s: %v (running containers keep their networks)", since(changed), err))
	default:
		add("containerd", api.Warn, "not reached yet: new containers get no network (is it running? systemctl status containerd)")
	}
}

func (p *parts) checkRaft(add addCheck) {
	s := p.store.Stats()
	switch {
	case s.FSMError != nil:
		add("raft", api.Err, fmt.Sprintf("stopped: %v (%s)", s.FSMError, stoppedHint(s.FSMError)))
	case s.State == "following" && s.Following == "":
		add("raft", api.Warn, "follows no server at present: none is reached, it goes on with what it knows")
	case s.State == "following":
		add("raft", api.OK, fmt.Sprintf("follows %s, %d behind, index %d", p.nameOf(s.Following), s.Behind, s.AppliedIndex))
	default:
		add("raft", api.OK, fmt.Sprintf("%s, term %d, index %d", s.State, s.Term, s.AppliedIndex))
	}
	if s.Leader == "" {
		add(api.CheckLeader, api.Warn, p.leaderless())
	} else {
		add(api.CheckLeader, api.OK, "")
	}
}

// leaderless says what goes on without a leader, and who could become one.
func (p *parts) leaderless() string {
	var voters []string
	for _, other := range p.store.Peers() {
		if other.Voter {
			voters = append(voters, cmp.Or(other.Node, other.ID.Short()))
		}
	}
	slices.Sort(voters)
	return fmt.Sprintf("no leader answers: containers get their networks, membership waits; it takes %d of the voters %s (stellar raft peers)",
		len(voters)/2+1, strings.Join(voters, ", "))
}

// stoppedHint says what to do about a state that has stopped.
func stoppedHint(err error) string {
	if errors.Is(err, raftstore.ErrCorrupt) {
		return "restart the agent: it sets the damaged store aside and says how to join again"
	}
	return "upgrade this node, or restore a backup"
}

// checkCertificate says whether the other nodes still believe this one.
func (n *Node) checkCertificate(add addCheck) {
	tls := n.tls.Load()
	if tls == nil {
		return
	}
	const name = "certificate"
	switch err := tls.Check(); {
	case errors.Is(err, pki.ErrExpired):
		add(name, api.Err, err.Error()+". If this one is right: no other node speaks to this node; join again with a fresh token: stellar cluster join HOST:PORT --token-file FILE")
	case err != nil:
		add(name, api.Err, err.Error())
	default:
		until, _ := tls.Expires()
		add(name, api.OK, "until "+until.UTC().Format(time.DateTime))
	}
}

// fullAt is the share of a subnet in use at which a person should know.
const fullAt = 0.9

func (p *parts) checkAddresses(add addCheck) {
	c := p.holder.Counts()
	total := c.Bound + c.Attached + c.Cooling + c.Free
	text := fmt.Sprintf("%s: %d used, %d cooling, %d free", p.subnet.Prefix, c.Bound+c.Attached, c.Cooling, c.Free)
	switch {
	case c.Provisional > 0:
		add("addresses", api.Warn, fmt.Sprintf("%s, %d not replicated yet", text, c.Provisional))
	case c.Free == 0:
		add("addresses", api.Err, text+": new containers are rejected")
	case float64(total-c.Free) >= fullAt*float64(total):
		add("addresses", api.Warn, text+": nearly full (stellar ipam check finds what is held in vain)")
	default:
		add("addresses", api.OK, text)
	}
}

func (p *parts) checkEndpoints(add addCheck) {
	count := map[agent.State]int{}
	for _, e := range p.agent.Endpoints() {
		count[e.State]++
	}
	text := fmt.Sprintf("%d attached, %d without a task", count[agent.StateAttached]+count[agent.StateProvisional]+count[agent.StateShared], count[agent.StateBound])
	bad := count[agent.StateRejected] + count[agent.StateRetrying]
	if bad == 0 {
		add("endpoints", api.OK, text)
		return
	}
	add("endpoints", api.Warn, fmt.Sprintf("%s, %d rejected, %d retrying (stellar endpoint ls -o wide)", text, count[agent.StateRejected], count[agent.StateRetrying]))
}

func (p *parts) checkNetwork(add addCheck) {
	for _, s := range p.routes.Status() {
		if s.State != routes.OK {
			add("network", api.Warn, fmt.Sprintf("route %s is %s: %s", s.Destination, s.State, s.Reason))
			return
		}
	}
	for _, c := range p.routes.Conditions() {
		add("network", api.Warn, fmt.Sprintf("%s, %s: %s", c.Name, c.Subject, c.Reason))
		return
	}
	add("network", api.OK, "")
}

// wants returns what this node's routes follow from.
func (p *parts) wants(id Identity, bridge string) func() routes.Wants {
	return func() routes.Wants {
		w := routes.Wants{Network: p.network.Prefix, Subnet: p.subnet.Prefix, Device: device(p.subnet.Mode, bridge), Node: id.Name, Complete: p.confirmed.Load(), Reclaim: p.reclaiming()}
		if p.port != nil {
			w.Address = p.port.Advertise().Addr()
		}
		p.store.View(func(s *ipam.State) { addPeers(s, id.ID, &w) })
		return w
	}
}

// device is what the containers of a node in mode are behind, "" without a bridge.
func device(mode ipam.Mode, bridge string) string {
	if mode == ipam.ModeRouted {
		return ""
	}
	return bridge
}

// applied has the routes compared when an entry concerns them. It is called by
// the store's own goroutine.
func (p *parts) applied(_ uint64, deltas []ipam.Delta) {
	m := p.routesReady.Load()
	if m == nil {
		return
	}
	if len(deltas) == 0 { // another state has taken its place
		select {
		case p.replaced <- struct{}{}:
		default:
		}
		m.Changed()
		p.holder.Audit()
		return
	}
	changed := false
	for _, d := range deltas {
		switch d := d.(type) {
		case ipam.SubnetPut:
			changed = true
			p.log.Debug("subnet changed", "subnet", d.Subnet.Prefix, "state", d.Subnet.State, "node", d.Subnet.Node.Short())
		case ipam.NodePut, ipam.NetworkPut:
			changed = true
		}
	}
	if changed {
		m.Changed()
	}
}
