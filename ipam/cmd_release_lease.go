package ipam

import (
	"net/netip"

	"stellar.io/stellar/ipam/ipampb"
)

// ReleaseLease ends the owner's hold on the address, which then cools. When the
// owner does not hold it, nothing is left to do and the command succeeds.
type ReleaseLease struct {
	Fence
	Addr  netip.Addr
	Owner Owner
}

func (c ReleaseLease) apply(t *tx) Result {
	k, r, sub, err := c.checkLease(t, c.Addr, c.Owner)
	if err != nil {
		return Result{Err: err}
	}
	if r.State.active() && r.ownerKey() == ownerKey(c.Owner) {
		r.State = Cooling
		t.putLease(k, r, sub)
	}
	return Result{Addr: c.Addr}
}

func (c ReleaseLease) pb() (*ipampb.Command, error) {
	owner, err := ownerToPB(c.Owner)
	return &ipampb.Command{Kind: &ipampb.Command_ReleaseLease{ReleaseLease: &ipampb.ReleaseLease{
		Fence: fenceToPB(c.Fence), Addr: addrToPB(c.Addr), Owner: owner,
	}}}, err
}

func releaseLeaseFromPB(m *ipampb.ReleaseLease) Command {
	return ReleaseLease{
		Fence: fenceFromPB(m.GetFence()), Addr: addrFromPB(m.GetAddr()), Owner: ownerFromPB(m.GetOwner()),
	}
}
