package agent

import (
	"testing"
	"time"

	"stellar.io/stellar/events"
)

// silently keeps the containerd of a bed from telling of what fn does.
func (b *bed) silently(fn func()) {
	b.c.mu.Lock()
	b.c.filter = func(events.Hint) int { return 0 }
	b.c.mu.Unlock()
	fn()
	b.c.mu.Lock()
	b.c.filter = nil
	b.c.mu.Unlock()
}

// TestAbsenceNeedsAListing: a containerd that has sent no listing since it was
// connected to may be one that has lost its data.
func TestAbsenceNeedsAListing(t *testing.T) {
	withAgent(t, func(b *bed) {
		b.c.create(events.Key{Namespace: "default", ID: "witness"}, nil)
		x := b.running("web", networked)
		b.list()
		b.a.Connected(false, events.ErrNotConnected)
		b.silently(func() { b.c.exit(x); b.c.remove(x) })
		b.a.Connected(true, nil)
		b.a.Hint(events.Hint{Key: x.Key, Topic: events.ContainerUpdate})
		b.wait(time.Minute)
		b.wantLeases(1)
		b.list()
		b.wait(absentPause + time.Second)
		b.wantLeases(0)
	})
}

// TestDoubtSurvivesRestart: that containerd is another one than before is known to an
// agent that was not there when it changed, and doubted as long as ever.
func TestDoubtSurvivesRestart(t *testing.T) {
	dir := t.TempDir()
	withAgent(t, func(b *bed) {
		b.dir = dir
		b.c.create(events.Key{Namespace: "default", ID: "witness"}, nil)
		b.restart() // with a directory
		x := b.running("web", networked)
		b.list()
		b.wait(time.Second)
		b.halt()
		b.c.mu.Lock()
		b.c.id = "another"
		b.c.mu.Unlock()
		b.c.exit(x)
		b.c.remove(x)
		for range 2 {
			b.start()
			b.list()
			b.wait(time.Minute)
			b.wantLeases(1)
			b.halt()
		}
		b.start()
		b.list()
		b.wait(doubtPause + time.Minute)
		b.wantLeases(0)
	})
}
