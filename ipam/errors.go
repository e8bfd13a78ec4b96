package ipam

import "errors"

// The sentinels that a refused command's Result wraps. Compare with errors.Is;
// each survives the log, the snapshot and a forwarded call by its code.
var (
	// ErrNotInitialized is returned when a command needs a cluster and there is none yet.
	ErrNotInitialized = errors.New("cluster is not initialized")
	// ErrAlreadyInitialized is returned when the state belongs to another cluster or network plan.
	ErrAlreadyInitialized = errors.New("cluster is already initialized")
	// ErrInvalid is returned when a command's fields cannot be right whatever the state is.
	ErrInvalid = errors.New("invalid argument")
	// ErrNetworkNotFound is returned when no network has the given name.
	ErrNetworkNotFound = errors.New("network not found")
	// ErrNodeNotFound is returned when the node is not a member.
	ErrNodeNotFound = errors.New("node not found")
	// ErrNodeExists is returned when the node's name belongs to another incarnation.
	ErrNodeExists = errors.New("node name is taken by another incarnation")
	// ErrNodeRemoved is returned when the node's incarnation was removed; it never comes back.
	ErrNodeRemoved = errors.New("node was removed from the cluster")
	// ErrNoAvailableSubnets is returned when the network has no subnet left to hand out.
	ErrNoAvailableSubnets = errors.New("no available subnets")
	// ErrSubnetNotFound is returned when the subnet does not exist or nobody holds it.
	ErrSubnetNotFound = errors.New("subnet not found")
	// ErrWrongNode is returned when the subnet belongs to another node.
	ErrWrongNode = errors.New("subnet is held by another node")
	// ErrStaleEpoch is returned when the command's epoch is not the subnet's.
	ErrStaleEpoch = errors.New("subnet epoch does not match")
	// ErrNoAvailableIP is returned when the subnet has no address left to pick.
	ErrNoAvailableIP = errors.New("no available IP addresses")
	// ErrOutOfSubnet is returned when the address is not inside the subnet.
	ErrOutOfSubnet = errors.New("address is outside the subnet")
	// ErrAddressTaken is returned when another owner holds the address.
	ErrAddressTaken = errors.New("address is taken")
	// ErrAddressReserved is returned when the address is reserved.
	ErrAddressReserved = errors.New("address is reserved")
	// ErrOwnerHasAddress is returned when the owner already holds a different address.
	ErrOwnerHasAddress = errors.New("owner already holds another address")
	// ErrLeaseNotFound is returned when there is no such lease.
	ErrLeaseNotFound = errors.New("lease not found")
	// ErrReservationNotFound is returned when the address is not reserved.
	ErrReservationNotFound = errors.New("reservation not found")
	// ErrRouteExists is returned when a destination already has a route that is not ours.
	ErrRouteExists = errors.New("route exists")
	// ErrModeInUse is returned when a node changes its mode while it holds leases.
	ErrModeInUse = errors.New("node has leases in its present mode")
	// ErrMachineMismatch is returned when a node's identity shows up on another
	// machine than the one it was made on: its data directory was copied.
	ErrMachineMismatch = errors.New("node identity belongs to another machine")
	// ErrNodeInUse is returned when a node that still has leases is removed without force.
	ErrNodeInUse = errors.New("node still has leases")
	// ErrSubnetInUse is returned when a subnet that somebody holds would be reserved or released.
	ErrSubnetInUse = errors.New("subnet is in use")
	// ErrLeaseInUse is returned when a lease that is not cooling would be freed.
	ErrLeaseInUse = errors.New("lease is in use")
	// ErrRequestForgotten is returned when a request is older than those remembered
	// for its node: whether it was executed cannot be told. Propose it anew under a
	// new id; commands are "ensure" style, so a second execution does no harm.
	ErrRequestForgotten = errors.New("request is older than the remembered ones")
	// ErrRequestReused is returned when a request id comes back with other commands.
	ErrRequestReused = errors.New("request id was used for other commands")
	// ErrTokenInvalid is returned when a join token is unknown, its secret is wrong
	// or it does not allow the role. Which of the first two is not told.
	ErrTokenInvalid = errors.New("join token is not valid")
	// ErrTokenExpired is returned when a join token has expired.
	ErrTokenExpired = errors.New("join token has expired")
	// ErrTokenRevoked is returned when a join token was revoked.
	ErrTokenRevoked = errors.New("join token was revoked")
	// ErrTokenUsed is returned when another node, or one with another key, has joined with the token.
	ErrTokenUsed = errors.New("join token was used")
	// ErrTokenExists is returned when another token has the id.
	ErrTokenExists = errors.New("join token exists")
	// ErrTokenNotFound is returned when no token has the id.
	ErrTokenNotFound = errors.New("join token not found")
	// ErrReclaiming is returned when a subnet would be handed out while the nodes
	// still claim theirs after a restore or recovery.
	ErrReclaiming = errors.New("subnets are being re-claimed after a restore")
	// ErrStaleGeneration is returned when a command is of another generation of the
	// cluster than the present one.
	ErrStaleGeneration = errors.New("cluster generation does not match")
)

// The errors of Apply. The state is unchanged, and the caller must stop.
var (
	// ErrUnknownCommand is returned when a committed entry cannot be decoded or
	// holds something this version does not know. Skipping it would let the states
	// of the nodes diverge.
	ErrUnknownCommand = errors.New("unknown or undecodable command")
	// ErrEntryOrder is returned when an entry's index is not above the last one's.
	ErrEntryOrder = errors.New("entry is out of order")
)

// The errors of Restore and ForRestore.
var (
	// ErrSnapshotTruncated is returned when a snapshot ends before its trailer.
	ErrSnapshotTruncated = errors.New("snapshot is truncated")
	// ErrSnapshotFormat is returned when the data is not a snapshot of Stellar.
	ErrSnapshotFormat = errors.New("not a stellar snapshot")
	// ErrSnapshotVersion is returned when a newer version of Stellar wrote the snapshot.
	ErrSnapshotVersion = errors.New("snapshot format is newer than this version")
	// ErrSnapshotChecksum is returned when a snapshot was damaged.
	ErrSnapshotChecksum = errors.New("snapshot checksum does not match")
	// ErrSnapshotCluster is returned when a backup is not of this cluster's history.
	ErrSnapshotCluster = errors.New("snapshot is of another cluster")
	// ErrSnapshotInvalid is returned when an undamaged snapshot holds an impossible state.
	ErrSnapshotInvalid = errors.New("snapshot holds an inconsistent state")
)

// ErrInvariant is returned by Check when the state contradicts itself.
var ErrInvariant = errors.New("broken invariant")
