package journal

import (
	"fmt"
	"net/netip"

	"stellar.io/stellar/ipam"
)

// Op is what a record tells.
type Op uint8

const (
	// OpBind: Owner holds Addr. It replaces whatever was known of Addr.
	OpBind Op = iota + 1
	// OpRelease: Owner no longer holds Addr, which cools.
	OpRelease
	// OpFree: Addr is nobody's and the replica knows.
	OpFree
	// OpSeq: request numbers below Request.Seq may have been used.
	OpSeq
	// OpReserve: Prefix is kept free for Reason.
	OpReserve
	// OpUnreserve: Prefix is no longer kept free.
	OpUnreserve
)

func (o Op) String() string {
	switch o {
	case OpBind:
		return "bind"
	case OpRelease:
		return "release"
	case OpFree:
		return "free"
	case OpSeq:
		return "seq"
	case OpReserve:
		return "reserve"
	case OpUnreserve:
		return "unreserve"
	}
	return fmt.Sprintf("Op(%d)", uint8(o))
}

// Record is one change. Which fields count depends on Op.
type Record struct {
	Op       Op
	Addr     netip.Addr     // bind, release, free
	Owner    ipam.Owner     // bind, release
	Static   bool           // bind: the owner asked for this very address
	Hostname string         // bind
	Subnet   ipam.SubnetKey // bind, release: the subnet of Addr
	Epoch    ipam.Epoch     // bind, release: the subnet's epoch at that time
	Since    int64          // bind, release: wall clock in ns since 1970, for people only
	Prefix   netip.Prefix   // reserve, unreserve
	Reason   string         // reserve
	// Request names the proposal that replicates the record. With OpBind it is the
	// one of the BindLease; with OpRelease it is set while the outcome of that
	// BindLease is unknown; with OpSeq only Seq counts.
	Request ipam.RequestID
}

// validate tells whether the record means something.
func (r Record) validate() error {
	switch r.Op {
	case OpBind, OpRelease:
		if !r.Addr.IsValid() || r.Owner == (ipam.Owner{}) {
			return fmt.Errorf("%w: %s without address or owner", ErrInvalid, r.Op)
		}
	case OpFree:
		if !r.Addr.IsValid() {
			return fmt.Errorf("%w: free without address", ErrInvalid)
		}
	case OpSeq:
		if r.Request.Seq == 0 {
			return fmt.Errorf("%w: seq 0", ErrInvalid)
		}
	case OpReserve, OpUnreserve:
		if !r.Prefix.IsValid() {
			return fmt.Errorf("%w: %s without prefix", ErrInvalid, r.Op)
		}
	default:
		return fmt.Errorf("%w: %s", ErrInvalid, r.Op)
	}
	return nil
}
