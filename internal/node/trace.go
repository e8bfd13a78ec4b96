package node

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/server"
	"stellar.io/stellar/internal/trace"
	"stellar.io/stellar/ipam"
)

var _ server.Tracer = (*Node)(nil)

const (
	// sideTimeout is how long one node may take for its part, without a probe.
	sideTimeout = 10 * time.Second
	// knockTimeout is how long a node that did not answer may take to refuse a connection.
	knockTimeout = time.Second
)

// Trace implements server.Tracer.
func (n *Node) Trace(ctx context.Context, s api.TraceSpec) (api.Trace, error) {
	p, err := n.ready()
	if err != nil {
		return api.Trace{}, err
	}
	from, err := n.traceEnd(p, s.From)
	if err != nil {
		return api.Trace{}, err
	}
	to, err := n.traceEnd(p, s.To)
	if err != nil {
		return api.Trace{}, err
	}
	switch {
	case from.Kind == api.TraceOutside:
		return api.Trace{}, api.Errorf(api.CodeInvalid, "%s is outside of the cluster: a trace begins at a container or a node", from.Address).
			WithHint("`stellar trace " + s.To + " " + s.From + "` shows both directions")
	case from.TraceEnd == to.TraceEnd:
		return api.Trace{}, api.Errorf(api.CodeInvalid, "both ends are %s", from)
	}
	for _, end := range []traceEnd{from, to} {
		if !end.Address.IsValid() {
			return trace.NoAddress(from.TraceEnd, to.TraceEnd, end.TraceEnd, end.state, end.reason), nil
		}
	}
	w := tracing{n: n, p: p, from: from, to: to}
	return w.run(ctx, s.Probe)
}

// tracing is one trace.
type tracing struct {
	n        *Node
	p        *parts
	from, to traceEnd
}

// specs are the questions to the two nodes.
func (w *tracing) specs() (here, there api.TraceSideSpec) {
	here = api.TraceSideSpec{Local: w.from.TraceEnd, Remote: w.to.TraceEnd}
	there = api.TraceSideSpec{Local: w.to.TraceEnd, Remote: w.from.TraceEnd, Answering: true}
	if w.to.Node != w.from.Node {
		here.NextHop, there.NextHop = w.to.ip, w.from.ip
		if !w.p.network.Prefix.Contains(w.to.Address) {
			// Outside the network a container is seen under its host's address.
			there.Remote = api.TraceEnd{Kind: api.TraceHost, Node: w.from.Node, Address: w.from.ip}
		}
	}
	return here, there
}

func (w *tracing) run(ctx context.Context, probe bool) (api.Trace, error) {
	askHere, askThere := w.specs()
	here, err := w.ask(ctx, w.from, askHere)
	if err != nil {
		return api.Trace{}, err
	}
	var there *api.TraceSide
	var silent *trace.Silence
	if w.to.Kind != api.TraceOutside {
		askThere.ArrivalMAC = here.NextHopMAC
		side, err := w.ask(ctx, w.to, askThere)
		if err != nil {
			silent = w.silence(ctx, err)
		} else {
			there, askHere.ArrivalMAC = &side, side.NextHopMAC
		}
	}
	// Once more: to ask the other node the kernel had to look for it.
	if here, err = w.ask(ctx, w.from, askHere); err != nil {
		return api.Trace{}, err
	}
	if probe {
		if here, there, err = w.probe(ctx, here, there, askHere, askThere); err != nil {
			return api.Trace{}, err
		}
	}
	return trace.Join(w.from.TraceEnd, w.to.TraceEnd, &here, there, silent), nil
}

// probe has packets sent and looks at the counters before and after.
func (w *tracing) probe(ctx context.Context, here api.TraceSide, there *api.TraceSide, askHere, askThere api.TraceSideSpec) (api.TraceSide, *api.TraceSide, error) {
	first := [2][]api.TraceCounter{here.Counters}
	var second [2][]api.TraceCounter
	askHere.Probe = true
	after, err := w.ask(ctx, w.from, askHere)
	if err != nil {
		return here, there, err
	}
	first[1] = after.Counters
	if there != nil {
		second[0] = there.Counters
		if again, err := w.ask(ctx, w.to, askThere); err == nil {
			second[1] = again.Counters
		}
	}
	if after.Probe != nil && after.Probe.Received == 0 {
		after.Probe.Vanished = trace.Vanished(after.Probe.Sent, first, second)
	}
	return after, there, nil
}

// ask gets the part of the node that an end is on.
func (w *tracing) ask(ctx context.Context, end traceEnd, s api.TraceSideSpec) (api.TraceSide, error) {
	if end.id == w.n.id.ID {
		return w.n.TraceSide(ctx, s)
	}
	c, err := w.p.relay(ctx, end.id, end.hostPort)
	if err != nil {
		return api.TraceSide{}, err
	}
	if !s.Probe {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, sideTimeout)
		defer cancel()
	}
	return c.TraceSide(ctx, s)
}

