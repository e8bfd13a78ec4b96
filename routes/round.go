package routes

import (
	"errors"
	"fmt"
	"net/netip"

	"stellar.io/stellar/internal/failpoint"
	"stellar.io/stellar/internal/nlx"
)

// fib is the kernel's side of a round.
type fib interface {
	routes() ([]nlx.FIBRoute, error)
	lookup([]netip.Addr) ([]nlx.Lookup, error)
	change([]action) ([]error, error)
	name(index int) string
	rpFilter(index int) (int, error)
	forget()
}

// round is what one comparison leaves to the next. The loop's goroutine has it alone.
type round struct {
	m *Manager
	k fib
	// answers are the kernel's about next hops; they hold until forget.
	answers map[netip.Addr]nlx.Lookup
	// placed are the desired routes that the kernel had after the last round: if
	// one is missing now, somebody has removed it.
	placed   map[key]nlx.FIBRoute
	repaired int // in the last round
}

func newRound(m *Manager, k fib) *round {
	return &round{m: m, k: k, answers: map[netip.Addr]nlx.Lookup{}, placed: map[key]nlx.FIBRoute{}}
}

// forget has everything about links and addresses asked again.
func (r *round) forget() {
	clear(r.answers)
	r.k.forget()
}

// run compares once. Unless dryRun is set, it makes the kernel's table what is
// wanted: it adds before it deletes, so that no packet meets a gap, and goes on
// past a failure.
func (r *round) run(dryRun bool) ([]Change, error) {
	r.repaired = 0
	w := r.m.cfg.Wants()
	goals := desired(w)
	if err := r.ask(w, goals); err != nil {
		return nil, err
	}
	locate(goals, r.answers, r.k.name)
	list, err := r.k.routes()
	if err != nil {
		return nil, err
	}
	have := tableOf(relevant(w, list))
	add, del := plan(w, goals, have)
	actions := append(add, del...)
	for i := range actions {
		if a := &actions[i]; a.route.Kind == Via {
			a.route.Device = r.k.name(a.fib.Index)
		}
	}
	if dryRun {
		r.m.publish(compare(w, goals, have, nil, r.k.name), r.conditions(w, goals, have))
		return changesOf(actions), nil
	}
	r.m.view.set(w, goals)
	if len(actions) > 0 {
		if err := failpoint.Err(failpoint.RoutesApply); err != nil {
			return nil, err
		}
	}
	errs, err := r.k.change(actions)
	if err != nil {
		return nil, err
	}
	if len(actions) > 0 {
		failpoint.Hit(failpoint.RoutesApplied)
	}
	failed := r.done(actions, errs, have)
	conditions := r.conditions(w, goals, have)
	status := compare(w, goals, have, failed, r.k.name)
	old, oldConditions := r.m.publish(status, conditions)
	logTrouble(r.m.log, old, status, oldConditions, conditions)
	r.remember(goals, have)
	return changesOf(actions), failure(actions, errs)
}

// relevant leaves out what lies neither in nor around the network, and what only
// leads to single containers of this node.
func relevant(w Wants, list []nlx.FIBRoute) []nlx.FIBRoute {
	out := make([]nlx.FIBRoute, 0, len(list))
	for _, f := range list {
		if w.within(f.Dst) && (f.Dst.Bits() < 32 || !contains(w.Subnet, f.Dst) || ours(f) && f.Routed) {
			out = append(out, f)
		}
	}
	return out
}

// ask fills answers for the next hops of goals and this node's own address.
func (r *round) ask(w Wants, goals []goal) error {
	hops := nextHops(goals)
	if w.Address.Is4() {
		hops = append(hops, w.Address)
	}
	var unknown []netip.Addr
	for _, a := range hops {
		if _, known := r.answers[a]; !known {
			unknown = append(unknown, a)
		}
	}
	got, err := r.k.lookup(unknown)
	if err != nil {
		return err
	}
	for i, a := range unknown {
		r.answers[a] = got[i]
	}
	return nil
}

// done applies to have what the kernel has accepted, tells of it, and returns
// what it has refused. After a refusal nothing of what was known holds.
func (r *round) done(actions []action, errs []error, have table) map[key]error {
	failed := map[key]error{}
	done := map[news][]Route{}
	for i, a := range actions {
		k := keyOf(a.fib)
		if errs[i] != nil {
			failed[k] = errs[i]
			continue
		}
		have.apply(a)
		what := news{a.op, a.op != Delete && same(r.placed[k], a.fib)}
		done[what] = append(done[what], a.route)
		if !what.repair {
			continue
		}
		r.repaired++
		if r.m.cfg.OnRepair != nil {
			r.m.cfg.OnRepair(a.route)
		}
	}
	if len(failed) > 0 {
		r.forget()
	}
	logChanges(r.m.log, done)
	return failed
}

// apply does to t what a has done to the kernel's table.
func (t table) apply(a action) {
	k := keyOf(a.fib)
	switch a.op {
	case Add:
		t[k] = append(t[k], a.fib)
	case Replace:
		t[k][0] = a.fib
	case Delete:
		for i, r := range t[k] {
			if r == a.fib {
				t[k] = append(t[k][:i:i], t[k][i+1:]...)
				return
			}
		}
	}
}

// conditions returns what is to be said about the host.
func (r *round) conditions(w Wants, goals []goal, have table) []Condition {
	out := append(carriers(goals), overlaps(w, goals, have, r.k.name)...)
	if index, nodes := asymmetric(w, goals, r.answers); len(nodes) > 0 {
		if v, err := r.k.rpFilter(index); err != nil {
			r.m.log.Debug("rp_filter is not known", "err", err)
		} else if v == rpStrict {
			out = append(out, strictFilter(w, r.k.name(index), nodes))
		}
	}
	sortConditions(out)
	return out
}

func (r *round) remember(goals []goal, have table) {
	clear(r.placed)
	for _, g := range goals {
		want := g.fib()
		if rs := have[keyOf(want)]; g.state == "" && len(rs) > 0 && same(rs[0], want) {
			r.placed[keyOf(want)] = want
		}
	}
}

func changesOf(actions []action) []Change {
	out := make([]Change, len(actions))
	for i, a := range actions {
		out[i] = Change{a.op, a.route}
	}
	return out
}

// failure joins what was refused; a thousand refusals are a few and a number.
func failure(actions []action, errs []error) error {
	const few = 3
	var out []error
	n := 0
	for i, err := range errs {
		if err == nil {
			continue
		}
		if n++; n <= few {
			out = append(out, fmt.Errorf("%s route %s: %w", actions[i].op, actions[i].route.Destination, err))
		}
	}
	if n > few {
		out = append(out, fmt.Errorf("and %d more", n-few))
	}
	return errors.Join(out...)
}
