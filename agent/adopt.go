package agent

import (
	"context"
	"fmt"

	"stellar.io/stellar/events"
	"stellar.io/stellar/ipam"
)

// adopt takes note of every endpoint in the kernel and every lease, before any
// worker runs. Each is a stray until a look has found its container: what
// nobody claims is let go on evidence, what somebody claims is taken up as it is.
func (a *Agent) adopt(ctx context.Context) error {
	endpoints, err := a.cfg.Network.List(ctx)
	if err != nil {
		return fmt.Errorf("list endpoints: %w", err)
	}
	inKernel := make(map[ipam.Owner]bool, len(endpoints))
	for _, e := range endpoints {
		inKernel[e.Owner] = true
	}
	for _, h := range a.cfg.Leases.All() {
		a.adoptOwner(h.Owner, inKernel[h.Owner])
		delete(inKernel, h.Owner)
	}
	for owner := range inKernel {
		a.adoptOwner(owner, true)
	}
	return nil
}

func (a *Agent) adoptOwner(o ipam.Owner, endpoint bool) {
	if o.Kind != ipam.OwnerContainer {
		return // its own client ends it
	}
	r := a.record(events.Key{Namespace: o.Namespace, ID: o.ID})
	r.strays = append(r.strays, stray{owner: o, endpoint: endpoint})
}

// watch sees the process's exit by its descriptor, whether containerd reports
// it or not, and has the container looked at.
func (a *Agent) watch(ctx context.Context, key events.Key, proc Process) {
	a.watchers.Go(func() {
		if proc.WaitExit(ctx) == nil {
			a.queue.add(key)
		}
	})
}

// Lost has a container looked at whose endpoint vanished from the kernel or was
// changed by others beyond repair.
func (a *Agent) Lost(o ipam.Owner, what string) {
	key := events.Key{Namespace: o.Namespace, ID: o.ID}
	a.Record("lost", key.String(), what)
	a.Repair(key)
}
