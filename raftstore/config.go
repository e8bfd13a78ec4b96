package raftstore

import (
	"errors"
	"fmt"
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
	Logger  *slog.Logger // nil: discard

	// OnApply is called with what each entry changed, in the order of the log. It
	// is called by the goroutine that applies entries and must not block or use the
	// store. Restoring a snapshot calls it with the index alone. May be nil.
	OnApply func(index uint64, deltas []ipam.Delta)
	// OnPropose is called with the time that a proposal took. May be nil.
	OnPropose func(took time.Duration, err error)

	HeartbeatTimeout   time.Duration // a follower without contact for so long asks for an election
	ElectionTimeout    time.Duration // an election takes at most so long
	LeaderLeaseTimeout time.Duration // a leader without a quorum for so long steps down
	CommitTimeout      time.Duration // followers learn of a commit after at most so long
	EnqueueTimeout     time.Duration // a proposal waits so long for the leader to take it
	ShutdownTimeout    time.Duration // Run waits so long for Raft to stop
	LockTimeout        time.Duration // Open waits so long for another process to let go
	TickEvery          time.Duration // the leader advances cluster time so often; at most 10 s

	// A snapshot is taken when SnapshotThreshold entries have come since the last,
	// looked at every SnapshotInterval to twice that. TrailingLogs entries stay in
	// the log for followers that are behind. Together they bound the log to about
	// TrailingLogs + SnapshotThreshold entries, some 5 MB.
	SnapshotThreshold uint64
	SnapshotInterval  time.Duration
	TrailingLogs      uint64
}

// DefaultConfig returns what the zero values mean.
func DefaultConfig() Config {
	return Config{
		Address:            "127.0.0.1:0",
		Logger:             slog.New(slog.DiscardHandler),
		HeartbeatTimeout:   time.Second,
		ElectionTimeout:    time.Second,
		LeaderLeaseTimeout: 500 * time.Millisecond,
		CommitTimeout:      50 * time.Millisecond,
		EnqueueTimeout:     5 * time.Second,
		ShutdownTimeout:    4 * time.Second,
		LockTimeout:        2 * time.Second,
		TickEvery:          10 * time.Second,
		SnapshotThreshold:  8192,
		SnapshotInterval:   2 * time.Minute,
		TrailingLogs:       10240,
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
	} {
		if *f.v == 0 {
			*f.v = *f.def
		}
	}
	if c.SnapshotThreshold == 0 {
		c.SnapshotThreshold = d.SnapshotThreshold
	}
	if c.TrailingLogs == 0 {
		c.TrailingLogs = d.TrailingLogs
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
	r.NoLegacyTelemetry = true
	r.Logger = newHCLog(c.Logger)
	return r
}
