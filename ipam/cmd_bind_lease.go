package ipam

import (
	"fmt"
	"net/netip"

	"stellar.io/stellar/ipam/ipampb"
)

// BindLease makes the owner the holder of an address and answers Addr. A cooling
// lease of whomever gives way. An owner that holds this address keeps it, attached
// if it was, with Static and Hostname brought up to date. It is refused with
// ErrAddressTaken, ErrAddressReserved, ErrOutOfSubnet, with ErrOwnerHasAddress
// (and Addr) when the owner holds another address, and when the fence is wrong.
type BindLease struct {
	Fence
	Addr     netip.Addr
	Owner    Owner
	Static   bool
	Hostname string
}

// Validate returns ErrInvalid for an owner or a host name that is always refused.
func (c BindLease) Validate() error {
	if !plainText(c.Hostname, maxHostname) {
		return fmt.Errorf("%w: host name", ErrInvalid)
	}
	return c.Owner.validate()
}

func (c BindLease) apply(t *tx) Result {
	if err := c.Validate(); err != nil {
		return Result{Err: err}
	}
	k, old, sub, err := c.checkLease(t, c.Addr, c.Owner)
	if err != nil {
		return Result{Err: err}
	}
	if r, ok := t.reserved(c.Subnet.Network, addrPrefix(c.Addr)); ok {
		return Result{Err: fmt.Errorf("%s (%s): %w", c.Addr, r.Reason, ErrAddressReserved)}
	}
	r := newLeaseRecord(c.Owner, c.Hostname)
	r.State, r.Static = Bound, c.Static
	if has, ok := t.byOwner[r.ownerKey()]; ok && has != k {
		a := uintToAddr(has.Addr)
		return Result{Addr: a, Err: fmt.Errorf("%s has %s: %w", c.Owner, a, ErrOwnerHasAddress)}
	}
	if old.State.active() {
		if old.ownerKey() != r.ownerKey() {
			return Result{Err: fmt.Errorf("%s by %s: %w", c.Addr, old.owner(), ErrAddressTaken)}
		}
		if old.Static == c.Static && old.hostname() == c.Hostname {
			return Result{Addr: c.Addr}
		}
		r.State = old.State
	}
	t.putLease(k, r, sub)
	return Result{Addr: c.Addr}
}

func (c BindLease) pb() (*ipampb.Command, error) {
	owner, err := ownerToPB(c.Owner)
	return &ipampb.Command{Kind: &ipampb.Command_BindLease{BindLease: &ipampb.BindLease{
		Fence: fenceToPB(c.Fence), Addr: addrToPB(c.Addr), Owner: owner,
		Static: c.Static, Hostname: c.Hostname,
	}}}, err
}

func bindLeaseFromPB(m *ipampb.BindLease) Command {
	return BindLease{
		Fence: fenceFromPB(m.GetFence()), Addr: addrFromPB(m.GetAddr()), Owner: ownerFromPB(m.GetOwner()),
		Static: m.GetStatic(), Hostname: m.GetHostname(),
	}
}
