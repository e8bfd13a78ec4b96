package apitest

import (
	"context"
	"net/netip"
	"time"

	"stellar.io/stellar/api"
)

// connectivity is what the backend says of paths.
type connectivity struct {
	lost   map[netip.Addr]string // address → what is said instead of a reply
	report api.ConnectivityReport
	pace   time.Duration // of progress
}

// Drop makes an address answer with a problem from now on; "" makes it reply again.
func (b *Backend) Drop(a netip.Addr, problem string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.paths.lost == nil {
		b.paths.lost = map[netip.Addr]string{}
	}
	b.paths.lost[a] = problem
}

// SetConnectivity is what a test will report, after a few steps with pace between them.
func (b *Backend) SetConnectivity(r api.ConnectivityReport, pace time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.paths.report, b.paths.pace = r, pace
}

// place finds an endpoint, a node or an address.
func (b *Backend) place(s string) (name string, a netip.Addr, err error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return s, a, nil
	}
	ref := api.ParseEndpointRef(s)
	for _, e := range b.endpoints {
		if e.Container == ref.Container && (ref.Namespace == "" || ref.Namespace == e.Namespace) {
			return e.Namespace + "/" + e.Container, e.Address, nil
		}
	}
	for n := range b.state.Nodes() {
		if n.Name == s {
			host, _ := netip.ParseAddrPort(n.Address)
			return s, host.Addr(), nil
		}
	}
	return "", netip.Addr{}, api.Errorf(api.CodeNotFound, "%q is no container, node or address", s).WithHint("`stellar ps` and `stellar node ls` show them")
}

// Ping implements server.Connectivity. The n-th reply takes n tenths of a millisecond.
func (b *Backend) Ping(ctx context.Context, r api.PingRequest, send func(api.PingMessage) error) error {
	unlock, err := b.begin("Ping")
	var target, from string
	var address netip.Addr
	if err == nil {
		target, address, err = b.place(r.Target)
	}
	if err == nil && r.From != "" {
		from, _, err = b.place(r.From)
	}
	unlock()
	if err != nil {
		return err
	}
	if err := send(api.PingMessage{Start: &api.PingStart{Node: NodeName, From: from, Target: target, Address: address}}); err != nil {
		return err
	}
	for seq := 1; r.Count == 0 || seq <= r.Count; seq++ {
		b.mu.Lock()
		problem := b.paths.lost[address]
		b.mu.Unlock()
		reply := api.PingReply{Seq: seq, Problem: problem}
		if problem == "" {
			reply.From, reply.Bytes, reply.TTL, reply.RTT = address, r.Size+8, 64, api.Millis(seq*int(100*time.Microsecond))
		}
		if err := send(api.PingMessage{Reply: &reply}); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(r.Interval):
		}
	}
	return nil
}

// TestConnectivity implements server.Connectivity.
func (b *Backend) TestConnectivity(ctx context.Context, _ api.ConnectivityTest, send func(api.ConnectivityMessage) error) error {
	unlock, err := b.begin("TestConnectivity")
	paths := b.paths
	unlock()
	if err != nil {
		return err
	}
	const steps = 3
	for i := range steps {
		if err := send(api.ConnectivityMessage{Progress: &api.ConnectivityProgress{Phase: "testing", Done: i, Total: steps}}); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(paths.pace):
		}
	}
	return send(api.ConnectivityMessage{Report: &paths.report})
}

// LendEndpoints implements server.Connectivity.
func (b *Backend) LendEndpoints(ctx context.Context, _ bool, limit time.Duration, send func(api.ConnectivityLoan) error) error {
	unlock, err := b.begin("LendEndpoints")
	unlock()
	if err == nil {
		err = send(api.ConnectivityLoan{ID: "loan", Node: api.ConnectivityNode{Node: NodeName}})
	}
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-time.After(limit):
	}
	return nil
}

// GiveBackEndpoints implements server.Connectivity.
func (b *Backend) GiveBackEndpoints(context.Context, string) error {
	unlock, err := b.begin("GiveBackEndpoints")
	defer unlock()
	return err
}

// ProbePaths implements server.Connectivity.
func (b *Backend) ProbePaths(_ context.Context, probes []api.ConnectivityProbe, send func(api.ConnectivityProbed) error) error {
	unlock, err := b.begin("ProbePaths")
	unlock()
	for _, p := range probes {
		if err == nil {
			err = send(api.ConnectivityProbed{ID: p.ID, Sent: 3, Received: 3, RTT: api.Millis(time.Millisecond), MTU: p.MTU})
		}
	}
	return err
}
