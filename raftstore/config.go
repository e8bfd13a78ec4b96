package raftstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"

	"stellar.io/stellar/ipam"
)

// StreamLayer carries Raft's connections between nodes: TLS on the node-to-node
// port. Dial connects to a node's advertised address.
type StreamLayer interface {
	net.Listener
	Dial(address string, timeout time.Duration) (net.Conn, error)
}

// Config describes a store. Its zero values mean DefaultConfig's. It must not be
// changed after it was handed over.
type Config struct {
	Dir     string      // of the store; its parent must exist
	NodeID  ipam.NodeID // this node; also its Raft server id
	Address string      // at which other nodes reach this one; free text as long as Streams is nil
	// Streams connects to the other nodes. nil: there are none, and no port is
	// opened. Run closes it.
	Streams StreamLayer
	// Followers carries the streams between followers and their servers, apart from
	// Raft's. A member of Raft serves those that it accepts; a follower closes it and
	// dials. nil: nobody follows this node. Run closes it.
	Followers StreamLayer
	Logger    *slog.Logger // nil: discard
	// Verified: Open has succeeded before, and nobody else could touch the files since.
	// It does not read all of them once more.
	Verified bool

	// AddressOf says where a node is reached now; false: not known, the address in
	// Raft's configuration counts. It lets a node move without a change of that
	// configuration, which the leader brings up to date afterwards. Called for each
	// message, by many goroutines; it may use View. May be nil.
	AddressOf func(ipam.NodeID) (string, bool)
	// Eligible says whether a node may become a voter by itself: a server, not
	// draining. It may use View. nil: every node may.
	Eligible func(ipam.NodeID) bool
	// Forward sends a request to the leader's HandleForward and returns its answer.
	// An error that wraps ErrRefused means that the leader will not do it for this node,
	// one that wraps ErrNotSent that the leader cannot have seen it; any
	// other that it may have. It is called once for each request and must return
	// when ctx ends. nil: a node that does not lead refuses with ErrNoLeader.
	Forward func(ctx context.Context, leader ipam.NodeID, address string, request []byte) ([]byte, error)
	// FetchState returns what the leader's SnapshotSave writes. A node that was away
	// shows it by View until Raft has caught up. nil: it is behind for so long.
	FetchState func(ctx context.Context, leader ipam.NodeID, address string) (io.ReadCloser, error)

	// OnApply is called with what each entry changed, in the order of the log. Its
	// calls never overlap, and it must not block or use the store. A restored
	// snapshot, or one fetched from the leader, calls it with the index alone: all
	// may have changed. May be nil.
	OnApply func(index uint64, deltas []ipam.Delta)
	// OnPropose is called with the time that a proposal took. May be nil.
	OnPropose func(took time.Duration, err error)

	HeartbeatTimeout   time.Duration // a follower without contact for so long asks for an election
	ElectionTimeout    time.Duration // an election takes at most so long
	LeaderLeaseTimeout time.Duration // a leader without a quorum for so long steps down
	CommitTimeout      time.Duration // followers learn of a commit after at most twice that; see hint.go for those that matter
	EnqueueTimeout     time.Duration // a proposal waits so long for the leader to take it
	ShutdownTimeout    time.Duration // Run waits so long for Raft to stop
	LockTimeout        time.Duration // Open waits so long for another process to let go
	TickEvery          time.Duration // the leader advances cluster time so often; at most 10 s

	// Voters is how many voters the leader keeps, as far as there are eligible nodes:
	// 1, 3, 5 or 7; negative: it changes nothing by itself.
	Voters int
	// A node votes after it has been well for so long without a gap. Until the second
	// and third do, the loss of the first stops the cluster, so it is short: four
	// times what it takes to notice that a node does not answer, some thirty
	// heartbeats. A promotion is refused besides unless the node answers and has
	// caught up at that moment, and the majority of the new voters with it.
	StabilizeTime time.Duration
	DeadTime      time.Duration // a voter that was unwell for so long is replaced

	// A snapshot is taken when SnapshotThreshold entries have come since the last,
	// looked at every SnapshotInterval to twice that. TrailingLogs entries stay in
	// the log for followers that are behind. Together they bound the log to about
	// TrailingLogs + SnapshotThreshold entries, some 5 MB when each is about one lease.
	// When more than LogBytes have come since the last snapshot, and more than twice that
	// snapshot's size, one is taken at once, and about LogBytes stay.
	SnapshotThreshold uint64
	SnapshotInterval  time.Duration
	TrailingLogs      uint64
	LogBytes          uint64

	// FollowLog and FollowLogBytes bound the latest commands that are kept in memory for
	// followers: a follower that was away for no more goes on where it was.
	FollowLog, FollowLogBytes int
}

