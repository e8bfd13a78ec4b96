package holder

import (
	"net/netip"
	"time"

	"stellar.io/stellar/ipam"
)

// Held is a lease that an owner holds, bound or attached.
type Held struct {
	Addr     netip.Addr
	Owner    ipam.Owner
	Attached bool   // an interface carries the address
	Static   bool   // the owner asked for this very address
	Hostname string // as given to Bind
	// Provisional: the lease is in the journal, but no leader has confirmed it yet.
	Provisional bool
	Since       time.Time // wall clock of the Bind, for people
}

// BindRequest asks for an address.
type BindRequest struct {
	Owner    ipam.Owner
	Want     netip.Addr // this very address; zero: the holder picks one
	Hostname string
}

// Live is an address that an interface in the kernel carries.
type Live struct {
	Addr  netip.Addr
	Owner ipam.Owner
}

// Counts counts the addresses of the subnet: Total = Bound + Attached + Cooling +
// Reserved + Free.
type Counts struct {
	Total    int
	Bound    int
	Attached int
	Cooling  int // released, not yet free; also those with an unresolved command
	Reserved int
	Free     int
	// Provisional counts the bound and attached ones that no leader has confirmed.
	Provisional int
}
