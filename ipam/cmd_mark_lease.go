package ipam

import (
	"fmt"
	"net/netip"

	"stellar.io/stellar/ipam/ipampb"
)

// MarkLease tells whether an interface carries the address that the owner holds:
// State is Bound or Attached. It is refused with ErrLeaseNotFound when the owner
// does not hold the address.
type MarkLease struct {
	Fence
	Addr  netip.Addr
	Owner Owner
	State LeaseState
}

func (c MarkLease) apply(t *tx) Result {
	if !c.State.active() {
		return Result{Err: fmt.Errorf("%w: a lease is marked bound or attached", ErrInvalid)}
	}
	k, r, sub, err := c.checkLease(t, c.Addr, c.Owner)
	if err != nil {
		return Result{Err: err}
	}
	if !r.State.active() || r.ownerKey() != ownerKey(c.Owner) {
		return Result{Err: fmt.Errorf("%s of %s: %w", c.Addr, c.Owner, ErrLeaseNotFound)}
	}
	if r.State != c.State {
		r.State = c.State
		t.putLease(k, r, sub)
	}
	return Result{Addr: c.Addr}
}

func (c MarkLease) pb() (*ipampb.Command, error) {
	owner, err := ownerToPB(c.Owner)
	if c.State > Cooling {
		err = fmt.Errorf("%w: %s", ErrInvalid, c.State)
	}
	return &ipampb.Command{Kind: &ipampb.Command_MarkLease{MarkLease: &ipampb.MarkLease{
		Fence: fenceToPB(c.Fence), Addr: addrToPB(c.Addr), Owner: owner, State: ipampb.LeaseState(c.State),
	}}}, err
}

func markLeaseFromPB(m *ipampb.MarkLease) Command {
	return MarkLease{
		Fence: fenceFromPB(m.GetFence()), Addr: addrFromPB(m.GetAddr()), Owner: ownerFromPB(m.GetOwner()),
		State: LeaseState(m.GetState()),
	}
}
