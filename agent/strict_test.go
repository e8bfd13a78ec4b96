package agent

import (
	"errors"
	"strings"
	"testing"
	"time"

	"stellar.io/stellar/events"
)

// TestStrict: a strict container does not stay running without its network, and
// any other does.
func TestStrict(t *testing.T) {
	t.Parallel()
	withAgent(t, func(b *bed) {
		taken := b.running("holder", with(labelIP, "172.16.0.50"))
		b.want(taken, StateAttached)
		for id, labels := range map[string]map[string]string{
			"taken":     with(labelStrict, "true", labelIP, "172.16.0.50"),
			"malformed": with(labelStrict, "true", labelMTU, "x"),
		} {
			x := b.c.create(key(id), labels)
			b.c.task(x)
			b.wait(time.Second)
			e := b.want(x, StateRejected)
			if x.proc != nil {
				t.Errorf("%s still runs: %s", x.Key, e.Reason)
			}
			if !strings.Contains(b.told(x), "kill") {
				t.Errorf("nothing was told of the end of %s", x.Key)
			}
		}
		fine := b.running("fine", with(labelStrict, "true"))
		b.want(fine, StateAttached)
		loose := b.running("loose", with(labelIP, "172.16.0.50"))
		b.want(loose, StateRejected)
		b.wait(time.Minute)
		if fine.proc == nil || loose.proc == nil {
			t.Error("a container was killed that has its network, or is not strict")
		}
	})
}

// TestStrictPatience: a network that is late by less than the patience is no
// reason to kill.
func TestStrictPatience(t *testing.T) {
	t.Parallel()
	withAgent(t, func(b *bed) {
		until := time.Now().Add(1500 * time.Millisecond)
		b.c.fail = func(events.Key) error {
			if time.Now().Before(until) {
				return errors.New("containerd is busy")
			}
			return nil
		}
		x := b.c.create(key("late"), with(labelStrict, "true"))
		b.c.task(x)
		b.c.run(x)
		b.wait(10 * time.Second)
		b.want(x, StateAttached)
		if x.proc == nil {
			t.Error("killed although its network came in time")
		}
	})
}
