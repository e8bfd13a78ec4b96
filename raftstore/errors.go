package raftstore

import "errors"

var (
	// ErrExists is returned by Init when there is a store already.
	ErrExists = errors.New("store exists already")
	// ErrNotFound is returned by Open when there is no store.
	ErrNotFound = errors.New("no store")
	// ErrForeign is returned when the directory holds something else than this node's store.
	ErrForeign = errors.New("directory is not this node's store")
	// ErrVersion is returned when a newer version of Stellar made the store.
	ErrVersion = errors.New("store format is newer than this version")
	// ErrLocked is returned when another process has the store open.
	ErrLocked = errors.New("store is in use by another process")
	// ErrCorrupt is returned when the store is damaged. It is left as it is.
	ErrCorrupt = errors.New("store is corrupt")

	// ErrNoLeader is returned when no leader took the envelope. It was not proposed.
	ErrNoLeader = errors.New("no leader")
	// ErrNotStarted is returned before Run. Nothing was proposed.
	ErrNotStarted = errors.New("store is not running")
	// ErrShutdown is returned once Run is ending. Nothing was proposed.
	ErrShutdown = errors.New("store is shutting down")
	// ErrBusy is returned when the leader did not take the envelope in time. It
	// was not proposed.
	ErrBusy = errors.New("leader is too busy")
	// ErrUnknownOutcome is returned when the envelope may be committed, now or
	// later. Proposing the same envelope again, with its request id, tells.
	ErrUnknownOutcome = errors.New("outcome of the proposal is unknown")
	// ErrStopped is returned when Raft was stopped on this node because a committed
	// entry could not be applied. The update of Stellar that knows the entry heals it.
	ErrStopped = errors.New("raft was stopped on this node")
	// ErrStuck is returned by Run when Raft did not stop in time: the disk hangs.
	ErrStuck = errors.New("raft did not stop")
	// ErrRemoved is returned when this node is not, or no longer, a member of the
	// cluster's Raft configuration. Nothing was proposed.
	ErrRemoved = errors.New("node is not a member of the raft cluster")
)

// The errors of membership, snapshots and forwarding.
var (
	// ErrNotMember is returned when a membership call names a node that Raft does not know.
	ErrNotMember = errors.New("no such raft member")
	// ErrQuorum is returned when a membership call would lose the quorum. The text
	// holds the arithmetic; Force overrides it where that is possible at all.
	ErrQuorum = errors.New("quorum would be lost")
	// ErrNotReady is returned when a node that is to vote or to lead does not answer
	// or has not caught up.
	ErrNotReady = errors.New("node is not ready")
	// ErrNotSent is what Config.Forward wraps when the request cannot have reached
	// the leader (the connection was not made). Everything else that Forward returns
	// means that it may have.
	ErrNotSent = errors.New("request was not sent")
	// ErrRequest is returned by HandleForward for data that is not a request.
	ErrRequest = errors.New("malformed request")
	// ErrOtherCluster is returned when a snapshot was made by another cluster.
	ErrOtherCluster = errors.New("snapshot is of another cluster")
	// ErrRefused is returned when a command of an envelope that had to succeed as a
	// whole (restore, recover) was refused. Nothing was changed.
	ErrRefused = errors.New("command was refused")
	// ErrFollower is returned by Examine and Recover for the store of a follower, which
	// has no log of Raft.
	ErrFollower = errors.New("store is a follower's")
	// ErrPassed is returned by Hash when the state is past the index already.
	ErrPassed = errors.New("state is past this index")
)
