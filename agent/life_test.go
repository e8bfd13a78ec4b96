package agent

import (
	"testing"
	"time"
)

func TestLifeOfAContainer(t *testing.T) {
	withAgent(t, func(b *bed) {
		x := b.c.create(key("a"), networked)
		b.wait(time.Second)
		bound := b.want(x, StateBound)
		b.wantLinks(0)

		looks := b.c.looked(x.Key)
		b.c.task(x)
		b.wait(900 * time.Microsecond) // less than a Look takes
		e := b.want(x, StateAttached)
		if b.c.looked(x.Key) != looks {
			t.Error("looked before the attach")
		}
		if e.Grade != GradeEarly || e.Address != bound.Address || !e.DefaultRoute || e.Ifname != "eth0" {
			t.Errorf("attached as %+v", e)
		}
		b.wait(time.Second)
		if b.c.looked(x.Key) != looks+1 {
			t.Errorf("%d looks after the attach, want one that verifies", b.c.looked(x.Key)-looks)
		}
		b.c.run(x)
		b.wait(time.Second)
		b.want(x, StateAttached)

		for range 3 {
			b.c.exit(x)
			b.wait(time.Second)
			b.want(x, StateBound)
			b.wantLinks(0)
			b.c.task(x)
			b.wait(10 * time.Millisecond)
			if e := b.want(x, StateAttached); e.Address != bound.Address {
				t.Errorf("address %s after a restart, was %s", e.Address, bound.Address)
			}
			b.c.run(x)
			b.wait(time.Second)
		}
		b.c.exit(x)
		b.c.remove(x)
		b.wait(time.Second)
		b.want(x, "")
		b.wantLinks(0)
		b.wantLeases(0)
		if b.l.binds.Load() != 1 || b.l.releases.Load() != 1 {
			t.Errorf("%d binds and %d releases, want one each", b.l.binds.Load(), b.l.releases.Load())
		}
	})
}
