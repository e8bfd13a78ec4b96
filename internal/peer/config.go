package peer

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"stellar.io/stellar/internal/pki"
	"stellar.io/stellar/ipam"
)

// Protocol is what a connection is for; its text is the ALPN name.
type Protocol string

const (
	Raft   Protocol = "stellar-raft/1"
	Follow Protocol = "stellar-follow/1"
	API    Protocol = "stellar-api/1"
	Join   Protocol = "stellar-join/1"
)

// Peer is the other side of a connection, as far as its certificate is in order.
type Peer struct {
	pki.Identity
	Generation uint64 // of the cluster, as the other side knows it
	Protocol   Protocol
	Inbound    bool // it called us
}

// Config of a Port. Zero values mean DefaultConfig's.
type Config struct {
	Listen    netip.AddrPort // port 0: any free one
	Listener  net.Listener   // of Listen, by the function of that name; nil: New makes it. The Port closes it
	Advertise netip.AddrPort // at which other nodes reach this one; zero: the one listened on
	TLS       *pki.Store
	Logger    *slog.Logger // nil: discard

	// Generation returns a number for the cluster's generation as this node knows it,
	// which Admit understands; it goes
	// into every greeting. nil: 0.
	Generation func() uint64
	// Admit is asked about each peer whose certificate is in order, before anything
	// is read from it or sent to it: whether its node was removed, and whether its
	// generation may speak to ours. An error refuses the connection; the text
	// reaches an inbound peer, which can recognise ErrGeneration,
	// ipam.ErrNodeRemoved, ipam.ErrNodeNotFound and ipam.ErrMachineMismatch. It is
	// called by many goroutines at once and must not block. nil: all.
	Admit func(Peer) error
	// OnRequest is told of each request that HTTPClient has sent: the node that it was
	// for (empty: any server), its path, how long the answer's beginning took, and its
	// status, 0 for no answer. It must not block. nil: nobody.
	OnRequest func(to ipam.NodeID, path string, took time.Duration, status int)

	HandshakeTimeout time.Duration // from the first byte to the verdict
	// Connections that have not shown who they are, at most: beyond it the oldest
	// of the same address (/64 for IPv6) or of all is closed in favour of a new one.
	MaxPending, MaxPendingPerIP int
	// Connections of one node to this one, at most: beyond it the oldest is closed,
	// for those that a partition left behind must not keep the node out.
	MaxPerNode int
	// Connections of machines that join: at most, and at most per address. Each
	// address may open JoinBurst of them at once and one more every JoinEvery. None
	// lives longer than JoinLife.
	MaxJoins, MaxJoinsPerIP, JoinBurst int
	JoinEvery, JoinLife                time.Duration
	// MaxAge is how old an inbound connection may become, so that the certificate
	// on it is verified again; up to a tenth less, at random. HTTP connections end
	// after the requests that run on them, or an hour (1/24) later.
	MaxAge time.Duration
}

// DefaultConfig returns what the zero values mean.
func DefaultConfig() Config {
	return Config{
		Logger:           slog.New(slog.DiscardHandler),
		Generation:       func() uint64 { return 0 },
		Admit:            func(Peer) error { return nil },
		HandshakeTimeout: 5 * time.Second,
		MaxPending:       256,
		MaxPendingPerIP:  64,
		MaxPerNode:       64,
		MaxJoins:         64,
		MaxJoinsPerIP:    8,
		JoinBurst:        30,
		JoinEvery:        6 * time.Second,
		JoinLife:         2 * time.Minute,
		MaxAge:           24 * time.Hour,
	}
}

func (c Config) withDefaults() Config {
	d := DefaultConfig()
	if c.Logger == nil {
		c.Logger = d.Logger
	}
	if c.Generation == nil {
		c.Generation = d.Generation
	}
	if c.Admit == nil {
		c.Admit = d.Admit
	}
	for _, f := range [...]struct{ v, def *time.Duration }{
		{&c.HandshakeTimeout, &d.HandshakeTimeout}, {&c.JoinEvery, &d.JoinEvery}, {&c.JoinLife, &d.JoinLife}, {&c.MaxAge, &d.MaxAge},
	} {
		if *f.v == 0 {
			*f.v = *f.def
		}
	}
	for _, f := range [...]struct{ v, def *int }{
		{&c.MaxPending, &d.MaxPending}, {&c.MaxPendingPerIP, &d.MaxPendingPerIP}, {&c.MaxPerNode, &d.MaxPerNode},
		{&c.MaxJoins, &d.MaxJoins}, {&c.MaxJoinsPerIP, &d.MaxJoinsPerIP}, {&c.JoinBurst, &d.JoinBurst},
	} {
		if *f.v == 0 {
			*f.v = *f.def
		}
	}
	return c
}

// Validate names everything that is wrong with the configuration.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	if !c.Listen.IsValid() {
		errs = append(errs, errors.New("no address to listen on"))
	}
	if c.TLS == nil {
		errs = append(errs, errors.New("no certificates"))
	}
	if at := c.Advertise; at.IsValid() && (at.Port() == 0 || at.Addr().IsUnspecified()) {
		errs = append(errs, fmt.Errorf("nobody can reach the advertised address %s", at))
	}
	if !c.Advertise.IsValid() && c.Listen.IsValid() && c.Listen.Addr().IsUnspecified() {
		errs = append(errs, fmt.Errorf("listening on %s needs an address to advertise", c.Listen))
	}
	for _, d := range [...]time.Duration{c.HandshakeTimeout, c.JoinEvery, c.JoinLife, c.MaxAge} {
		if d < 0 {
			errs = append(errs, fmt.Errorf("negative time %s", d))
		}
	}
	for _, n := range [...]int{c.MaxPending, c.MaxPendingPerIP, c.MaxPerNode, c.MaxJoins, c.MaxJoinsPerIP, c.JoinBurst} {
		if n < 0 {
			errs = append(errs, fmt.Errorf("negative limit %d", n))
		}
	}
	return errors.Join(errs...)
}
