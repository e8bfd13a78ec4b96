package holder

import (
	"errors"

	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore/journal"
)

// Refusals of the state (ipam.ErrAddressTaken, ipam.ErrAddressReserved,
// ipam.ErrOutOfSubnet, ipam.ErrNoAvailableIP, ipam.ErrOwnerHasAddress, …) and of the
// journal (journal.ErrFailed) come through as they are.
var (
	// ErrNotAdopted is returned before Adopt: what the kernel carries is not known yet.
	ErrNotAdopted = errors.New("holder has not adopted what is running")
	// ErrAdopted is returned by a second Adopt.
	ErrAdopted = errors.New("holder has adopted already")
	// ErrClosed is returned once Run or Close is ending the holder.
	ErrClosed = errors.New("holder is closed")
	// ErrFenced is returned when the subnet no longer belongs to this node at this
	// epoch. It wraps the state's own error. What runs goes on running.
	ErrFenced = errors.New("subnet no longer belongs to this node")
	// ErrUnresolved is returned, with ipam.ErrAddressTaken, for an address with a
	// command whose outcome is not known yet. It may be free soon.
	ErrUnresolved = errors.New("outcome of a command on the address is unknown")
	// ErrConflict is returned by Adopt when the kernel carries one address for two
	// owners, or two addresses for one. Everything else is adopted, and none of
	// these addresses is handed out.
	ErrConflict = errors.New("running interfaces contradict each other")
)

// fencing reports whether a refusal means that the subnet is not ours any more.
func fencing(err error) bool {
	for _, e := range [...]error{
		ipam.ErrStaleEpoch, ipam.ErrWrongNode, ipam.ErrSubnetNotFound,
		ipam.ErrNodeRemoved, ipam.ErrNodeNotFound, ipam.ErrNetworkNotFound,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Unwritable reports whether an error says that the journal cannot be written.
func Unwritable(err error) bool { return errors.Is(err, journal.ErrFailed) }

// Corrupt reports whether Open failed because the journal is damaged.
func Corrupt(err error) bool { return errors.Is(err, journal.ErrCorrupt) }
