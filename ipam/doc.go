// Package ipam is the replicated state of Stellar's address management: networks,
// nodes, subnets, leases and reservations, and the commands that change them.
//
// It is pure: no clock, no randomness, no input or output, no goroutines. The
// same entries in the same order make the same state on every node, in every
// version; Hash proves it. A refused command is a result and changes nothing.
// Whoever uses a State serialises the calls to it; only a Snapshot may be used
// beside later Applies.
//
// Who picks an address is not decided here but by the subnet's holder (Picker).
// The state checks that the sender holds the subnet at this epoch and that nobody
// else holds the address.
//
// What was committed can be lost: to the restore of a backup (ForRestore) or to the
// recovery of a cluster without its majority (RaiseGeneration). Both start a new
// generation, in which no subnet is handed out before the nodes have claimed what
// they hold (ClaimHeld) and the operator has ended the re-claim (EndReclaim).
package ipam
