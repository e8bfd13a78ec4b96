package netsetup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/nlx"
)

// Paths of kernel parameters. A reader sees those of its thread's namespace, so
// they are only used inside Network.inHost.
const (
	sysctlRoot    = "/proc/sys/net/"
	sysctlForward = sysctlRoot + "ipv4/ip_forward"
)

func sysctlConf4(ifname, key string) string { return sysctlRoot + "ipv4/conf/" + ifname + "/" + key }
func sysctlConf6(ifname, key string) string { return sysctlRoot + "ipv6/conf/" + ifname + "/" + key }

func readSysctl(path string) (string, error) {
	b, err := os.ReadFile(path)
	return string(bytes.TrimSpace(b)), err
}

// setSysctl writes a parameter that has another value and reports whether it did.
// A parameter that does not exist (no IPv6 on the interface, interface gone) is
// left alone.
func setSysctl(path, value string) (changed bool, err error) {
	now, err := readSysctl(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil || now == value {
		return false, err
	}
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		return false, fmt.Errorf("set %s: %w", path, err)
	}
	return true, nil
}

func (s *bridgeSync) sysctls() error {
	return s.n.inHost(func() error {
		var errs []error
		for _, p := range s.b.sysctls() {
			changed, err := setSysctl(p[0], p[1])
			errs = append(errs, err)
			if changed && s.known && s.link.Alias != "" {
				s.repaired("sysctl")
			}
		}
		return errors.Join(errs...)
	})
}

// forwarding says which interfaces must forward for packets to come back.
type forwarding struct {
	uplinks []string // besides what the containers are behind
	opened  []string // of them, and of earlier ones, those that we switched on; sorted
	read    bool     // opened was taken over from the kernel's record
}

// uplinks returns the names of the default routes' interfaces and of the
// configured ones.
func (n *Network) uplinks(c *nlx.Conn) ([]string, error) {
	routes, err := c.Routes(0)
	if err != nil {
		return nil, err
	}
	names := slices.Clone(n.cfg.Uplinks)
	for _, i := range defaultRouteLinks(routes) {
		l, err := c.LinkByIndex(i)
		if errors.Is(err, unix.ENODEV) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if !slices.Contains(names, l.Name) {
			names = append(names, l.Name)
		}
	}
	return names, nil
}

// planOpened decides whose forwarding must be on by our doing. Pure. A host that
// is a router is left as it is. What we opened once stays opened and guarded,
// also when the default route has moved; what someone else opened is not ours.
func planOpened(router bool, uplinks, opened []string, forwards func(string) bool) []string {
	if router {
		return nil
	}
	want := slices.Clone(opened)
	for _, u := range uplinks {
		if !forwards(u) && !slices.Contains(want, u) {
			want = append(want, u)
		}
	}
	slices.Sort(want)
	return want
}

// syncFilter makes the nftables table and the forwarding of our uplinks what they
// must be. The guard is in place before an interface begins to forward.
func (n *Network) syncFilter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	n.syncMu.Lock()
	defer n.syncMu.Unlock()
	if err := n.syncFilterLocked(); err != nil {
		return fmt.Errorf("nftables table %s: %w", filterTable, err)
	}
	return nil
}

func (n *Network) syncFilterLocked() error {
	c, err := n.conn()
	if err != nil {
		return err
	}
	defer n.release(c)
	names, err := n.uplinks(c)
	if err != nil {
		return err
	}
	state, err := n.filter.read()
	if err != nil {
		return err
	}
	if !n.fwd.read && state != nil {
		n.fwd.opened = state.opened
	}
	n.fwd.read, n.fwd.uplinks = true, names
	var opened []string
	err = n.inHost(func() error {
		global, err := readSysctl(sysctlForward)
		opened = planOpened(global == "1", names, n.fwd.opened, func(ifname string) bool {
			v, err := readSysctl(sysctlConf4(ifname, "forwarding"))
			return err != nil || v == "1"
		})
		return err
	})
	if err != nil {
		return err
	}
	first := n.filter.written == nil
	if !n.filter.intact(state) || !slices.Equal(opened, n.filter.written.opened) {
		if !first && !n.filter.intact(state) {
			n.repaired("filter", "inet "+filterTable)
		}
		if err := n.filter.write(opened); err != nil {
			return err
		}
	}
	n.fwd.opened = opened
	return n.inHost(func() error {
		var errs []error
		for _, u := range opened {
			changed, err := setSysctl(sysctlConf4(u, "forwarding"), "1")
			errs = append(errs, err)
			if changed && !first {
				n.repaired("forwarding", u)
			}
		}
		return errors.Join(errs...)
	})
}

func (n *Network) repaired(what, subject string) {
	n.log.Info("restored", "what", what, "subject", subject)
	n.cfg.OnRepair(what, subject)
}

// sysctlsRight is the cheap check between audits: a few small files.
func (n *Network) sysctlsRight() (right bool, err error) {
	right = true
	check := func(path, value string) {
		if now, err := readSysctl(path); err == nil && now != value {
			right = false
		}
	}
	n.syncMu.Lock()
	opened, uplinks := n.fwd.opened, n.fwd.uplinks
	n.syncMu.Unlock()
	err = n.inHost(func() error {
		for _, p := range n.layout.sysctls() {
			check(p[0], p[1])
		}
		global, err := readSysctl(sysctlForward)
		if err != nil {
			return err
		}
		if global == "1" {
			right = right && len(opened) == 0
			return nil
		}
		for _, u := range slices.Concat(opened, uplinks) {
			check(sysctlConf4(u, "forwarding"), "1")
		}
		return nil
	})
	return right, err
}

// harden turns IPv6 off on host ends. A port of a bridge hands no packet to the
// host's IPv6, and the guard's tables drop what a container sends; this is for the
// moment in which someone takes the port out of the bridge, or the tables away.
func (n *Network) harden(ports []port) error {
	if !n.ipv6 || len(ports) == 0 {
		return nil
	}
	return n.inHost(func() error {
		var errs []error
		for _, p := range ports {
			_, err := setSysctl(sysctlConf6(p.HostIfname, "disable_ipv6"), "1")
			if err == nil {
				n.table.change(p.HostIndex, func(p *port) { p.hardened = true })
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
}
