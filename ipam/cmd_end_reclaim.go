package ipam

import (
	"fmt"

	"stellar.io/stellar/ipam/ipampb"
)

// EndReclaim lets subnets be handed out again: the operator vouches that every
// node which is still alive has claimed what it holds. It is refused with
// ErrStaleGeneration when Generation is not the present one, so that a late one
// does not end the next re-claim; 0 means whichever it is. Without a re-claim it
// changes nothing.
type EndReclaim struct {
	Generation uint64
}

func (c EndReclaim) apply(t *tx) Result {
	switch {
	case t.cluster.ID == "":
		return Result{Err: ErrNotInitialized}
	case c.Generation != 0 && c.Generation != t.cluster.Generation:
		return Result{Err: fmt.Errorf("%d, present is %d: %w", c.Generation, t.cluster.Generation, ErrStaleGeneration)}
	case t.cluster.Reclaim:
		cl := t.cluster
		cl.Reclaim = false
		t.putCluster(cl)
	}
	return Result{}
}

func (c EndReclaim) pb() (*ipampb.Command, error) {
	return &ipampb.Command{Kind: &ipampb.Command_EndReclaim{EndReclaim: &ipampb.EndReclaim{
		Generation: c.Generation,
	}}}, nil
}

func endReclaimFromPB(m *ipampb.EndReclaim) Command { return EndReclaim{Generation: m.GetGeneration()} }
