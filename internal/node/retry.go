package node

import (
	"context"
	"time"

	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore"
)

// handOverPatience bounds a hand-over: who leads may have been cut off.
const handOverPatience = 5 * time.Second

// ensure proposes a command that is idempotent, without a request id: a node that is
// not up yet has none.
func (p *parts) ensure(ctx context.Context, c ipam.Command) error {
	var results []ipam.Result
	err := raftstore.Retry(ctx, func(ctx context.Context) (err error) {
		results, err = p.store.Propose(ctx, ipam.Envelope{Commands: []ipam.Command{c}})
		return err
	})
	if err != nil {
		return outcome(err)
	}
	return results[0].Err
}

// change makes a membership change, also when leaders change meanwhile. A hand-over
// to anybody is tried once: tried again it would be another one.
func (p *parts) change(ctx context.Context, c raftstore.Change) error {
	if c.Op == raftstore.ChangeTransfer && c.Node == "" {
		ctx, cancel := context.WithTimeout(ctx, handOverPatience)
		defer cancel()
		return p.store.Change(ctx, c)
	}
	return raftstore.Retry(ctx, func(ctx context.Context) error { return p.store.Change(ctx, c) })
}