// silence says why the far node has not told its part. A host that refuses the
// connection, or takes it and lets it wait, is there; its agent does not work.
func (w *tracing) silence(ctx context.Context, cause error) *trace.Silence {
	s := &trace.Silence{Text: cause.Error()}
	if code := api.CodeOf(cause); code != api.CodeUnreachable && code != api.CodeTimeout {
		return s
	}
	ctx, cancel := context.WithTimeout(ctx, knockTimeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", w.to.hostPort)
	if err == nil {
		conn.Close()
		s.Dead, s.Text = true, "it takes the connection and does not answer"
		return s
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		s.Dead, s.Text = true, "nobody listens on "+w.to.hostPort
	}
	return s
}

// TraceSide implements server.Tracer.
func (n *Node) TraceSide(ctx context.Context, s api.TraceSideSpec) (api.TraceSide, error) {
	p, err := n.ready()
	if err != nil {
		return api.TraceSide{}, err
	}
	f := &trace.Facts{
		Node: n.id.Name, Local: s.Local, Remote: s.Remote, Answering: s.Answering, NextHop: s.NextHop,
		Network: p.network.Prefix, Subnet: p.subnet.Prefix, Gateway: p.gateway(), Masquerade: n.opts.Config.Masquerade, BridgeName: n.opts.Config.Bridge,
		Routed: p.subnet.Mode == ipam.ModeRouted,
	}
	f.SameNode = s.Remote.Kind != api.TraceOutside && s.Remote.Node == n.id.Name
	f.Switched = !f.Routed && f.SameNode && s.Remote.Kind == api.TraceContainer && s.Local.Kind == api.TraceContainer
	if key, ok := p.network.SubnetOf(s.Remote.Address); ok && !f.SameNode && s.Remote.Kind != api.TraceOutside {
		f.PeerSubnet = key.Prefix
	}
	p.store.View(func(st *ipam.State) {
		if m, ok := st.Node(n.id.ID); ok {
			f.HostIP = hostOf(m.Address)
		}
	})
	place := trace.Place{NS: -1, ArrivalMAC: s.ArrivalMAC}
	closeNS := n.place(p, f, &place)
	defer closeNS()
	if f.Switched || f.SameNode && s.Remote.Kind == api.TraceContainer {
		if e, ok := p.endpointAt(s.Remote.Address); ok {
			place.RemoteIfname, place.RemoteMAC = e.HostIfname, e.MAC
		}
	}
	if err := trace.Collect(ctx, f, place); err != nil {
		return api.TraceSide{}, err
	}
	var probe *api.TraceProbe
	if s.Probe {
		if probe, err = sendProbe(ctx, f, place); err != nil {
			return api.TraceSide{}, err
		}
	}
	side := trace.Side(f)
	side.Counters, side.Probe = trace.Counters(f, place), probe
	return *side, nil
}

func sendProbe(ctx context.Context, f *trace.Facts, place trace.Place) (*api.TraceProbe, error) {
	mtu, from := f.Host.Uplink.MTU, netip.Addr{}
	if f.SameNode && f.Routed {
		mtu = f.Host.RemoteEnd.MTU
	} else if f.SameNode {
		mtu = f.Host.Bridge.MTU
	}
	if f.Local.Kind == api.TraceContainer {
		if f.Guest == nil {
			return nil, api.Errorf(api.CodeConflict, "no packets can be sent from %s: %s", f.Local, f.GuestErr)
		}
		mtu, from = f.Guest.Link.MTU, f.Local.Address
	}
	r, err := trace.Probe(ctx, place.NS, from, f.Remote.Address, mtu)
	if err != nil && r.Received == 0 && ctx.Err() == nil && f.Guest != nil && !f.Guest.Has(f.Local.Address) {
		return &r, nil // without its address nothing can be sent under it
	}
	return &r, err
}

// place finds the local container and enters it. The caller calls the result.
func (n *Node) place(p *parts, f *trace.Facts, place *trace.Place) (done func()) {
	done = func() {}
	if f.Local.Kind != api.TraceContainer {
		return done
	}
	e, ok := p.endpointAt(f.Local.Address)
	if !ok {
		f.GuestErr = "no endpoint of this node has " + f.Local.Address.String()
		return done
	}
	f.Local.Namespace, f.Local.Container = e.Key.Namespace, e.Key.ID
	shown := n.endpoint(e)
	f.Endpoint = trace.Endpoint{Known: true, Up: shown.Up(), State: shown.State, Reason: shown.Reason}
	place.Ifname, place.HostIfname, place.MAC = e.Ifname, e.HostIfname, e.MAC
	if e.PID <= 0 {
		f.GuestErr = "it has no process that is known"
		return done
	}
	ns, err := p.net.OpenPID(e.PID, time.Time{})
	if err != nil {
		f.GuestErr = err.Error()
		return done
	}
	place.NS, place.PID = ns.FD(), e.PID
	return func() { ns.Close() }
}
