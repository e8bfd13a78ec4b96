package holder

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore/journal"
)

// Proposer replicates envelopes. raftstore.Store is one.
type Proposer interface {
	// Propose returns nil when the envelope is committed and visible to View. An
	// error that wraps raftstore.ErrUnknownOutcome means that it may be; any other
	// that it is not and never will be.
	Propose(ctx context.Context, env ipam.Envelope) ([]ipam.Result, error)
	// View calls fn with the replicated state as this node knows it.
	View(fn func(*ipam.State))
}

// Config describes a holder. It must not be changed after it was handed over.
type Config struct {
	Node    ipam.NodeID
	Cluster string      // cluster id; "": the one that Store shows
	Subnet  ipam.Subnet // that Node holds, as the state records it
	// JournalPath is the journal's file. One journal per node: it also counts the
	// node's request ids.
	JournalPath string
	Store       Proposer
	Logger      *slog.Logger // nil: discard

	CommitWait   time.Duration // Bind goes on alone after so long without a commit; 0: 500 ms
	CoolDown     time.Duration // a released address is kept from others for so long; 0: 60 s
	MarkDelay    time.Duration // bound or attached is replicated after so long without a change; 0: 1 s
	BatchDelay   time.Duration // releases are collected for so long; 0: 20 ms
	RetryMin     time.Duration // first pause after a failed replication, doubled up to RetryMax; 0: 100 ms
	RetryMax     time.Duration // 0: 5 s
	AuditEvery   time.Duration // journal and replica are compared so often without a cause; 0: 30 s
	ProposalWait time.Duration // one attempt to replicate takes at most so long; 0: 5 s
	// Binds that come while others are under way go together (ADR 25), at most Flights
	// groups at once; 0: 4. A further group goes when Gather binds wait, or when the last
	// one takes long; 0: 128. With 1 no bind waits for another, up to Flights.
	Flights, Gather int

	// OnSync is called with the time that each fsync of the journal took. It must not
	// block. nil: nobody is told.
	OnSync func(took time.Duration, err error)

	FS    journal.FS // of the journal; nil: the real one
	Clock Clock      // nil: the real one
}

func (c Config) withDefaults() Config {
	for _, f := range [...]struct {
		v   *time.Duration
		def time.Duration
	}{
		{&c.CommitWait, 500 * time.Millisecond}, {&c.CoolDown, time.Minute},
		{&c.MarkDelay, time.Second}, {&c.BatchDelay, 20 * time.Millisecond},
		{&c.RetryMin, 100 * time.Millisecond}, {&c.RetryMax, 5 * time.Second},
		{&c.AuditEvery, 30 * time.Second}, {&c.ProposalWait, 5 * time.Second},
	} {
		if *f.v == 0 {
			*f.v = f.def
		}
	}
	if c.Flights == 0 {
		c.Flights = 4
	}
	if c.Gather == 0 {
		c.Gather = 128
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Clock == nil {
		c.Clock = realClock{}
	}
	if c.Cluster == "" && c.Store != nil {
		c.Store.View(func(s *ipam.State) {
			cl, _ := s.Cluster()
			c.Cluster = cl.ID
		})
	}
	return c
}

// Validate names everything that is wrong with the configuration.
func (c Config) Validate() error {
	var errs []error
	if !c.Node.Valid() {
		errs = append(errs, fmt.Errorf("node id %q is not 32 hexadecimal digits", c.Node))
	}
	if c.Subnet.Node != c.Node || c.Subnet.State != ipam.Held || !c.Subnet.Prefix.IsValid() {
		errs = append(errs, fmt.Errorf("subnet %s is not held by node %s", c.Subnet.Prefix, c.Node.Short()))
	}
	if !filepath.IsAbs(c.JournalPath) {
		errs = append(errs, fmt.Errorf("journal %q is not an absolute path", c.JournalPath))
	}
	if c.Store == nil {
		errs = append(errs, errors.New("no store"))
	} else if c.Cluster == "" {
		errs = append(errs, errors.New("no cluster id, and the store does not show one"))
	}
	return errors.Join(errs...)
}
