package agent

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"stellar.io/stellar/events"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore/holder"
)

// simLeases is the holder as the agent sees it, with everything that it is told and
// that is asked of it held against the promises.
type simLeases struct {
	*holder.Holder
	w *world
	l *life
}

func (s simLeases) Bind(ctx context.Context, r holder.BindRequest) (holder.Held, error) {
	if err := s.w.effect(s.l, "bind"); err != nil {
		return holder.Held{}, err
	}
	got, err := s.Holder.Bind(ctx, r)
	s.w.trace.line("bind").owner(r.Owner).addr(got.Addr).ok(err).end(s.w)
	if s.l.dead {
		return holder.Held{}, errDead // nobody hears it
	}
	if err != nil {
		return got, err
	}
	s.w.judgeBind(r.Owner, got)
	return got, s.w.after(s.l, "bind")
}

func (s simLeases) Release(ctx context.Context, o ipam.Owner) error {
	if err := s.w.effect(s.l, "release"); err != nil {
		return err
	}
	s.w.judgeRelease(o)
	held, had := s.Holder.Lookup(o)
	delete(s.w.acked, o)
	at := s.w.now
	err := s.Holder.Release(ctx, o)
	s.w.trace.line("release").owner(o).addr(held.Addr).ok(err).end(s.w)
	if had && err == nil && !s.l.dead {
		s.w.released[held.Addr] = rest{o, at}
	}
	return err
}

// judgeBind: what is given is given to one, and rested before.
func (w *world) judgeBind(o ipam.Owner, got holder.Held) {
	if a, ok := w.acked[o]; ok && a != got.Addr {
		w.breaks("I3: %s was given %s and now %s", o, a, got.Addr)
	}
	for other, a := range w.acked {
		if other != o && a == got.Addr {
			w.breaks("I1: %s was given to %s and to %s", a, other, o)
		}
	}
	for _, l := range w.k.links {
		if l.Owner != o && l.Addr == got.Addr {
			w.breaks("I1: %s was given to %s, the link of %s carries it", got.Addr, o, l.Owner)
		}
	}
	if r, ok := w.released[got.Addr]; ok && !got.Static && r.by != o && w.now-r.since < time.Minute && w.acked[o] != got.Addr {
		w.breaks("%s was picked for %s %s after its release by %s", got.Addr, o, w.now-r.since, r.by)
	}
	w.acked[o] = got.Addr
}

// recently is how old the truth that a release or a detach follows may be: a look
// takes time, and so does a commit after it.
const recently = 3 * time.Second

// judgeRelease: an address is let go only when no link carries it, and only on
// evidence: its container is gone for certain, or does not want it.
func (w *world) judgeRelease(o ipam.Owner) {
	if w.k.link(o) != nil {
		w.breaks("%s is released while its link is there", o)
	}
	x := w.c.slots[slices.Index(simKeys, keyOf(o))]
	f, gone := w.c.gone[o.Created]
	switch {
	case gone && !f.lost:
	case gone && w.c.newest[keyOf(o)] > f.at: // another container has, or had, its name since
	case gone && w.now-f.at >= doubtPause:
	case gone:
		w.breaks("%s is released %s after containerd forgot all it knew", o, w.now-f.at)
	case x == nil:
		w.breaks("%s is released, a container that never was", o)
	case w.now-x.changed < recently, w.unwanted(o, x):
	default:
		w.breaks("%s is released, its container has a record and wants it", o)
	}
}

// unwanted reports whether a container does not ask for what the owner has.
func (w *world) unwanted(o ipam.Owner, x *simContainer) bool {
	if x.Created.UnixNano() != o.Created || x.Labels == nil || x.join != nil {
		return true // a guest has no use for an address
	}
	want := x.Labels[labelIP]
	return want != "" && want != w.addressOf(o).String() || w.ownerIn(x) != o
}

func (w *world) addressOf(o ipam.Owner) netip.Addr {
	h, _ := w.life.holder.Lookup(o)
	return h.Addr
}

// newcomers reports whether all that live in a namespace came recently.
func (w *world) newcomers(ns *simNS) bool {
	for _, p := range w.k.procs {
		if p.ns == ns && w.time().Sub(p.start) >= recently {
			return false
		}
	}
	return true
}

// judgeDetach: a link is taken from a living namespace only where its container
// does not want it there.
func (w *world) judgeDetach(o ipam.Owner, l *simLink) {
	x := w.c.slots[slices.Index(simKeys, keyOf(o))]
	switch {
	case x == nil && w.now-w.c.removed[keyOf(o)] < recently:
	case x == nil:
		w.breaks("%s is detached from a living namespace, its container's record is gone", o)
	case w.now-x.changed < recently, w.unwanted(o, x):
	case x.proc != nil && x.proc.dead && w.newcomers(l.ns): // nobody lived there when it was looked at
	case x.proc != nil && (x.proc.ns == l.ns) == (x.Created.UnixNano() == o.Created):
		w.breaks("%s is detached from its task", o)
	}
}

