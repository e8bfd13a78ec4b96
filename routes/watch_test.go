package routes

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/nlx"
)

// TestViewRoutes: our own changes do not lead to another round; everybody
// else's do if they can change what there is to do.
func TestViewRoutes(t *testing.T) {
	t.Parallel()
	w := abc()
	goals := desired(w)
	locate(goals, onLink(goals), ethName)
	var v view
	v.set(w, goals)
	old := via("172.16.4.0/22", "192.0.2.9", eth0)
	stray := via("172.16.12.0/22", "192.0.2.9", eth0)
	container := nlx.FIBRoute{Dst: w.Subnet, Type: unix.RTN_UNICAST, Protocol: unix.RTPROT_KERNEL, Index: 9}
	const add, del = unix.RTM_NEWROUTE, unix.RTM_DELROUTE
	tests := []struct {
		name string
		typ  uint16
		r    nlx.FIBRoute
		want bool
	}{
		{"we add", add, routeB, false},
		{"we delete an old one", del, old, false},
		{"we delete a stray", del, stray, false},
		{"somebody deletes ours", del, routeB, true},
		{"somebody alters ours", add, odd(routeB), true},
		{"somebody moves ours", add, old, true},
		{"somebody uses our mark", add, stray, true},
		{"our mark elsewhere", add, via("10.0.0.0/8", "192.0.2.9", eth0), false},
		{"a foreign route comes", add, static(routeB), true},
		{"a foreign route goes", del, static(routeB), true},
		{"an uplink's route goes", del, static(via("192.0.2.0/24", "192.0.2.9", eth0)), true},
		{"our own subnet's route", add, container, false},
		{"a router for our own subnet", add, static(via("172.16.1.0/24", "192.0.2.9", eth0)), true},
	}
	for _, tt := range tests {
		if got := v.routeMatters(tt.typ, tt.r); got != tt.want {
			t.Errorf("%s: %t", tt.name, got)
		}
	}
}

func TestViewLinks(t *testing.T) {
	t.Parallel()
	w := abc()
	goals := desired(w)
	locate(goals, onLink(goals), ethName)
	var v view
	v.set(w, goals)
	for _, tt := range []struct {
		index         int
		running, want bool
	}{{eth0, true, false}, {eth1, false, false}, {eth0, false, true}, {eth0, false, false}, {eth0, true, true}} {
		if got := v.linkMatters(tt.index, tt.running); got != tt.want {
			t.Errorf("%+v: %t", tt, got)
		}
	}
	// An uplink is still watched when nobody is reached by it any more.
	w.Peers = nil
	v.set(w, desired(w))
	if !v.linkMatters(eth0, false) {
		t.Error("an uplink is forgotten")
	}
}

// TestPacer: a change of what is wanted is acted on at once, one in the kernel
// after a while, longer while somebody works against us, and failures back off.
func TestPacer(t *testing.T) {
	t.Parallel()
	now := time.Now()
	about := func(p *pacer, want time.Duration) {
		t.Helper()
		if got := time.Until(p.next); got > want || got < want-want/4-20*time.Millisecond {
			t.Errorf("due in %s, want %s", got, want)
		}
	}
	p := &pacer{}
	p.ended(now, false, nil)
	about(p, auditEvery)
	p.settled()
	about(p, settleMin)
	p.soon()
	about(p, 0)
	p.settled()
	about(p, 0)
	for _, want := range []time.Duration{2 * settleMin, 4 * settleMin, 8 * settleMin, 16 * settleMin, settleMax, settleMax} {
		p.ended(time.Now(), true, nil)
		p.settled()
		about(p, want)
	}
	p.fought = p.fought.Add(-2 * auditEvery)
	p.ended(time.Now(), false, nil)
	p.settled()
	about(p, settleMin)
	for i := range 20 {
		p.ended(time.Now(), false, unix.ENETDOWN)
		if max, got := 6*min(retryMin<<min(i, 10), auditEvery)/5, time.Until(p.next); got > max || got < max/2 {
			t.Errorf("retry %d in %s, at most %s", i, got, max)
		}
	}
	p.soon()
	about(p, 0)
	p.ended(time.Now(), false, nil)
	if p.fails != 0 {
		t.Error("a success leaves the failures")
	}
}
