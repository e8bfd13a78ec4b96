package agent

import (
	"testing"
	"time"
)

// TestDelWithinTheDeletion: the client of a runtime's poststop hook waits for us in
// the middle of the task's deletion, when containerd does not answer for the task.
func TestDelWithinTheDeletion(t *testing.T) {
	t.Parallel()
	withAgent(t, func(b *bed) {
		x := b.c.create(key("web"), nil)
		b.wait(time.Second)
		p := b.creating(x)
		r := cniRequest(x, p)
		b.add(r)
		b.created(x)
		b.c.run(x)
		b.wait(time.Minute)
		b.c.mu.Lock()
		x.busy = make(chan struct{})
		b.c.mu.Unlock()
		b.a.rework(x.Key) // a look is under way when the client comes
		b.wait(time.Second)
		if found, err := b.a.Del(b.within(time.Second), r); !found || err != nil {
			t.Errorf("DEL: %t, %v", found, err)
		}
		b.wantLinks(0)
		b.wantLeases(1)
		b.c.mu.Lock()
		close(x.busy)
		x.busy = nil
		b.c.mu.Unlock()
		b.c.exit(x)
		b.wait(time.Minute)
		b.want(x, StateBound)
	})
}
