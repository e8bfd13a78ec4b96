// Package config is the configuration of the agent: one struct, its defaults,
// its file and what may stand in it. Precedence: flags, environment, file,
// defaults.
package config

import (
	_ "embed"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"stellar.io/stellar/ipam"
)

// DefaultPath is where the file is looked for unless one is named.
const DefaultPath = "/etc/stellar/config.toml"

// Modes.
const (
	ModeBridge = "bridge"
	ModeRouted = "routed"
)

// Log formats.
const (
	FormatAuto = "auto" // text, without times when the journal adds them
	FormatText = "text"
	FormatJSON = "json"
)

// Config is what an agent runs with. It is not changed after it was resolved.
type Config struct {
	// Address is where the API is served, "unix:///path"; empty: stellar.sock in
	// RunDir. SocketPath gives the path.
	Address string `toml:"address"`
	// DataDir holds identity and store, RunDir the socket; absolute paths.
	DataDir string `toml:"data-dir"`
	RunDir  string `toml:"run-dir"`
	// NodeName in the cluster; empty: the host name.
	NodeName string `toml:"node-name"`
	// Listen is the node-to-node port; zero: port 9640 of the address of the
	// default route's interface. Advertise is what other nodes are told; zero:
	// the same. MetricsListen serves metrics and health; zero: off.
	Listen        netip.AddrPort `toml:"listen"`
	Advertise     netip.AddrPort `toml:"advertise"`
	MetricsListen netip.AddrPort `toml:"metrics-listen"`
	// Mode is how containers are attached: ModeBridge, ModeRouted, or empty for what
	// the size of the cluster's subnets asks for.
	Mode string `toml:"mode"`
	// Bridge is the name of the bridge.
	Bridge string `toml:"bridge"`
	// MTU in bytes; 0: that of the default route's interface.
	MTU int `toml:"mtu"`
	// Masquerade hides containers behind the host's address outside the network.
	Masquerade bool `toml:"masquerade"`
	// CommitWait is how long an attach waits for a commit before it goes on alone.
	CommitWait Duration `toml:"commit-wait"`
	// CoolDown is how long a released address is kept from others; 0: not at all.
	CoolDown   Duration   `toml:"cool-down"`
	Containerd Containerd `toml:"containerd"`
	Cluster    Cluster    `toml:"cluster"`
	Hold       Hold       `toml:"hold"`
	Web        Web        `toml:"web"`
	Log        Log        `toml:"log"`

	// Init makes a new cluster when the data directory is empty. A flag only.
	Init bool `toml:"-"`
}

// Containerd says where containerd is and what of it is not ours.
type Containerd struct {
	Address  string `toml:"address"`   // path of its socket
	StateDir string `toml:"state-dir"` // its "state" directory, with the bundles of tasks
	// IgnoreNamespaces are its namespaces in which no container is looked at;
	// empty: none are ignored.
	IgnoreNamespaces []string `toml:"ignore-namespaces"`
}

// Cluster says how this node takes part.
type Cluster struct {
	// ContactLimit is for how long no leader may have been heard before no new
	// address is handed out; counted through restarts and reboots.
	ContactLimit Duration `toml:"contact-limit"`
}

// Hold says whether programs are kept from starting before their network is up.
type Hold struct {
	Enabled bool `toml:"enabled"`
	// Deadline is how long a program is kept at most.
	Deadline Duration `toml:"deadline"`
}

// Web says where the web page is served.
type Web struct {
	// Listen is an IPv4 loopback address with a port; zero: there is no page.
	Listen netip.AddrPort `toml:"listen"`
}

// Log says what is logged and how.
type Log struct {
	Level  string `toml:"level"`  // debug, info, warn or error
	Format string `toml:"format"` // FormatAuto, FormatText or FormatJSON
}

// Duration is written like "500ms" in the file; a bare number, which would be
// nanoseconds, is an error.
type Duration struct{ time.Duration }

// UnmarshalText reads what time.ParseDuration takes.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is not a duration like 500ms or 1m", text)
	}
	d.Duration = v
	return nil
}

//go:embed default.toml
var defaultFile string

// DefaultFile returns the commented file whose values are the defaults.
func DefaultFile() string { return defaultFile }

// DefaultConfig returns what an agent runs with when nothing is configured.
func DefaultConfig() Config {
	return Config{
		DataDir:       "/var/lib/stellar",
		RunDir:        "/run/stellar",
		MetricsListen: netip.MustParseAddrPort("127.0.0.1:9642"),
		Bridge:        "stellar0",
		Masquerade:    true,
		CommitWait:    Duration{500 * time.Millisecond},
		CoolDown:      Duration{time.Minute},
		Containerd: Containerd{
			Address:          "/run/containerd/containerd.sock",
			StateDir:         "/run/containerd",
			IgnoreNamespaces: []string{"k8s.io", "moby", "buildkit"},
		},
		Cluster: Cluster{ContactLimit: Duration{12 * time.Hour}},
		Hold:    Hold{Enabled: true, Deadline: Duration{2 * time.Second}},
		Log:     Log{Level: "info", Format: FormatAuto},
	}
}

// SocketAddress returns the address of the API as the commands take it.
func (c Config) SocketAddress() string {
	if c.Address != "" {
		return c.Address
	}
	return "unix://" + filepath.Join(c.RunDir, "stellar.sock")
}

// SocketPath returns the path of the API's socket.
func (c Config) SocketPath() string { return strings.TrimPrefix(c.SocketAddress(), "unix://") }

// AttachMode returns Mode as the replicated state knows it; zero: it follows from the
// size of the subnets.
func (c Config) AttachMode() ipam.Mode {
	switch c.Mode {
	case ModeBridge:
		return ipam.ModeBridge
	case ModeRouted:
		return ipam.ModeRouted
	}
	return 0
}

// LogLevel returns Log.Level for slog; info if it is none of its words.
func (c Config) LogLevel() slog.Level {
	var l slog.Level
	if err := l.UnmarshalText([]byte(c.Log.Level)); err != nil {
		return slog.LevelInfo
	}
	return l
}
