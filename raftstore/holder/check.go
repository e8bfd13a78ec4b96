package holder

import (
	"fmt"

	"stellar.io/stellar/ipam"
)

// Check names the first broken invariant of the holder's own books, or returns nil:
// each owner holds one address and each address has one owner, and what the picker
// counts is what the leases say, so that no address leaks and none is given twice.
func (h *Holder) Check() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.recovered != nil {
		return nil
	}
	held, taken, cooling := 0, 0, 0
	now := h.now()
	for a, l := range h.leases {
		switch {
		case l.addr != a:
			return fmt.Errorf("lease of %s is kept as %s", l.addr, a)
		case l.held && h.owners[l.owner] != l:
			return fmt.Errorf("%s holds %s and is not known to", l.owner, a)
		case !l.held && h.owners[l.owner] == l:
			return fmt.Errorf("%s is said to hold %s, which was released", l.owner, a)
		}
		if l.held {
			held++
		}
		switch {
		case h.kept[a]: // the picker counts it as reserved
		case l.held, l.flight != nil, l.op != nil, !l.cooling:
			taken++
		case !h.cooled(l, now):
			cooling++
		}
	}
	c := h.picker.Counts()
	switch {
	case held != len(h.owners):
		return fmt.Errorf("%d addresses are held by %d owners", held, len(h.owners))
	case c.Taken != taken:
		return fmt.Errorf("%d addresses are taken, leases and unresolved commands account for %d", c.Taken, taken)
	case c.Cooling < cooling:
		return fmt.Errorf("%d addresses cool, %d were released", c.Cooling, cooling)
	case c.Taken+c.Cooling+c.Reserved+c.Free != c.Total:
		return fmt.Errorf("counts do not add up: %+v", c)
	}
	known := 0
	for o, all := range h.known {
		for _, l := range all {
			if l.owner != o || h.leases[l.addr] != l {
				return fmt.Errorf("%s is said to be known of %s, and is not", o, l.addr)
			}
			known++
		}
	}
	if known != len(h.leases) {
		return fmt.Errorf("%d of %d leases are known by their owner", known, len(h.leases))
	}
	return h.checkFlights()
}

// checkFlights: an address with an unresolved command is known to be so. The caller
// holds h.mu.
func (h *Holder) checkFlights() error {
	for _, f := range h.flights {
		for _, l := range f.leases {
			if l.flight != f {
				return fmt.Errorf("%s has an unresolved command and is not known to", l.addr)
			}
		}
		if f.env.Request == (ipam.RequestID{}) {
			return fmt.Errorf("an unresolved command has no request id")
		}
	}
	return nil
}
