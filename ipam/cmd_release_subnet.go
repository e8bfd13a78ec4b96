package ipam

import (
	"fmt"
	"net/netip"

	"stellar.io/stellar/ipam/ipampb"
)

// ReleaseSubnet ends a quarantine: the operator vouches that the last holder is
// dead. Its leases go and it may be handed out again. A free subnet stays as it
// is; a held one is refused with ErrSubnetInUse.
type ReleaseSubnet struct {
	Network string
	Prefix  netip.Prefix
}

func (c ReleaseSubnet) apply(t *tx) Result {
	if _, err := t.inNetwork(c.Network); err != nil {
		return Result{Err: err}
	}
	_, sub, ok := t.find(SubnetKey(c))
	switch {
	case !ok:
		return Result{Err: fmt.Errorf("%s: %w", c.Prefix, ErrSubnetNotFound)}
	case sub.State == Held:
		return Result{Err: fmt.Errorf("%s is held by %s: %w", c.Prefix, sub.Node.Short(), ErrSubnetInUse)}
	case sub.State == Quarantined:
		t.freeSubnet(sub)
	}
	return Result{}
}

func (c ReleaseSubnet) pb() (*ipampb.Command, error) {
	return &ipampb.Command{Kind: &ipampb.Command_ReleaseSubnet{ReleaseSubnet: &ipampb.ReleaseSubnet{
		Network: c.Network, Prefix: prefixToPB(c.Prefix),
	}}}, nil
}

func releaseSubnetFromPB(m *ipampb.ReleaseSubnet) Command {
	return ReleaseSubnet{Network: m.GetNetwork(), Prefix: prefixFromPB(m.GetPrefix())}
}
