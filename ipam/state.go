package ipam

import (
	"fmt"
	"net/netip"
)

// State is the replicated state. It is not safe for concurrent use.
type State struct {
	tables
	derived
}

// tables is what a snapshot holds: all of the state that cannot be worked out
// from the rest.
type tables struct {
	index        uint64 // of the last applied entry
	cluster      clusterRecord
	networks     tree[string, Network]
	nodes        tree[NodeID, Node]
	subnets      tree[SubnetKey, Subnet]
	reservations tree[reservationKey, Reservation]
	leases       tree[leaseKey, leaseRecord]
	forgotten    tree[NodeID, uint64] // highest Seq whose result is no longer remembered
	requests     tree[RequestID, requestRecord]
	tokens       tree[string, Token]
}

// clusterRecord is the part of Cluster that is not kept in a table of its own.
type clusterRecord struct {
	ID         string
	Generation uint64
	Time       int64
	Reclaim    bool
	Life       uint32
}

// derived is what is worked out from the tables; rebuild makes it anew.
type derived struct {
	byOwner  map[string]leaseKey        // owner's key → its active lease
	byName   map[string]NodeID          // without removed nodes
	usage    map[SubnetKey]Usage        // of subnets that are held or quarantined
	byNode   tree[nodeSubnet, struct{}] // the same subnets by their node
	blocks   map[string]blockCounts     // network → its reservations
	windows  map[NodeID]window          // what is remembered of each node
	netNames map[uint32]string          // Network.ID → name
}

// Result is what one command answers.
type Result struct {
	Err    error        // nil, or an error that wraps a sentinel of this package
	Addr   netip.Addr   // the lease's address; with ErrOwnerHasAddress the one held
	Subnet netip.Prefix // ClaimSubnet, JoinNode, ClaimHeld: the node's subnet
	Epoch  Epoch        // and its epoch
}

// Outcome is what an entry did.
type Outcome struct {
	Index     uint64
	Results   []Result // one for each command
	Deltas    []Delta  // what changed, in order
	Duplicate bool     // the request was executed before; Results are the remembered ones
}

// New returns an empty state.
func New() *State {
	return &State{tables: newTables(), derived: newDerived()}
}

func newTables() tables {
	return tables{
		networks:     newTree[string, Network](compareString[string]),
		nodes:        newTree[NodeID, Node](compareString[NodeID]),
		subnets:      newTree[SubnetKey, Subnet](compareSubnetKeys),
		reservations: newTree[reservationKey, Reservation](compareReservationKeys),
		leases:       newTree[leaseKey, leaseRecord](compareLeaseKeys),
		forgotten:    newTree[NodeID, uint64](compareString[NodeID]),
		requests:     newTree[RequestID, requestRecord](compareRequestIDs),
		tokens:       newTree[string, Token](compareString[string]),
	}
}

func newDerived() derived {
	return derived{
		byOwner:  make(map[string]leaseKey),
		byName:   make(map[string]NodeID),
		usage:    make(map[SubnetKey]Usage),
		byNode:   newTree[nodeSubnet, struct{}](compareNodeSubnets),
		blocks:   make(map[string]blockCounts),
		windows:  make(map[NodeID]window),
		netNames: make(map[uint32]string),
	}
}

// Apply executes one committed entry. index is its place in the log and data an
// encoded Envelope. It is total and deterministic: whatever the commands ask
// for, the answer is a result each. An error (ErrUnknownCommand, ErrEntryOrder)
// means that nothing was changed and that the caller must not go on.
func (s *State) Apply(index uint64, data []byte) (Outcome, error) {
	env, err := DecodeEnvelope(data)
	if err != nil {
		return Outcome{}, fmt.Errorf("entry %d: %w", index, err)
	}
	if index <= s.index {
		return Outcome{}, fmt.Errorf("%w: entry %d after %d", ErrEntryOrder, index, s.index)
	}
	s.index = index
	out := Outcome{Index: index}
	sum := fingerprint(data)
	if results, known := s.recall(env, sum); known {
		out.Results, out.Duplicate = results, true
		return out, nil
	}
	t := &tx{State: s}
	out.Results = make([]Result, 0, len(env.Commands))
	for _, c := range env.Commands {
		out.Results = append(out.Results, c.apply(t))
	}
	out.Deltas = t.deltas
	s.remember(env.Request, sum, out.Results)
	return out, nil
}

// Index returns the index of the last applied entry.
func (s *State) Index() uint64 { return s.index }

// rebuild makes the derived part from the tables.
func (s *State) rebuild() {
	s.derived = newDerived()
	s.byOwner = make(map[string]leaseKey, s.leases.len())
	for name, n := range s.networks.all() {
		s.netNames[n.ID] = name
	}
	for id, n := range s.nodes.all() {
		if !n.Removed {
			s.byName[n.Name] = id
		}
	}
	for k := range s.reservations.all() {
		s.countBlock(k, 1)
	}
	for k, sub := range s.subnets.all() {
		if sub.State != SubnetFree {
			s.usage[k] = s.emptyUsage(k)
			s.byNode.set(nodeSubnet{sub.Node, k}, struct{}{})
		}
	}
	for k, r := range s.leases.all() {
		if r.State.active() {
			s.byOwner[r.ownerKey()] = k
		}
		s.countLease(s.leaseSubnet(k), r.State, 1)
	}
	for id, r := range s.requests.all() {
		w := s.windows[id.Node]
		w.requests++
		w.results += int(r.Count)
		s.windows[id.Node] = w
	}
}
