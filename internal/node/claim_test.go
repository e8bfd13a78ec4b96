package node

import (
	"context"
	"sync/atomic"
	"testing"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/peerapi"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore"
)

// TestClaimWithoutAnAnswer: a claim that was sent and is never answered, as of a node
// that is removed meanwhile, does not keep a node from going on with what it held.
func TestClaimWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	n := lone(t)
	p, stop := n.runStore(t)
	if later, err := n.claim(t.Context(), p); later || err != nil {
		t.Fatalf("claim: %v, %v", later, err)
	}
	subnet := p.subnet
	stop()
	again, err := New(n.opts)
	if err != nil {
		t.Fatal(err)
	}
	var silent atomic.Bool
	answer := make(chan struct{})
	p, _ = again.runStore(t, func(c *raftstore.Config) {
		c.OnApply = func(uint64, []ipam.Delta) {
			if silent.Load() {
				<-answer
			}
		}
	})
	t.Cleanup(func() { close(answer) })
	again.opts.Version.Version = "another" // so that the claim changes something
	silent.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), 5*claimPatience)
	defer cancel()
	later, err := again.claim(ctx, p)
	if err != nil || !later || p.subnet != subnet || ctx.Err() != nil {
		t.Errorf("claim: %v, %v, %+v, %v", later, err, p.subnet, ctx.Err())
	}
}

// TestPassedOnOnce: a request that another node has passed on goes no further.
func TestPassedOnOnce(t *testing.T) {
	t.Parallel()
	n := lone(t)
	p, _ := n.runStore(t)
	other := ipam.NodeID("00000000000000000000000000000001")
	if _, err := p.relay(t.Context(), other, "192.0.2.9:9640"); api.CodeOf(err) != api.CodeUnreachable {
		t.Errorf("without a port: %v", err)
	}
	ctx := peerapi.WithCaller(t.Context(), peerapi.Caller{Node: "00000000000000000000000000000002", Name: "beta", Role: api.RoleServer})
	if _, err := p.relay(ctx, other, "192.0.2.9:9640"); api.CodeOf(err) != api.CodeConflict || hintOf(err) == "" {
		t.Errorf("passed on: %v", err)
	}
}
