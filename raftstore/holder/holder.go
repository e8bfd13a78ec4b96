package holder

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore/journal"
)

// Holder holds one subnet. All methods are safe for concurrent use.
type Holder struct {
	cfg     Config
	log     *slog.Logger
	fence   ipam.Fence
	journal *journal.Journal
	seq     *sequence
	start   time.Time     // zero of now()
	kick    chan struct{} // wakes Run; holds at most one

	mu        sync.Mutex         // guards the block; never held over I/O
	recovered *journal.Recovered // what the journal said; nil after Adopt
	closed    bool
	halted    error // why nothing is proposed or picked any more
	alone     bool  // the last commit did not come: leases are provisional at once
	caughtUp  bool  // a commit has come: the replica is as new as anybody's
	picker    *ipam.Picker
	leases    map[netip.Addr]*lease
	owners    map[ipam.Owner]*lease   // those that are held
	known     map[ipam.Owner][]*lease // leases by their owner, held or released
	waiting   []*bindOp               // binds that go with the next group
	flying    int                     // groups under way
	departed  time.Time               // when the last of them went
	flights   []*flight               // of unknown outcome, none of them being proposed by Bind
	reserved  map[netip.Addr]string   // the operator's reservations, as the journal has them
	reserving map[netip.Addr]int      // addresses that a Reserve of unknown outcome is about
	kept      map[netip.Addr]bool     // reserved in the picker
	blocked   map[netip.Addr]bool     // carried in the kernel by nobody's right
	looked    time.Duration           // what the last round took to look at all leases
	recheck   bool                    // look at the reservations at the next round
	ops       sync.WaitGroup          // Bind and Release at work; Add only under mu
}

// Open opens the journal, or makes it. Call Adopt next, then Run; or Close.
func Open(cfg Config) (*Holder, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("open holder: %w", err)
	}
	j, rec, err := journal.Open(cfg.JournalPath, journal.Options{
		Header: journal.Header{Node: cfg.Node, Cluster: cfg.Cluster}, Logger: cfg.Logger, FS: cfg.FS, Go: cfg.Clock.Go, OnSync: cfg.OnSync,
	})
	if err != nil {
		return nil, fmt.Errorf("open holder: %w", err)
	}
	var used uint64
	for _, r := range rec.Records {
		if r.Op == journal.OpSeq {
			used = r.Request.Seq
		}
	}
	return &Holder{
		cfg: cfg, log: cfg.Logger, fence: cfg.Subnet.Fence(), journal: j, recovered: &rec,
		seq: newSequence(cfg.Node, j, used, cfg.Clock.Now()), start: cfg.Clock.Now(), kick: make(chan struct{}, 1),
		picker: ipam.NewPicker(cfg.Subnet.Prefix, cfg.CoolDown),
		leases: make(map[netip.Addr]*lease), owners: make(map[ipam.Owner]*lease), known: make(map[ipam.Owner][]*lease),
		reserved: make(map[netip.Addr]string), reserving: make(map[netip.Addr]int),
		kept: make(map[netip.Addr]bool), blocked: make(map[netip.Addr]bool),
	}, nil
}

// closeWait bounds how long a disk that hangs holds up Close.
const closeWait = 3 * time.Second

// Close waits for the operations that have begun and closes the journal. Run calls
// it at its end. It may be called twice.
func (h *Holder) Close() error {
	h.mu.Lock()
	closed := h.closed
	h.closed = true
	h.mu.Unlock()
	if closed {
		return nil
	}
	done := make(chan error, 1)
	h.cfg.Clock.Go(func() {
		h.ops.Wait()
		done <- h.journal.Close()
	})
	select {
	case err := <-done:
		return err
	case <-time.After(closeWait):
		return errors.New("close holder: the journal is still being written, is the disk hanging?")
	}
}

// now returns monotonic time in nanoseconds.
func (h *Holder) now() int64 { return int64(h.cfg.Clock.Now().Sub(h.start)) }

// Audit lets Run compare journal and replica now, after the replica was replaced by a
// restore or caught up with the leader's. It does not block.
func (h *Holder) Audit() { h.wake() }

// wake lets Run look for work.
func (h *Holder) wake() {
	select {
	case h.kick <- struct{}{}:
	default:
	}
}

// Lookup returns the lease that the owner holds. A lease that Bind is still working
// on does not count.
func (h *Holder) Lookup(o ipam.Owner) (Held, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if l := h.owners[o]; l != nil && !l.binding {
		return l.view(), true
	}
	return Held{}, false
}

// LookupAddr returns the lease of an address that somebody holds.
func (h *Holder) LookupAddr(a netip.Addr) (Held, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if l := h.leases[a]; l != nil && l.held && !l.binding {
		return l.view(), true
	}
	return Held{}, false
}

// All returns the leases that are held, by address.
func (h *Holder) All() []Held {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make([]Held, 0, len(h.owners))
	for _, l := range h.owners {
		if !l.binding {
			out = append(out, l.view())
		}
	}
	slices.SortFunc(out, func(a, b Held) int { return a.Addr.Compare(b.Addr) })
	return out
}

