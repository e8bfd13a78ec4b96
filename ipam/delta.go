package ipam

// Delta is one change that an entry made to the state, one of the types of this
// file. The deltas of an entry stand in the order in which they happened.
type Delta interface{ delta() }

// ClusterPut tells that the cluster's identity or generation was set or its
// re-claim ended. Cluster.Networks is nil.
type ClusterPut struct{ Cluster Cluster }

// TimePut tells that cluster time advanced.
type TimePut struct{ Time int64 }

// NetworkPut tells that a network was added or its hand-out mark moved.
type NetworkPut struct{ Network Network }

// NodePut tells that a node was added, changed or became a tombstone.
type NodePut struct{ Node Node }

// SubnetPut tells that a subnet was handed out or changed its state or mode.
type SubnetPut struct{ Subnet Subnet }

// LeasePut tells that a lease was added or changed.
type LeasePut struct{ Lease Lease }

// LeaseRemoved tells that an address became free; Lease is what it was.
type LeaseRemoved struct{ Lease Lease }

// ReservationPut tells that a reservation was added or changed.
type ReservationPut struct{ Reservation Reservation }

// ReservationRemoved tells that a reservation ended.
type ReservationRemoved struct{ Reservation Reservation }

// TokenPut tells that a join token was created, used or revoked.
type TokenPut struct{ Token Token }

// TokenRemoved tells that a token that had expired long ago was dropped.
type TokenRemoved struct{ Token Token }

func (ClusterPut) delta()         {}
func (TimePut) delta()            {}
func (NetworkPut) delta()         {}
func (NodePut) delta()            {}
func (SubnetPut) delta()          {}
func (LeasePut) delta()           {}
func (LeaseRemoved) delta()       {}
func (ReservationPut) delta()     {}
func (ReservationRemoved) delta() {}
func (TokenPut) delta()           {}
func (TokenRemoved) delta()       {}
