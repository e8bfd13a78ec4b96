package ipam

import (
	"fmt"
	"net/netip"

	"stellar.io/stellar/ipam/ipampb"
)

// FreeLease ends the cooling of an address after the given owner. When the
// address does not cool after that owner, nothing is left to do and the command
// succeeds; while the owner still holds it, it is refused with ErrLeaseInUse.
type FreeLease struct {
	Fence
	Addr  netip.Addr
	Owner Owner
}

func (c FreeLease) apply(t *tx) Result {
	k, r, sub, err := c.checkLease(t, c.Addr, c.Owner)
	if err != nil {
		return Result{Err: err}
	}
	if r.State != 0 && r.ownerKey() == ownerKey(c.Owner) {
		if r.State.active() {
			return Result{Err: fmt.Errorf("%s of %s is %s: %w", c.Addr, c.Owner, r.State, ErrLeaseInUse)}
		}
		t.removeLease(k, sub)
	}
	return Result{Addr: c.Addr}
}

func (c FreeLease) pb() (*ipampb.Command, error) {
	owner, err := ownerToPB(c.Owner)
	return &ipampb.Command{Kind: &ipampb.Command_FreeLease{FreeLease: &ipampb.FreeLease{
		Fence: fenceToPB(c.Fence), Addr: addrToPB(c.Addr), Owner: owner,
	}}}, err
}

func freeLeaseFromPB(m *ipampb.FreeLease) Command {
	return FreeLease{
		Fence: fenceFromPB(m.GetFence()), Addr: addrFromPB(m.GetAddr()), Owner: ownerFromPB(m.GetOwner()),
	}
}
