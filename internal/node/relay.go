package node

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"time"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/client"
	"stellar.io/stellar/api/server"
	"stellar.io/stellar/ipam"
)

// relayPatience is how long another node may take to answer at all before an
// operator's request is not passed on to it.
const relayPatience = 3 * time.Second

// relay returns a client that passes the operator's request of ctx on to another
// node, which has been seen to answer: who cannot be reached was asked for nothing.
// A request that came from another node goes no further.
func (p *parts) relay(ctx context.Context, id ipam.NodeID, address string) (*client.Client, error) {
	name := p.nameOf(id)
	if by, ok := server.Forwarded(ctx); ok {
		return nil, api.Errorf(api.CodeConflict, "this is for node %s, and was passed on by %s already", name, by.Name).
			WithHint("the cluster changes just now: try again")
	}
	if p.port == nil {
		return nil, unreachable(name, errors.New("this node has no address for other nodes"))
	}
	if address == "" {
		return nil, unreachable(name, errors.New("it has no address"))
	}
	c := p.relayTo(ctx, id, address)
	probe, cancel := context.WithTimeout(ctx, relayPatience)
	defer cancel()
	_, err := c.Version(probe)
	switch {
	case err == nil:
		return c, nil
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	}
	return nil, unreachable(name, err)
}

func (p *parts) relayTo(ctx context.Context, id ipam.NodeID, address string) *client.Client {
	if _, hostPort, ok := strings.Cut(address, "@"); ok {
		address = hostPort
	}
	return client.NewRelay(client.Relay{HTTP: p.port.HTTPClient(id), Base: "https://" + address, Name: p.nameOf(id), For: server.Origin(ctx)})
}

func unreachable(name string, err error) error {
	return api.Errorf(api.CodeUnreachable, "node %s, whose decision it is, cannot be reached: %w", name, err).
		WithHint("`stellar node ls` shows which nodes answer; run the command when it is back")
}

// toHolder returns a client for the node that holds the subnet around a single
// address, nil when nobody else does: then the state decides. A part of somebody's
// subnet that is larger than one address is refused.
func (p *parts) toHolder(ctx context.Context, block netip.Prefix) (*client.Client, error) {
	var sub ipam.Subnet
	var holder ipam.Node
	p.store.View(func(s *ipam.State) {
		key, ok := p.network.SubnetOf(block.Addr())
		if !ok || block.Bits() <= key.Prefix.Bits() {
			return
		}
		if sub, ok = s.Subnet(key); ok && sub.State == ipam.Held {
			holder, _ = s.Node(sub.Node)
		}
	})
	switch {
	case holder.ID == "" || holder.Removed:
		return nil, nil
	case !block.IsSingleIP():
		return nil, partOfSubnet(block, sub.Prefix, "node "+holder.Name+"'s")
	}
	return p.relay(ctx, holder.ID, holder.Address)
}

// partOfSubnet refuses what is neither one address nor whole subnets.
func partOfSubnet(block, subnet netip.Prefix, whose string) error {
	return api.Errorf(api.CodeInvalid, "%s is a part of %s subnet %s: name single addresses, or whole subnets that nobody holds", block, whose, subnet)
}
