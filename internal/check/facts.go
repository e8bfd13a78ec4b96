package check

import (
	"net/netip"
	"time"

	"stellar.io/stellar/api"
	"stellar.io/stellar/internal/firewall"
	"stellar.io/stellar/internal/nlx"
	"stellar.io/stellar/netsetup"
	"stellar.io/stellar/routes"
)

// Facts are all that is judged. What could not be learned is left at its zero value
// and named in Doubts; it leads to no finding of its own.
type Facts struct {
	Node   string
	Member bool // it belongs to a cluster
	// AgentDown is why this node's own agent does not answer; "" where it does.
	AgentDown string
	// Status is what the agent says of itself; nil without one.
	Status []api.Check

	Bridge     string
	Routed     bool // there is no bridge: each container has a route of its own
	Masquerade bool
	Network    netip.Prefix
	Subnet     netip.Prefix
	Gateway    netip.Addr
	Address    netip.AddrPort // as other nodes know this one; zero: not known
	Peers      []Peer

	Uplinks    []string // that lead to other nodes, and out
	Arrivals   []string // of them, those by which packets come in
	Links      []nlx.Link
	Addrs      []nlx.Addr
	Endpoints  []netsetup.Endpoint
	MACs       map[netip.Addr]string // of the containers, as the agent knows them; without one it is not judged
	Forwarding map[string]bool       // of the bridge, or the hosts' ends, and the uplinks

	Routes     []routes.Status
	Conditions []routes.Condition
	Tables     []nlx.TableRoute
	Rules      []nlx.PolicyRule
	Ways       []Way

	Filters     firewall.Ruleset
	FiltersRead bool // Filters are complete
	Guard       netsetup.Guard
	BrNetfilter bool // bridged packets go through iptables
	Blocks      []nlx.BlockPolicy
	Traffic     map[string][]nlx.TrafficFilter // by interface
	FDB         []nlx.Neighbour                // static entries of the bridge
	Neighbours  []nlx.Neighbour
	Answers     map[netip.Addr][]string // hardware addresses that answer for an address on the link; nil: nobody was asked

	Machine Machine
	Doubts  []string
}

// Peer is another node.
type Peer struct {
	Name    string
	Address netip.AddrPort
	Subnet  netip.Prefix // zero: it holds none
	Asked   bool         // its agent was asked
	Silent  string       // why it did not answer; "": it did
	// Ahead is by how much its clock is ahead of this node's, Within how sure that is.
	Ahead, Within time.Duration
	MACs          []string // of its interfaces, as it says
}

// gateway is the address of the peer's bridge, if it has one, the first of its subnet.
func (p Peer) gateway() netip.Addr { return p.Subnet.Addr().Next() }

// Way is the kernel's decision about packets from this node's containers to a peer's.
type Way struct {
	Peer   Peer
	Answer nlx.Lookup
	Table  uint32
}

// Machine is what is no part of the network.
type Machine struct {
	Release    string // of the kernel
	Lacks      []string
	Containerd Containerd
	Ptrace     string // why it is not permitted; "": it is
	HoldOff    bool   // programs are not held: ptrace does not matter
	DataDir    string
	Free       uint64 // bytes of its file system
	FreeKnown  bool
	DirProblem string
	Ports      []Port // that other programs have
	Runtimes   []Runtime
	// NoBridgeFamily is why the kernel takes no nftables rules for bridges; "": it
	// does, or in routed mode nobody asked.
	NoBridgeFamily string
	Managers       []Manager
	// NeighbourLimit is gc_thresh3; 0: not known.
	NeighbourLimit int
}

// Containerd as it answers.
type Containerd struct {
	Address string
	Down    string // why it does not answer
	Version string // "": not known
	PID     int    // 0: not known
}

// Runtime is a program that containerd starts containers with.
type Runtime struct {
	Name    string // as containerd's configuration has it
	Problem string // why it cannot be started; "": it can
	Kind    string // runc or crun; "": another, or not known
	Version string // "": not known
}

// Port is one that the agent needs and another program has.
type Port struct {
	Address netip.AddrPort
	Use     string // what the agent needs it for
	Process string // "": not known
}

// Manager is a network manager that runs.
type Manager struct {
	Code   string // Networkd or NetworkManager
	Does   string // what is wrong with that
	DropIn string // what keeps it from that
}
