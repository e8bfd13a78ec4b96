package netsetup

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/nlx"
)

// plugged is what bridge and host know of a port besides its link.
type plugged struct{ entry, neighbour bool }

// entries makes what bridge and host know of ports what it must be: where the
// hardware address is, and whose it is. One port is told without looking; with more,
// everything is listed, and neighbours of addresses that nobody has any more go, too.
func (b *bridged) entries(c *nlx.Conn, ports []port) error {
	bridge := int(b.index.Load())
	if bridge == 0 || len(ports) == 0 {
		return nil
	}
	have := make(map[int]plugged, len(ports))
	var stale []netip.Addr
	if len(ports) > 1 {
		var err error
		if have, stale, err = b.look(c, ports, bridge); err != nil {
			return err
		}
	}
	var errs []error
	for _, p := range ports {
		if p.MAC == nil {
			continue // the guard learns it first
		}
		var msgs []*nlx.Message
		if !have[p.HostIndex].entry {
			msgs = append(msgs, nlx.NewBridgeEntry(p.HostIndex, p.MAC))
		}
		if !have[p.HostIndex].neighbour {
			msgs = append(msgs, b.neighbour(p.Addr, p.MAC))
		}
		if len(msgs) == 0 {
			continue
		}
		r, err := c.Do(msgs...)
		if err = firstError(r, err, unix.ENODEV); err != nil {
			errs = append(errs, fmt.Errorf("entries of %s: %w", p.HostIfname, err))
		} else if len(ports) > 1 {
			b.n.log.Info("endpoint restored", "interface", p.HostIfname, "owner", p.Owner, "what", "bridge entries")
			b.n.cfg.OnRepair("neighbour", p.HostIfname)
		}
	}
	return errors.Join(append(errs, b.forget(c, stale))...)
}

// look lists what bridge and host know. stale are addresses of neighbours that we
// made for endpoints that are gone: an Attach is admitted before it makes its own.
func (b *bridged) look(c *nlx.Conn, ports []port, bridge int) (have map[int]plugged, stale []netip.Addr, err error) {
	table, err := c.BridgeEntries()
	if err != nil {
		return nil, nil, err
	}
	neighbours, err := c.Neighbours()
	if err != nil {
		return nil, nil, err
	}
	byIndex, byAddr := make(map[int]port, len(ports)), make(map[netip.Addr]port, len(ports))
	for _, p := range ports {
		byIndex[p.HostIndex], byAddr[p.Addr] = p, p
	}
	have = make(map[int]plugged, len(ports))
	for _, e := range table {
		p, ok := byIndex[e.Index]
		if ok && e.Bridge == bridge && e.State == unix.NUD_NOARP && e.Sticky && e.MAC.String() == p.MAC.String() {
			have[e.Index] = plugged{entry: true}
		}
	}
	for _, e := range neighbours {
		if e.Index != bridge || e.State != unix.NUD_PERMANENT {
			continue
		}
		p, ok := byAddr[e.Addr]
		switch {
		case ok && e.MAC.String() == p.MAC.String():
			have[p.HostIndex] = plugged{entry: have[p.HostIndex].entry, neighbour: true}
		case !ok && e.Mark == protocol && !b.n.guard.admits(e.Addr):
			stale = append(stale, e.Addr)
		}
	}
	return have, stale, nil
}

// entry reads that what is known of a port has changed: with the bridge's address, or
// when it goes down, all neighbours go.
func (b *bridged) entry(w *watch, typ uint16, body []byte) {
	if e, ok := nlx.ParseBridgeEntry(body); ok {
		if p, ok := b.n.table.at(e.Index); ok && typ == unix.RTM_DELNEIGH && e.MAC.String() == p.MAC.String() {
			w.suspect(p)
		}
		return
	}
	e, ok := nlx.ParseNeigh(body)
	if !ok || e.Index != int(b.index.Load()) {
		return
	}
	if p, ok := b.n.table.holder(e.Addr); ok && (typ == unix.RTM_DELNEIGH || e.State != unix.NUD_PERMANENT || e.MAC.String() != p.MAC.String()) {
		w.suspect(p)
	}
}
