package events

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Config says which containerd to watch and how often to look. It is not
// changed after New. A zero duration means its default.
type Config struct {
	// Address is the path of containerd's socket, with or without "unix://".
	Address string
	// IgnoreNamespaces are containerd namespaces of which nothing is reported.
	// nil means k8s.io, moby and buildkit; an empty slice means none.
	IgnoreNamespaces []string
	// RelistEvery is the longest time between two listings (30 s).
	RelistEvery time.Duration
	// ProbeEvery is how often a probe event must come back (5 s). Three silent
	// rounds end the connection.
	ProbeEvery time.Duration
	// ConnectTimeout bounds each try to connect, subscribe and see the first probe (10 s).
	ConnectTimeout time.Duration
	// CallTimeout bounds each request of Look (5 s). A task whose shim does not
	// answer in time has TaskUnknown.
	CallTimeout time.Duration
	// MaxBackoff bounds the pause between two tries to connect (1 s: to dial a
	// unix socket costs nothing, and containers wait for us).
	MaxBackoff time.Duration
	// Logger: nil discards.
	Logger *slog.Logger
}

// DefaultConfig returns the defaults with containerd's usual address.
func DefaultConfig() Config {
	return Config{
		Address:          "/run/containerd/containerd.sock",
		IgnoreNamespaces: []string{"k8s.io", "moby", "buildkit"},
		RelistEvery:      30 * time.Second,
		ProbeEvery:       5 * time.Second,
		ConnectTimeout:   10 * time.Second,
		CallTimeout:      5 * time.Second,
		MaxBackoff:       time.Second,
	}
}

// maxSocketPath is the kernel's sun_path without the closing zero.
const maxSocketPath = 107

// Validate reports every problem of c at once.
func (c Config) Validate() error {
	var problems []error
	path := socketPath(c.Address)
	switch {
	case path == "":
		problems = append(problems, errors.New("containerd address is empty"))
	case !filepath.IsAbs(path):
		problems = append(problems, fmt.Errorf("containerd address %q: want an absolute path of a unix socket", c.Address))
	case len(path) > maxSocketPath:
		problems = append(problems, fmt.Errorf("containerd address %q: longer than %d bytes", c.Address, maxSocketPath))
	}
	for _, ns := range c.IgnoreNamespaces {
		if !validIdentifier(ns) {
			problems = append(problems, fmt.Errorf("ignored namespace %q: not a containerd namespace name", ns))
		}
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"relist interval", c.RelistEvery}, {"probe interval", c.ProbeEvery}, {"connect timeout", c.ConnectTimeout},
		{"call timeout", c.CallTimeout}, {"backoff", c.MaxBackoff},
	} {
		if d.value < 0 {
			problems = append(problems, fmt.Errorf("%s %s: must not be negative", d.name, d.value))
		}
	}
	return errors.Join(problems...)
}

func (c Config) withDefaults() Config {
	def := DefaultConfig()
	if c.IgnoreNamespaces == nil {
		c.IgnoreNamespaces = def.IgnoreNamespaces
	}
	c.IgnoreNamespaces = slices.Clone(c.IgnoreNamespaces)
	orDefault := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
	}
	orDefault(&c.RelistEvery, def.RelistEvery)
	orDefault(&c.ProbeEvery, def.ProbeEvery)
	orDefault(&c.ConnectTimeout, def.ConnectTimeout)
	orDefault(&c.CallTimeout, def.CallTimeout)
	orDefault(&c.MaxBackoff, def.MaxBackoff)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// socketPath takes the forms users know: a path, unix:PATH and unix://PATH.
func socketPath(address string) string {
	if rest, ok := strings.CutPrefix(address, "unix://"); ok {
		return rest
	}
	return strings.TrimPrefix(address, "unix:")
}

// maxIdentifier is containerd's limit for ids and namespaces.
const maxIdentifier = 76

// validIdentifier follows containerd's pkg/identifiers: runs of letters and
// digits with a single '.', '_' or '-' between them.
func validIdentifier(s string) bool {
	if s == "" || len(s) > maxIdentifier {
		return false
	}
	afterSeparator := true // as if one came before: the first must be a letter or digit
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
			afterSeparator = false
		case (c == '.' || c == '_' || c == '-') && !afterSeparator:
			afterSeparator = true
		default:
			return false
		}
	}
	return !afterSeparator
}