// DefaultConfig returns what the zero values mean.
//
// The timeouts are for a LAN and for a lease that is committed again within 3 s of the
// leader's death. Heartbeats go out every 50 to 100 ms, by goroutines that never wait
// for a disk. A follower looks every 500 to 1,000 ms whether it has heard one within
// 500 ms, so it notices after 1.5 s at the latest; a new leader needs the votes of
// followers that have all noticed (pre-vote), and then a few milliseconds. When two
// ask at the same moment, one more round costs up to 1 s. A leader that is paused for
// less than 400 ms, or loses four heartbeats, stays.
func DefaultConfig() Config {
	return Config{
		Address:            "127.0.0.1:0",
		Logger:             slog.New(slog.DiscardHandler),
		HeartbeatTimeout:   500 * time.Millisecond,
		ElectionTimeout:    500 * time.Millisecond,
		LeaderLeaseTimeout: 400 * time.Millisecond,
		CommitTimeout:      50 * time.Millisecond,
		EnqueueTimeout:     5 * time.Second,
		ShutdownTimeout:    4 * time.Second,
		LockTimeout:        2 * time.Second,
		TickEvery:          10 * time.Second,
		Voters:             3,
		StabilizeTime:      2 * time.Second,
		DeadTime:           time.Minute,
		SnapshotThreshold:  8192,
		SnapshotInterval:   2 * time.Minute,
		TrailingLogs:       10240,
		LogBytes:           32 << 20,
		FollowLog:          10240,
		FollowLogBytes:     16 << 20,
	}
}

// withDefaults fills in the zero values.
func (c Config) withDefaults() Config {
	d := DefaultConfig()
	if c.Address == "" {
		c.Address = d.Address
	}
	if c.Logger == nil {
		c.Logger = d.Logger
	}
	for _, f := range [...]struct{ v, def *time.Duration }{
		{&c.HeartbeatTimeout, &d.HeartbeatTimeout}, {&c.ElectionTimeout, &d.ElectionTimeout},
		{&c.LeaderLeaseTimeout, &d.LeaderLeaseTimeout}, {&c.CommitTimeout, &d.CommitTimeout},
		{&c.EnqueueTimeout, &d.EnqueueTimeout}, {&c.ShutdownTimeout, &d.ShutdownTimeout},
		{&c.LockTimeout, &d.LockTimeout}, {&c.TickEvery, &d.TickEvery},
		{&c.SnapshotInterval, &d.SnapshotInterval},
		{&c.StabilizeTime, &d.StabilizeTime}, {&c.DeadTime, &d.DeadTime},
	} {
		if *f.v == 0 {
			*f.v = *f.def
		}
	}
	if c.Voters == 0 {
		c.Voters = d.Voters
	}
	if c.SnapshotThreshold == 0 {
		c.SnapshotThreshold = d.SnapshotThreshold
	}
	if c.FollowLog == 0 {
		c.FollowLog = d.FollowLog
	}
	if c.FollowLogBytes == 0 {
		c.FollowLogBytes = d.FollowLogBytes
	}
	if c.TrailingLogs == 0 {
		c.TrailingLogs = d.TrailingLogs
	}
	if c.LogBytes == 0 {
		c.LogBytes = d.LogBytes
	}
	return c
}

// Validate names everything that is wrong with the configuration.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	if !filepath.IsAbs(c.Dir) {
		errs = append(errs, fmt.Errorf("directory %q is not absolute", c.Dir))
	}
	if !c.NodeID.Valid() {
		errs = append(errs, fmt.Errorf("node id %q is not 32 hexadecimal digits", c.NodeID))
	}
	if c.TickEvery < 0 || c.TickEvery > 10*time.Second {
		errs = append(errs, fmt.Errorf("tick every %s, at most 10s", c.TickEvery))
	}
	if c.Voters > 7 || c.Voters > 0 && c.Voters%2 == 0 {
		errs = append(errs, fmt.Errorf("%d voters, possible are 1, 3, 5 and 7", c.Voters))
	}
	if c.FollowLog < 1 || c.FollowLogBytes < 1 {
		errs = append(errs, fmt.Errorf("%d commands and %d bytes kept for followers, at least 1", c.FollowLog, c.FollowLogBytes))
	}
	if err := raft.ValidateConfig(c.raft()); err != nil {
		errs = append(errs, fmt.Errorf("raft: %w", err))
	}
	return errors.Join(errs...)
}

// raft returns the library's configuration.
func (c Config) raft() *raft.Config {
	r := raft.DefaultConfig()
	r.LocalID = raft.ServerID(c.NodeID)
	r.HeartbeatTimeout = c.HeartbeatTimeout
	r.ElectionTimeout = c.ElectionTimeout
	r.LeaderLeaseTimeout = c.LeaderLeaseTimeout
	r.CommitTimeout = c.CommitTimeout
	r.SnapshotThreshold = c.SnapshotThreshold
	r.SnapshotInterval = c.SnapshotInterval
	r.TrailingLogs = c.TrailingLogs
	// With a buffered channel a proposal that timed out could still be taken, and
	// ErrBusy would not be a definite answer.
	r.BatchApplyCh = false
	// A node that is no member any more goes on without Raft's help: its state is
	// still shown, and a demoted leader goes on as a follower.
	r.ShutdownOnRemove = false
	r.NoLegacyTelemetry = true
	r.Logger = newHCLog(c.Logger)
	return r
}
