package agent

import (
	"context"
	"errors"
	"testing"
	"time"
)

// TestAwaitEndsALook: a look that began in the middle of the task's creation would
// be answered only after the client has gone.
func TestAwaitEndsALook(t *testing.T) {
	t.Parallel()
	withAgent(t, func(b *bed) {
		x := b.c.create(key("web"), networked, func(x *fakeContainer) { x.busy = make(chan struct{}) })
		b.wait(time.Second)
		p := b.creating(x)
		if e, wanted, err := b.a.Await(b.within(time.Second), x.Key, p.pid); err != nil || !wanted || e.Grade != GradeSync {
			t.Errorf("Await = %+v, %t, %v", e, wanted, err)
		}
		b.created(x)
		b.c.run(x)
		b.wait(time.Minute)
		b.want(x, StateAttached)
	})
}

// TestAwait: the hook of a runtime waits for what the labels ask.
func TestAwait(t *testing.T) {
	t.Parallel()
	withAgent(t, func(b *bed) {
		x := b.c.create(key("web"), networked)
		p := b.creating(x)
		e, wanted, err := b.a.Await(b.within(time.Second), x.Key, p.pid)
		if err != nil || !wanted || e.Grade != GradeSync || e.State != StateAttached {
			t.Errorf("Await = %+v, %t, %v", e, wanted, err)
		}
		b.created(x)
		b.c.run(x)
		b.wait(time.Minute)
		b.want(x, StateAttached)
		plain := b.c.create(key("plain"), nil)
		p = b.creating(plain)
		if _, wanted, err := b.a.Await(b.within(time.Second), plain.Key, p.pid); wanted || err != nil {
			t.Errorf("Await of a container without labels: %t, %v", wanted, err)
		}
		bad := b.c.create(key("bad"), with(labelMTU, "x"))
		p = b.creating(bad)
		var refused *RejectError
		if _, _, err := b.a.Await(b.within(time.Second), bad.Key, p.pid); !errors.As(err, &refused) {
			t.Errorf("Await of a rejected container: %v", err)
		}
		b.k.mu.Lock()
		b.k.fail = func(op string) error {
			if op == "attach" {
				return errors.New("broken")
			}
			return nil
		}
		b.k.mu.Unlock()
		slow := b.c.create(key("slow"), networked)
		p = b.creating(slow)
		if _, _, err := b.a.Await(b.within(time.Second), slow.Key, p.pid); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Await of a broken kernel: %v", err)
		}
		if asked, err := b.a.Asked(b.within(time.Second), slow.Key); err != nil || asked == nil || asked.Strict {
			t.Errorf("Asked = %+v, %v", asked, err)
		}
		if asked, err := b.a.Asked(b.within(time.Second), plain.Key); err != nil || asked != nil {
			t.Errorf("Asked of a plain container = %+v, %v", asked, err)
		}
	})
}
