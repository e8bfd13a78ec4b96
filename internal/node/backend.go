package node

import (
	"context"
	"errors"
	"time"

	"stellar.io/stellar/agent"
	"stellar.io/stellar/api"
	"stellar.io/stellar/api/server"
	"stellar.io/stellar/events"
)

var _ server.Backend = (*Node)(nil)

// ready returns the parts, or an error that says what the node still waits for.
func (n *Node) ready() (*parts, error) {
	p, phase := n.current()
	if p != nil {
		return p, nil
	}
	select {
	case <-n.initialized:
		return nil, api.Errorf(api.CodeNoLeader, "the node is not ready: %s", phase)
	default:
		if err := n.lost(); err != nil {
			return nil, err
		}
		return nil, api.Errorf(api.CodeNotInitialized, "this node belongs to no cluster yet").
			WithHint("make one: stellar cluster init")
	}
}

// Version implements server.Backend.
func (n *Node) Version(context.Context) (api.VersionInfo, error) { return n.opts.Version, nil }

// Endpoints implements server.Backend.
func (n *Node) Endpoints(context.Context) ([]api.Endpoint, error) {
	p, err := n.ready()
	if err != nil {
		return nil, err
	}
	list := p.agent.Endpoints()
	out := make([]api.Endpoint, 0, len(list))
	for _, e := range list {
		out = append(out, n.endpoint(e))
	}
	return out, nil
}

func (n *Node) endpoint(e agent.Endpoint) api.Endpoint {
	return api.Endpoint{
		Namespace: e.Key.Namespace, Container: e.Key.ID, Network: e.Network, Address: e.Address, MAC: e.MAC,
		Node: n.id.Name, Ifname: e.Ifname, HostIfname: e.HostIfname, State: string(e.State), Ready: string(e.Grade),
		Source: e.Source, Reason: e.Reason, Since: e.Since,
	}
}

// Endpoint implements server.Backend.
func (n *Node) Endpoint(_ context.Context, ref api.EndpointRef) (api.EndpointDetail, error) {
	p, err := n.ready()
	if err != nil {
		return api.EndpointDetail{}, err
	}
	e, ok := p.find(ref)
	if !ok {
		return api.EndpointDetail{}, api.Errorf(api.CodeNotFound, "no endpoint of container %s", ref)
	}
	d := api.EndpointDetail{
		Endpoint: n.endpoint(e), Created: e.Created, PID: e.PID, NetNS: e.NetNS, Subnet: p.subnet.Prefix, Gateway: p.gateway(),
		DefaultRoute: e.DefaultRoute, MTU: e.MTU, Hostname: e.Hostname, Strict: e.Strict,
	}
	if e.Reason != "" && d.Up() {
		d.Warnings = []string{e.Reason}
	}
	for _, ph := range e.Phases {
		d.Phases = append(d.Phases, api.Phase{Name: ph.Name, Duration: ph.Duration})
	}
	if held, ok := p.holder.Lookup(e.Owner); ok {
		d.Static, d.Provisional = held.Static, held.Provisional
		d.LeaseState = api.AddressBound
		if held.Attached {
			d.LeaseState = api.AddressAttached
		}
	}
	return d, nil
}

func (p *parts) find(ref api.EndpointRef) (agent.Endpoint, bool) {
	for _, e := range p.agent.Endpoints() {
		if e.Key.Namespace == ref.Namespace && e.Key.ID == ref.Container {
			return e, true
		}
	}
	return agent.Endpoint{}, false
}

// RepairEndpoint implements server.Backend.
func (n *Node) RepairEndpoint(ctx context.Context, ref api.EndpointRef) (api.Repair, error) {
	p, err := n.ready()
	if err != nil {
		return api.Repair{}, err
	}
	if err := p.net.Ensure(ctx); err != nil {
		return api.Repair{}, err
	}
	key := events.Key{Namespace: ref.Namespace, ID: ref.Container}
	before, ok := p.find(ref)
	if !ok || !p.agent.Repair(key) {
		return api.Repair{}, api.Errorf(api.CodeNotFound, "no endpoint of container %s", ref)
	}
	if err := p.agent.Idle(ctx, key); err != nil {
		return api.Repair{}, err
	}
	e, ok := p.find(ref)
	if !ok {
		return api.Repair{}, api.Errorf(api.CodeNotFound, "container %s has gone", ref)
	}
	repaired := []string{}
	if e.State != before.State {
		repaired = append(repaired, string(before.State)+" → "+string(e.State))
	}
	return api.Repair{Endpoint: n.endpoint(e), Repaired: repaired}, nil
}

// checkPatience is how long a scrape waits for a check that asks the leader.
const checkPatience = 200 * time.Millisecond

// checks are those of Status, for a scrape.
func (n *Node) checks() []api.Check {
	ctx, cancel := context.WithTimeout(context.Background(), checkPatience)
	defer cancel()
	r, err := n.Status(ctx)
	if err != nil {
		return nil
	}
	return r.Checks
}

// Status implements server.Backend.
func (n *Node) Status(ctx context.Context) (api.StatusReport, error) {
	p, phase := n.current()
	r := api.StatusReport{Node: n.id.Name}
	add := func(name string, state api.CheckState, reason string) {
		if reason == "" && state != api.OK {
			reason = "not told: the agent's log may say why" // nobody is left without a next step
		}
		r.Checks = append(r.Checks, api.Check{Name: name, State: state, Reason: reason})
	}
	if p == nil {
		add(api.CheckReady, api.Warn, phase)
		add(api.CheckLeader, api.Warn, "no leader yet: the node is not up")
		n.checkCertificate(add)
		if err := n.lost(); err != nil {
			add(storeCheck, api.Err, err.Error()+hintOf(err))
		}
		if err := n.fence.get(); err != nil {
			add(membershipCheck, api.Err, err.Error())
		}
		return r, nil
	}
	r.Cluster = p.clusterID()
	p.checkReady(add)
	p.checkContainerd(add)
	p.checkHold(add)
	p.checkRaft(add)
	p.checkDisk(add)
	n.checkMembership(p, add)
	n.checkReclaim(ctx, p, add)
	n.checkCertificate(add)
	p.checkAddresses(add)
	n.checkMode(p, add)
	p.checkEndpoints(add)
	p.checkNetwork(add)
	return r, nil
}

// hintOf returns an error's hint as the end of a sentence.
func hintOf(err error) string {
	if e, ok := errors.AsType[*api.Error](err); ok && e.Hint != "" {
		return ": " + e.Hint
	}
	return ""
}

func since(t time.Time) string { return time.Since(t).Round(time.Second).String() }
