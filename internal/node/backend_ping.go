package node

import (
	"context"
	"fmt"
	"time"

	"stellar.io/stellar/agent"
	"stellar.io/stellar/api"
	"stellar.io/stellar/api/server"
	"stellar.io/stellar/internal/ping"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/netsetup"
)

var _ server.Connectivity = (*Node)(nil)

// Ping implements server.Connectivity.
func (n *Node) Ping(ctx context.Context, r api.PingRequest, send func(api.PingMessage) error) error {
	p, err := n.ready()
	if err != nil {
		return err
	}
	d := n.directory(ctx, p)
	from := place{node: n.id.ID}
	if r.From != "" {
		if from, err = d.source(r.From); err != nil {
			return err
		}
	}
	to, err := d.target(r.Target)
	if err != nil {
		return err
	}
	if from.node != n.id.ID {
		return p.pingFrom(ctx, from, to, r, send)
	}
	s, err := n.socket(ctx, p, from.ref, false)
	if err != nil {
		return err
	}
	defer s.Close()
	start := api.PingStart{Node: n.id.Name, Target: to.name, Address: to.address}
	if from.ref != (api.EndpointRef{}) {
		start.From = from.name
	}
	if err := send(api.PingMessage{Start: &start}); err != nil {
		return err
	}
	o := ping.Options{Target: to.address, Count: r.Count, Interval: r.Interval, Wait: r.Wait, Size: r.Size}
	return s.Run(ctx, o, func(got ping.Result) error {
		return send(api.PingMessage{Reply: &api.PingReply{
			Seq: got.Seq, From: got.From, Bytes: got.Bytes, TTL: got.TTL, RTT: api.Millis(got.RTT), Problem: got.Problem,
		}})
	})
}

// pingFrom has another node send the requests.
func (p *parts) pingFrom(ctx context.Context, from, to place, r api.PingRequest, send func(api.PingMessage) error) error {
	c, err := p.relay(ctx, from.node, p.addressOf(from.node))
	if err != nil {
		return err
	}
	r.From, r.Target = from.name, to.address.String() // which that node need not know by the same name
	return c.Ping(ctx, r, func(m api.PingMessage) error {
		if m.Start != nil {
			m.Start.Target = to.name
		}
		return send(m)
	})
}

// addressOf returns where a node is reached, "" when that is not known.
func (p *parts) addressOf(id ipam.NodeID) (address string) {
	p.store.View(func(s *ipam.State) {
		if m, ok := s.Node(id); ok {
			address = m.Address
		}
	})
	return address
}

// socket opens a socket in the namespace of an endpoint of this node, or for the zero
// ref in the host's. The caller closes it.
func (n *Node) socket(ctx context.Context, p *parts, ref api.EndpointRef, dontFragment bool) (*ping.Socket, error) {
	if ref == (api.EndpointRef{}) {
		return ping.Open(dontFragment)
	}
	ns, err := p.namespace(ctx, ref)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	return socketIn(ns, dontFragment)
}

func socketIn(ns *netsetup.Namespace, dontFragment bool) (s *ping.Socket, err error) {
	err = ns.Do(func() error {
		s, err = ping.Open(dontFragment)
		return err
	})
	return s, err
}

// namespace opens an endpoint's network namespace: through the gate, and only if the
// endpoint's own interface leads there. The caller closes it.
func (p *parts) namespace(ctx context.Context, ref api.EndpointRef) (*netsetup.Namespace, error) {
	e, ok := p.findEndpoint(ref)
	if !ok {
		return nil, api.Errorf(api.CodeNotFound, "no endpoint of container %s on this node", ref)
	}
	var ns *netsetup.Namespace
	var err error
	switch path := p.agent.NetNSPath(e.Owner); {
	case e.PID != 0:
		ns, err = p.net.OpenPID(e.PID, time.Now())
	case path != "":
		ns, err = p.net.OpenPath(path)
	default:
		return nil, api.Errorf(api.CodeConflict, "the network namespace of %s is not known: it is %s", ref, e.State).
			WithHint("`stellar endpoint inspect " + ref.String() + "` says more")
	}
	if err != nil {
		return nil, attachmentError(fmt.Errorf("%s: %w", ref, err))
	}
	there, ok, err := p.net.EndpointIn(ctx, ns)
	if err == nil && (!ok || there.Addr != e.Address) {
		err = api.Errorf(api.CodeConflict, "the interface of %s is not in its network namespace", ref).
			WithHint("`stellar endpoint repair " + ref.String() + "` puts it right")
	}
	if err != nil {
		ns.Close()
		return nil, err
	}
	return ns, nil
}

// findEndpoint is find, by the interface, too, if the ref has one.
func (p *parts) findEndpoint(ref api.EndpointRef) (agent.Endpoint, bool) {
	for _, e := range p.agent.Endpoints() {
		if e.Key.Namespace == ref.Namespace && e.Key.ID == ref.Container && (ref.Ifname == "" || e.Ifname == ref.Ifname) {
			return e, true
		}
	}
	return agent.Endpoint{}, false
}
