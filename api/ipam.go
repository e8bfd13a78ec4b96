package api

import (
	"net/netip"
	"time"
)

// Subnet is a block that a node holds, with the use of its addresses.
type Subnet struct {
	Network  string       `json:"network"`
	Subnet   netip.Prefix `json:"subnet"`
	Node     string       `json:"node"`
	Epoch    string       `json:"epoch"` // generation.counter
	Used     int          `json:"used"`
	Free     int          `json:"free"`
	Cooling  int          `json:"cooling"`
	Reserved int          `json:"reserved"`
	State    string       `json:"state"`
}

// Owner is what holds an address.
type Owner struct {
	Kind      string    `json:"kind"` // container, cni or manual
	Namespace string    `json:"namespace"`
	Container string    `json:"container"`
	Ifname    string    `json:"ifname"`
	Created   time.Time `json:"created,omitzero"`
}

// States of an address.
const (
	AddressFree     = "free"
	AddressBound    = "bound"
	AddressAttached = "attached"
	AddressCooling  = "cooling"
	AddressReserved = "reserved"
)

// Address is everything about one address.
type Address struct {
	Address     netip.Addr   `json:"address"`
	Subnet      netip.Prefix `json:"subnet"` // zero: nobody holds its subnet
	Node        string       `json:"node"`
	State       string       `json:"state"`
	Owner       *Owner       `json:"owner,omitempty"` // nil: none
	Static      bool         `json:"static"`
	Provisional bool         `json:"provisional"`
	Hostname    string       `json:"hostname,omitempty"`
	Reason      string       `json:"reason,omitempty"` // why it is reserved
	Since       time.Time    `json:"since,omitzero"`
}

// Reservation keeps a block from being handed out; a single address is a block
// of its own.
type Reservation struct {
	Prefix netip.Prefix
	Reason string
}

// States of a subnet.
const (
	SubnetHeld        = "held"
	SubnetQuarantined = "quarantined" // its holder was removed by force and may still be alive
	SubnetFree        = "free"        // held once, and to be handed out again
)

// Release names what is to be let go: a reservation made with exactly Prefix,
// the lease of that single address, or the quarantine of that subnet.
type Release struct {
	Prefix netip.Prefix
	// Owner guards against a change since the caller looked: when it is set and
	// the lease has another owner, nothing is released.
	Owner *Owner
}

// IpamReport is what a comparison of leases, journal, kernel and containerd found.
type IpamReport struct {
	Time     time.Time     `json:"time"`
	Node     string        `json:"node"`
	Checked  int           `json:"checked"` // leases compared
	Problems []IpamProblem `json:"problems"`
	// Nodes are those that were asked, by name.
	Nodes []IpamNodeCheck `json:"nodes"`
}

// IpamNodeCheck is one node's part in a report.
type IpamNodeCheck struct {
	Node    string `json:"node"`
	Checked int    `json:"checked"`
	Error   string `json:"error,omitempty"` // why it was not checked
}

// IpamProblem is one disagreement.
type IpamProblem struct {
	// Kind is a stable word: leaked, doubled, orphaned, forgotten, disputed,
	// unreplicated, unproven or inconsistent.
	Kind    string     `json:"kind"`
	Node    string     `json:"node"` // that found it
	Address netip.Addr `json:"address"`
	Owner   *Owner     `json:"owner,omitempty"`
	Message string     `json:"message"`
	// Releasable: releasing Address from Owner would mend it.
	Releasable bool `json:"releasable"`
}

// Equal reports whether o and p are the same owner, wherever the times come from.
func (o Owner) Equal(p Owner) bool {
	return o.Kind == p.Kind && o.Namespace == p.Namespace && o.Container == p.Container && o.Ifname == p.Ifname &&
		o.Created.Equal(p.Created)
}
