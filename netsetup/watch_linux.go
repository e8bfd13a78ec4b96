package netsetup

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/nlx"
)

const (
	// settle gathers a burst of notifications into one repair.
	settle = 20 * time.Millisecond
	// pollEvery is the interval of the cheap check for what announces itself to
	// nobody: sysctls, and rules (a subscription would bring all changes of all
	// other tables; their generation is one number).
	pollEvery = time.Second
)

// Run keeps what Ensure and Attach made as they made it, until ctx ends, and
// returns ctx's error. Link, address and route changes are put right as they are
// announced, sysctls and rules within a second or so, and everything is compared
// once more at each audit. It first does what Ensure does and goes on trying if
// that fails. One call at a time.
func (n *Network) Run(ctx context.Context) error {
	if !n.cfg.Subnet.IsValid() {
		return ErrNoSubnet
	}
	sub, err := nlx.Subscribe(n.hostFD(), unix.NETLINK_ROUTE,
		slices.Concat([]int{unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE}, n.layout.groups())...)
	if err != nil {
		return err
	}
	w := &watch{n: n, wake: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(ctx)
	reader := make(chan error, 1)
	n.watching.Store(true)
	go func() { reader <- w.read(ctx, sub) }()
	err = w.loop(ctx, reader)
	cancel()
	n.watching.Store(false)
	sub.Close()
	return err
}

// watch is Run at work: one goroutine reads notifications into news, the other
// acts on them.
type watch struct {
	n           *Network
	interrupted bool   // a list could not be had: all is to be compared
	seen        moment // of the rules, at the last check
	portsOf     int64  // the layout's version when the ports were last looked at
	wake        chan struct{}

	mu   sync.Mutex // guards news
	news news
}

// news is what notifications said since the last look. Who acts on it asks the
// kernel first: a notification tells what was, not what is.
type news struct {
	shared  bool         // what all endpoints share
	uplinks bool         // default routes
	ports   map[int]bool // host ends that looked wrong
	gone    []int        // host ends that were deleted
	overrun bool         // some notifications were lost: anything may have happened
}

func (w *watch) note(fn func(*news)) {
	w.mu.Lock()
	if w.news.ports == nil {
		w.news.ports = make(map[int]bool)
	}
	fn(&w.news)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// suspect has a port looked at, unless somebody changes it now.
func (w *watch) suspect(p port) {
	if !p.leaving {
		w.note(func(s *news) { s.ports[p.HostIndex] = true })
	}
}

// forget has a port that is gone not looked at.
func (w *watch) forget(index int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.news.ports, index)
}

func (w *watch) take() news {
	w.mu.Lock()
	defer w.mu.Unlock()
	taken := w.news
	w.news = news{}
	return taken
}

// read receives notifications until ctx ends.
func (w *watch) read(ctx context.Context, sub *nlx.Subscription) error {
	for {
		err := sub.Receive(ctx, w.classify)
		switch {
		case err == nil:
		case errors.Is(err, nlx.ErrOverrun):
			w.note(func(s *news) { s.overrun = true })
		default:
			return err
		}
	}
}

func (w *watch) classify(typ uint16, body []byte) {
	if isLink := typ == unix.RTM_NEWLINK || typ == unix.RTM_DELLINK; isLink && len(body) > 0 && body[0] == unix.AF_BRIDGE {
		// About the port of a bridge, not the link: "deleted" means taken out of it.
		l, err := nlx.ParseLink(body)
		if p, ok := w.n.table.at(l.Index); err == nil && ok && (typ == unix.RTM_DELLINK || l.Settings != w.n.layout.want(p).port) {
			w.suspect(p)
		}
		return
	}
	if w.n.layout.notice(w, typ, body) {
		return
	}
	switch typ {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		w.link(typ, body)
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		if r, ok := nlx.ParseRoute(body); ok && r.Default() {
			w.note(func(s *news) { s.uplinks = true })
		}
	}
}

func (w *watch) link(typ uint16, body []byte) {
	l, err := nlx.ParseLink(body)
	if err != nil {
		return
	}
	switch {
	case typ == unix.RTM_DELLINK:
		// Who waits for the end of this link is woken here, without delay.
		w.forget(l.Index)
		p, ok := w.n.table.drop(l.Index)
		if ok {
			w.note(func(s *news) { s.gone = append(s.gone, l.Index) })
		}
		if ok && !p.leaving && !w.n.table.held(p.Owner) {
			w.n.log.Info("endpoint link disappeared", "owner", p.Owner, "interface", p.HostIfname)
			w.n.cfg.OnLost(p.Endpoint)
		}
	default:
		p, ok := w.n.table.at(l.Index)
		if ok && !p.leaving && (!p.hardened || len(planPort(l, w.n.layout.want(p))) > 0) {
			w.suspect(p)
		}
	}
}

func (w *watch) loop(ctx context.Context, reader <-chan error) error {
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	audit := time.NewTicker(w.n.cfg.AuditEvery)
	defer audit.Stop()
	w.try(ctx, w.audit)
	for {
		select {
		case err := <-reader:
			return err
		case <-w.wake:
			select {
			case <-time.After(settle):
			case <-ctx.Done():
			}
			w.try(ctx, w.act)
		case <-poll.C:
			w.try(ctx, w.poll)
		case <-audit.C:
			w.try(ctx, w.audit)
		}
	}
}

// try logs a failure: the next audit tries again. That so much changes that nothing
// can be listed is none: when hundreds of containers end at once the next poll looks.
func (w *watch) try(ctx context.Context, step func(context.Context) error) {
	err := step(ctx)
	switch {
	case err == nil || ctx.Err() != nil:
	case errors.Is(err, nlx.ErrInterrupted):
		w.interrupted = true
	default:
		w.n.log.Warn("network repair failed, will retry", "err", err)
	}
}

// act puts right what notifications hinted at.
func (w *watch) act(ctx context.Context) error {
	s := w.take()
	if s.overrun {
		w.n.log.Warn("notifications lost, comparing everything")
		return w.audit(ctx)
	}
	errs := []error{w.n.guard.dismiss(s.gone...)}
	if s.shared || s.uplinks {
		errs = append(errs, w.n.layout.sync(ctx))
	}
	if s.uplinks {
		errs = append(errs, w.n.syncFilter(ctx))
	}
	if w.outdated() {
		errs = append(errs, w.ports(ctx))
	} else {
		errs = append(errs, w.n.repairPorts(ctx, slices.Sorted(maps.Keys(s.ports))))
	}
	return errors.Join(errs...)
}

// poll is the cheap check: no lists, no programs unless something has changed.
func (w *watch) poll(ctx context.Context) error {
	if w.interrupted {
		w.interrupted = false
		return w.audit(ctx)
	}
	var errs []error
	right, err := w.n.sysctlsRight()
	errs = append(errs, err)
	if !right {
		errs = append(errs, w.n.layout.sync(ctx), w.n.syncFilter(ctx))
	}
	now, err := w.n.guard.moment()
	errs = append(errs, err)
	if err == nil && now.generation-w.seen.generation != now.commits-w.seen.commits {
		errs = append(errs, w.rules(ctx))
	} else if changed, err := w.n.legacyChanged(); changed || err != nil {
		errs = append(errs, err, w.n.syncForward(ctx))
	}
	if w.outdated() {
		errs = append(errs, w.ports(ctx))
	}
	return errors.Join(errs...)
}

// outdated reports whether somebody, possibly an Attach, has made what the endpoints
// share anew since the ports were last looked at.
func (w *watch) outdated() bool { return w.n.layout.version() != w.portsOf }

// ports looks at all ports.
func (w *watch) ports(ctx context.Context) error {
	version := w.n.layout.version()
	if err := w.n.syncPorts(ctx); err != nil {
		return err
	}
	w.portsOf = version
	return nil
}

// rules compares all rules and remembers the generation at which they were right.
// Its own changes raise the generation too, so it is read before them: one more
// comparison follows and finds nothing.
func (w *watch) rules(ctx context.Context) error {
	now, err := w.n.guard.moment()
	if err != nil {
		return err
	}
	if err := errors.Join(w.n.syncFilter(ctx), w.n.syncForward(ctx)); err != nil {
		return err
	}
	if w.n.loaded.Load() { // before, it is not known who may speak
		if err := w.n.syncGuard(ctx); err != nil {
			return err
		}
	}
	w.seen = now
	return nil
}

// legacyChanged reports whether legacy iptables' filter table has changed.
func (n *Network) legacyChanged() (bool, error) {
	exists, err := n.legacyTable()
	if err != nil || !exists {
		return false, err
	}
	sum, err := n.legacyFingerprint()
	changed := err == nil && sum != n.legacySeen
	n.legacySeen = sum
	return changed, err
}

// audit compares everything.
func (w *watch) audit(ctx context.Context) error {
	w.take() // all of it is looked at now
	err := w.n.settleMode(ctx)
	if err != nil {
		return err
	}
	err = errors.Join(w.n.layout.sync(ctx), w.rules(ctx), w.n.load(ctx), w.ports(ctx), w.n.syncGuard(ctx))
	if err == nil {
		w.n.ensured.Store(true)
	}
	return err
}

// repairPorts looks at some host ends and puts them right.
func (n *Network) repairPorts(ctx context.Context, indexes []int) error {
	if len(indexes) == 0 {
		return ctx.Err()
	}
	c, err := n.conn()
	if err != nil {
		return err
	}
	defer n.release(c)
	links, err := c.LinksByIndex(indexes) // the deletion of others is announced, too
	if err != nil {
		return err
	}
	return n.restore(c, links)
}

// syncPorts looks at all host ends, puts them right, takes in endpoints that the
// table does not know and reports those that the kernel does not have any more.
func (n *Network) syncPorts(ctx context.Context) error {
	known := n.table.all()
	c, err := n.conn()
	if err != nil {
		return err
	}
	defer n.release(c)
	links, err := n.scan(ctx, c)
	if err != nil {
		return err
	}
	present := make(map[int]bool, len(links))
	for _, l := range links {
		present[l.Index] = true
	}
	for _, p := range known {
		if present[p.HostIndex] || n.table.held(p.Owner) {
			continue
		}
		if p, ok := n.table.drop(p.HostIndex); ok && !p.leaving {
			n.log.Info("endpoint link is gone", "owner", p.Owner, "interface", p.HostIfname)
			n.cfg.OnLost(p.Endpoint)
		}
	}
	return n.restore(c, links)
}

// restore puts those of the links right that are ports of the table. One that
// Attach or Detach works on is left to it. It goes on past a failure.
func (n *Network) restore(c *nlx.Conn, links []nlx.Link) error {
	var errs []error
	var soft, right []port
	for _, l := range links {
		p, ok := n.table.at(l.Index)
		if !ok || p.leaving || n.table.held(p.Owner) {
			continue
		}
		if m, marked := parseAlias(l.Alias); marked && m.owner != p.Owner {
			continue // the index was given to another link
		}
		what, err := applyPort(c, l, n.layout.want(p))
		if err != nil {
			errs = append(errs, fmt.Errorf("repair %s: %w", l.Name, err))
			continue
		}
		if what != "" {
			n.log.Info("port restored", "interface", l.Name, "owner", p.Owner, "what", what)
			n.cfg.OnRepair("port", l.Name)
		}
		p.HostIfname = l.Name
		if right = append(right, p); !p.hardened {
			soft = append(soft, p)
		}
	}
	return errors.Join(append(errs, n.layout.entries(c, right), n.harden(soft))...)
}