// Counts counts the addresses.
func (h *Holder) Counts() Counts {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.picker.Counts()
	c := Counts{Total: p.Total, Reserved: p.Reserved}
	now := h.now()
	for _, l := range h.leases {
		switch {
		case l.held && l.attached:
			c.Attached++
		case l.held:
			c.Bound++
		case h.kept[l.addr]: // counted as reserved
		case l.flight != nil || !h.cooled(l, now):
			c.Cooling++
		}
		if l.held && !l.confirmed {
			c.Provisional++
		}
	}
	c.Free = max(0, c.Total-c.Reserved-c.Bound-c.Attached-c.Cooling)
	return c
}

// Status tells why the holder does not do all of its work: it wraps ErrFenced,
// raftstore.ErrStopped or journal.ErrFailed; nil when all is well. Alone reports whether leases are
// provisional for want of a leader.
func (h *Holder) Status() (alone bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.alone, errors.Join(h.halted, h.journal.Failed())
}

// JournalSize returns the bytes of the journal's file and about how many records it
// amounts to.
func (h *Holder) JournalSize() (bytes int64, records int) {
	bytes, _ = h.journal.Size()
	return bytes, h.journal.Records()
}

// Attached tells whether an interface of the owner carries its address. It is
// replicated later, if it lasts. It does nothing for an owner without a lease.
func (h *Holder) Attached(o ipam.Owner, attached bool) {
	h.mu.Lock()
	l := h.owners[o]
	changed := l != nil && l.attached != attached
	if changed {
		l.attached, l.attachedAt = attached, h.now()
	}
	h.mu.Unlock()
	if changed {
		h.wake()
	}
}

// cooled reports whether a released lease has cooled off.
func (h *Holder) cooled(l *lease, now int64) bool {
	return l.cooling && now-l.released >= int64(h.cfg.CoolDown)
}

// cool starts the cooling of a released lease, unless a command on it is unresolved:
// then landed does. The caller holds h.mu.
func (h *Holder) cool(l *lease) {
	if l.held || l.cooling || l.flight != nil {
		return
	}
	l.cooling, l.released = true, h.now()
	h.picker.Release(l.addr, l.released)
}

// launch notes that f is under way. Nobody else gets the addresses of its leases
// until landed. The caller holds h.mu.
func (h *Holder) launch(f *flight) {
	for _, l := range f.leases {
		l.flight = f
		if !l.held && l.cooling {
			_ = h.picker.Take(l.addr) // refused when it was reserved: that keeps it as well
		}
	}
}

// landed notes that the outcome of f is known. The caller holds h.mu.
func (h *Holder) landed(f *flight) {
	for _, l := range f.leases {
		if l.flight != f {
			continue
		}
		l.flight = nil
		switch now := h.now(); {
		case l.held:
		case h.cooled(l, now):
			h.picker.Free(l.addr)
		default:
			l.cooling = false
			h.cool(l)
		}
	}
	h.flights = slices.DeleteFunc(h.flights, func(g *flight) bool { return g == f })
}

// drop forgets a lease that nobody was told of. The address is again what it was
// before. The caller holds h.mu.
func (h *Holder) drop(l *lease) {
	if h.owners[l.owner] == l {
		delete(h.owners, l.owner)
	}
	if h.leases[l.addr] != l {
		return
	}
	h.remove(l)
	if p := l.before; p != nil {
		h.put(p)
		if !h.cooled(p, h.now()) {
			p.cooling = false
			h.cool(p)
			return
		}
	}
	h.picker.Free(l.addr)
}

// put makes l what is known of its address. The caller holds h.mu.
func (h *Holder) put(l *lease) {
	if old := h.leases[l.addr]; old == l {
		return
	} else if old != nil {
		h.remove(old)
	}
	h.leases[l.addr] = l
	h.known[l.owner] = append(h.known[l.owner], l)
}

// remove makes nothing known of the address of l, which put has put there. The caller
// holds h.mu.
func (h *Holder) remove(l *lease) {
	delete(h.leases, l.addr)
	of := slices.DeleteFunc(h.known[l.owner], func(other *lease) bool { return other == l })
	if h.known[l.owner] = of; len(of) == 0 {
		delete(h.known, l.owner)
	}
}

// leasesOf returns what is known of an owner, held or released, by address. The
// caller holds h.mu.
func (h *Holder) leasesOf(o ipam.Owner) []*lease {
	all := slices.Clone(h.known[o])
	slices.SortFunc(all, func(a, b *lease) int { return a.addr.Compare(b.addr) })
	return all
}

// halt stops all picking and proposing for good. The caller holds h.mu.
func (h *Holder) halt(err error) {
	if h.halted == nil {
		h.halted = err
		h.log.Error("nothing new is attached on this node, what runs goes on", "subnet", h.cfg.Subnet.Prefix, "error", err)
	}
}

// begin is called under h.mu by an operation that is about to work on l.
func (h *Holder) begin(l *lease) {
	l.op = make(chan struct{})
	h.ops.Add(1)
}

// end ends what begin began. The caller holds h.mu.
func (h *Holder) end(l *lease) {
	close(l.op)
	l.op, l.binding, l.before = nil, false, nil
	h.ops.Done()
}

// usable tells why no operation may begin. The caller holds h.mu.
func (h *Holder) usable() error {
	switch {
	case h.closed:
		return ErrClosed
	case h.recovered != nil:
		return ErrNotAdopted
	}
	return nil
}