// check is what holds after each step.
func (w *world) check() {
	if w.life == nil || w.life.dead {
		return
	}
	if err := w.life.holder.Check(); err != nil {
		w.breaks("I6: %v", err)
	}
	w.checkAcked()
}

// checkAcked: what Bind has reported is so until it is released.
func (w *world) checkAcked() {
	for o, a := range w.acked {
		if h, ok := w.life.holder.Lookup(o); !ok || h.Addr != a {
			w.breaks("I3: %s was given %s and holds %s", o, a, h.Addr)
		}
	}
}

// checkEnd is what holds once nothing has failed for long: all have what they want,
// nobody has more, and journal, replica and kernel agree.
func (w *world) checkEnd() {
	shown := map[events.Key]Endpoint{}
	for _, e := range w.life.agent.Endpoints() {
		shown[e.Key] = e
	}
	taken := map[string]bool{}
	for _, h := range w.life.holder.All() {
		taken[h.Addr.String()] = true
		w.checkLease(h)
	}
	for _, l := range w.k.links {
		if h, ok := w.life.holder.Lookup(l.Owner); !ok || h.Addr != l.Addr {
			w.breaks("at the end the link of %s has %s, its lease %s", l.Owner, l.Addr, h.Addr)
		}
		if l.ns.procs == 0 {
			w.breaks("at the end the link of %s is in a namespace without processes", l.Owner)
		}
	}
	for _, x := range w.c.slots {
		if x != nil {
			w.checkContainer(x, shown[x.Key], taken)
		}
	}
	c := w.life.holder.Counts()
	if c.Cooling != 0 || c.Provisional != 0 || c.Bound+c.Attached != len(taken) {
		w.breaks("I6: at the end %d leases, counts %+v", len(taken), c)
	}
	for l := range w.s.state.Leases(w.s.subnet.SubnetKey) {
		if h, ok := w.life.holder.Lookup(l.Owner); !ok || h.Addr != l.Addr || l.State == ipam.Cooling || (l.State == ipam.Attached) != h.Attached {
			w.breaks("at the end the replica has %s %s of %s, the holder %+v", l.Addr, l.State, l.Owner, h)
		}
	}
	if err := w.s.state.Check(); err != nil {
		w.breaks("%v", err)
	}
}

// checkLease: a lease is some container's that asks for it, or a link's.
func (w *world) checkLease(h holder.Held) {
	l, ok := w.s.state.LeaseByOwner(h.Owner)
	if !ok || l.Addr != h.Addr {
		w.breaks("at the end the replica does not know that %s holds %s", h.Owner, h.Addr)
	}
	x := w.c.slots[slices.Index(simKeys, keyOf(h.Owner))]
	if (x == nil || x.Created.UnixNano() != h.Owner.Created || x.Labels == nil) && w.k.link(h.Owner) == nil {
		w.breaks("at the end %s, which is no networked container, holds %s", h.Owner, h.Addr)
	}
}

func (w *world) checkContainer(x *simContainer, e Endpoint, taken map[string]bool) {
	var links []*simLink
	live := x.proc != nil && !x.proc.dead
	if live {
		for _, l := range w.k.links {
			if l.ns == x.proc.ns {
				links = append(links, l)
			}
		}
	}
	if len(links) > 1 {
		w.breaks("at the end %s has %d links", x.Key, len(links))
	}
	switch {
	case x.Labels == nil:
		if e.State != "" || len(links) > 0 && links[0].Owner.Created == x.Created.UnixNano() {
			w.breaks("at the end %s, which asks for nothing, is %q with %d links", x.Key, e.State, len(links))
		}
	case x.Labels[labelMTU] != "":
		if e.State != StateRejected && e.State != StateAttached {
			w.breaks("at the end %s is %q (%s)", x.Key, e.State, e.Reason)
		}
	case live && x.twin && (e.State == StateBound || e.State == StatePending): // its exit was not heard of: a limit of what is promised
	case e.State == StateRejected && (taken[x.Labels[labelIP]] || len(taken) == 13):
	case !live:
		// (A guest's exit that containerd does not see is not seen here either.)
		if e.State != StateBound && e.State != StatePending && !(e.State == StateShared && x.Task != nil) && !(e.State == StateAttached && w.k.link(e.Owner) != nil) {
			w.breaks("at the end %s without a task is %q (%s)", x.Key, e.State, e.Reason)
		}
	case e.State != StateAttached && e.State != StateShared || len(links) != 1:
		w.breaks("at the end %s is %q (%s) with %d links", x.Key, e.State, e.Reason, len(links))
	case links[0].Addr != e.Address || e.State == StateAttached && links[0].Owner != e.Owner:
		w.breaks("at the end %s is shown with %s as %s, it has %s as %s", x.Key, e.Address, e.Owner, links[0].Addr, links[0].Owner)
	}
}
