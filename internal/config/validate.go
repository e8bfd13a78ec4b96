package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

const (
	minMTU = 576   // what every IPv4 host must take
	maxMTU = 65535 // what an IPv4 packet can have
)

var (
	nodeName  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
	linkName  = regexp.MustCompile(`^[^\s/:%]{1,15}$`)
	namespace = regexp.MustCompile(`^[A-Za-z0-9]+([._-][A-Za-z0-9]+)*$`) // containerd's identifiers
)

// Validate returns all problems, joined, each beginning with its key.
func (c Config) Validate() error {
	var errs []error
	bad := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %s", key, fmt.Sprintf(format, args...)))
	}
	if err := validAddress(c.SocketAddress()); err != nil {
		bad("address", "%v", err)
	}
	for _, p := range []struct{ key, path string }{
		{"data-dir", c.DataDir}, {"run-dir", c.RunDir},
		{"containerd.address", c.Containerd.Address}, {"containerd.state-dir", c.Containerd.StateDir},
	} {
		if !filepath.IsAbs(p.path) || filepath.Clean(p.path) == "/" {
			bad(p.key, "%q is not an absolute path", p.path)
		}
	}
	if c.NodeName != "" && !nodeName.MatchString(c.NodeName) {
		bad("node-name", "%q is not a host name (letters, digits, '.', '-', '_', at most 63)", c.NodeName)
	}
	c.validatePorts(bad)
	if !slices.Contains([]string{"", ModeBridge, ModeRouted}, c.Mode) {
		bad("mode", "%q is not bridge or routed", c.Mode)
	}
	if !linkName.MatchString(c.Bridge) || c.Bridge == "." || c.Bridge == ".." {
		bad("bridge", "%q is not a name for a network interface (1 to 15 characters)", c.Bridge)
	}
	if c.MTU != 0 && (c.MTU < minMTU || c.MTU > maxMTU) {
		bad("mtu", "%d is neither 0 nor between %d and %d", c.MTU, minMTU, maxMTU)
	}
	if d := c.CommitWait.Duration; d < 10*time.Millisecond || d > 10*time.Second {
		bad("commit-wait", "%s is not between 10ms and 10s", d)
	}
	if d := c.CoolDown.Duration; d < 0 || d > 24*time.Hour {
		bad("cool-down", "%s is not between 0s and 24h", d)
	}
	if d := c.Cluster.ContactLimit.Duration; d < 10*time.Second || d > 12*time.Hour {
		bad("cluster.contact-limit", "%s is not between 10s and 12h", d)
	}
	if d := c.Hold.Deadline.Duration; d < 100*time.Millisecond || d > time.Minute {
		bad("hold.deadline", "%s is not between 100ms and 1m", d)
	}
	for _, ns := range c.Containerd.IgnoreNamespaces {
		if !namespace.MatchString(ns) || len(ns) > 76 {
			bad("containerd.ignore-namespaces", "%q is not the name of a containerd namespace", ns)
		}
	}
	if new(slog.LevelVar).UnmarshalText([]byte(c.Log.Level)) != nil {
		bad("log.level", "%q is not debug, info, warn or error", c.Log.Level)
	}
	if !slices.Contains([]string{FormatAuto, FormatText, FormatJSON}, c.Log.Format) {
		bad("log.format", "%q is not auto, text or json", c.Log.Format)
	}
	return errors.Join(errs...)
}

func (c Config) validatePorts(bad func(key, format string, args ...any)) {
	for _, p := range []struct {
		key  string
		addr netip.AddrPort
	}{{"listen", c.Listen}, {"advertise", c.Advertise}, {"metrics-listen", c.MetricsListen}} {
		if p.addr.IsValid() && p.addr.Port() == 0 {
			bad(p.key, "%s has no port", p.addr)
		}
	}
	if c.Advertise.IsValid() && (c.Advertise.Addr().IsUnspecified() || c.Advertise.Addr().IsMulticast()) {
		bad("advertise", "%s is no address that other nodes can reach", c.Advertise)
	}
	if w := c.Web.Listen; w.IsValid() {
		switch {
		case !w.Addr().Is4() || !w.Addr().IsLoopback():
			bad("web.listen", "%s is not an IPv4 loopback address such as 127.0.0.1:9643 (from elsewhere: ssh -L 9643:127.0.0.1:9643 HOST)", w)
		case w.Port() == 0:
			bad("web.listen", "%s has no port", w)
		case w == c.MetricsListen:
			bad("web.listen", "%s is metrics-listen, too", w)
		}
	}
	if c.MetricsListen.IsValid() && c.MetricsListen == c.Listen {
		bad("metrics-listen", "%s is the node-to-node port, too", c.MetricsListen)
	}
}

func validAddress(address string) error {
	path := strings.TrimPrefix(address, "unix://")
	if !filepath.IsAbs(path) {
		return fmt.Errorf("%q is not of the form unix:///path/to/socket", address)
	}
	return nil
}
