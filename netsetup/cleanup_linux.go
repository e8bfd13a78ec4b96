package netsetup

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/nlx"
)

// Cleanup removes everything of ours from the host namespace: endpoints of
// whatever node identity, the bridge, the exception in iptables, the forwarding
// that we switched on, the nftables tables. It goes on past failures and may be
// repeated. Containers lose their network. It needs no subnet; Run must not run.
func (n *Network) Cleanup(ctx context.Context) error {
	err := errors.Join(n.cleanLinks(ctx), n.guard.remove(), n.cleanForwarding(ctx), n.forward(ctx, true))
	if err != nil {
		return fmt.Errorf("clean up host network: %w", err)
	}
	return nil
}

// cleanLinks deletes the host ends in one go, then the bridge.
func (n *Network) cleanLinks(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c, err := n.conn()
	if err != nil {
		return err
	}
	defer n.release(c)
	links, err := c.Links()
	if err != nil {
		return err
	}
	var veths, bridges []int
	for _, l := range links {
		_, marked := parseAlias(l.Alias)
		switch {
		case l.Kind == "veth" && (marked || halfMade(l)):
			veths = append(veths, l.Index)
		case l.Kind == "bridge" && l.Name == n.cfg.Bridge && l.Group == linkGroup:
			bridges = append(bridges, l.Index)
		}
	}
	var errs []error
	if len(veths) > 0 {
		errs = append(errs, n.deleteLinks(veths)...)
	}
	for _, index := range bridges {
		r, err := c.Do(nlx.DelLink(index))
		errs = append(errs, firstError(r, err, unix.ENODEV))
	}
	errs = append(errs, removeRouted(c))
	n.layout = newLayout(n)
	n.alone.Store(false)
	n.table.reset()
	n.loaded.Store(false)
	return errors.Join(errs...)
}

// halfMade recognises a host end whose maker died before it wrote the alias.
func halfMade(l nlx.Link) bool {
	return l.Kind == "veth" && l.Group == linkGroup && l.Alias == ""
}

// cleanForwarding switches off what we switched on, as the table has recorded it,
// and then deletes the table, so that nothing forwards unguarded in between.
func (n *Network) cleanForwarding(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	n.syncMu.Lock()
	defer n.syncMu.Unlock()
	state, err := n.filter.read()
	if err != nil {
		return err
	}
	if state != nil {
		err = n.inHost(func() error {
			if global, err := readSysctl(sysctlForward); err != nil || global == "1" {
				return err // the host has become a router by someone else's doing
			}
			var errs []error
			for _, ifname := range state.opened {
				_, err := setSysctl(sysctlConf4(ifname, "forwarding"), "0")
				errs = append(errs, err)
			}
			return errors.Join(errs...)
		})
		if err != nil {
			return err
		}
		if err := n.filter.remove(); err != nil {
			return err
		}
	}
	n.fwd = forwarding{}
	n.ensured.Store(false)
	return nil
}
