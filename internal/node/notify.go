package node

import (
	"context"
	"fmt"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// readyPause bounds how long READY waits for the first round over the
// containers: a containerd that is down must not make systemd give up.
const readyPause = 10 * time.Second

// notify tells systemd when the node serves, and as long as it makes progress.
// Outside systemd it does nothing.
func (n *Node) notify(ctx context.Context) error {
	n.awaitReady(ctx)
	if ctx.Err() != nil {
		return nil
	}
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	defer daemon.SdNotify(false, daemon.SdNotifyStopping) //nolint:errcheck // nobody is left to tell
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil || interval == 0 {
		<-ctx.Done()
		return err
	}
	tick := time.NewTicker(interval / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			// Each step takes the locks that a wedged part would hold.
			if n.alive() {
				if _, err := daemon.SdNotify(false, daemon.SdNotifyWatchdog); err != nil {
					return fmt.Errorf("notify systemd: %w", err)
				}
			}
		}
	}
}

// awaitReady returns when the API serves and either nothing is to be networked
// yet or the containers have been looked at once.
func (n *Node) awaitReady(ctx context.Context) {
	select {
	case <-n.initialized:
	default:
		return
	}
	deadline := time.NewTimer(readyPause)
	defer deadline.Stop()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for {
		if p, _ := n.current(); p != nil {
			select {
			case <-p.agent.Settled():
			case <-deadline.C:
			case <-ctx.Done():
			}
			return
		}
		select {
		case <-poll.C:
		case <-deadline.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// alive reports whether the parts still answer: a lock that is held for ever
// makes it hang, and the watchdog fire.
func (n *Node) alive() bool {
	p, _ := n.current()
	if p == nil {
		return true
	}
	p.agent.Endpoints()
	p.holder.Counts()
	p.store.Stats()
	return true
}
