package agent

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// TestBarred: where no endpoint may be made any more, those that there are stay, over a
// restart, too; a container that is started anew does not get the address that it had,
// for it may be another node's now. When it is allowed again it has it.
func TestBarred(t *testing.T) {
	t.Parallel()
	withAgent(t, func(b *bed) {
		x, y := b.c.create(key("a"), networked), b.c.create(key("b"), networked)
		for _, c := range []*fakeContainer{x, y} {
			b.c.task(c)
			b.wait(10 * time.Millisecond)
			b.c.run(c)
		}
		b.wait(time.Second)
		was, stays := b.want(x, StateAttached), b.want(y, StateAttached)

		why := errors.New("not a member")
		b.barred.Store(&why)
		b.wait(time.Minute)
		b.restart()
		for _, c := range []*fakeContainer{x, y} {
			b.want(c, StateAttached)
		}
		b.c.exit(x)
		b.wait(time.Second)
		b.want(x, StateBound)
		b.c.task(x)
		b.wait(time.Second)
		b.c.run(x)
		b.wait(time.Minute)
		if e := b.want(x, StateRetrying); !strings.Contains(e.Reason, why.Error()) {
			t.Errorf("started anew: %+v", e)
		}
		b.wantLinks(1)
		if e := b.want(y, StateAttached); e.Address != stays.Address {
			t.Errorf("%+v, was %+v", e, stays)
		}
		b.restart()
		b.wait(time.Minute)
		b.wantLinks(1)

		b.barred.Store(nil)
		b.wait(2 * time.Minute)
		if e := b.want(x, StateAttached); e.Address != was.Address {
			t.Errorf("%+v, was %+v", e, was)
		}
	})
}
