package ipam

import (
	"fmt"

	"stellar.io/stellar/ipam/ipampb"
)

// maxGeneration bounds generations, so that there is always a next one.
const maxGeneration = 1 << 32

// RaiseGeneration starts a new generation of the cluster after what was committed
// may have been lost: no subnet is handed out until EndReclaim, and subnets that
// are handed out afterwards have epochs above all earlier ones. Held subnets keep
// theirs. The present generation again changes nothing; a lower one is refused
// with ErrStaleGeneration.
type RaiseGeneration struct {
	Generation uint64
}

func (c RaiseGeneration) apply(t *tx) Result {
	switch {
	case t.cluster.ID == "":
		return Result{Err: ErrNotInitialized}
	case c.Generation == 0 || c.Generation > maxGeneration:
		return Result{Err: fmt.Errorf("%w: generation %d", ErrInvalid, c.Generation)}
	case c.Generation < t.cluster.Generation:
		return Result{Err: fmt.Errorf("%d, present is %d: %w", c.Generation, t.cluster.Generation, ErrStaleGeneration)}
	case c.Generation > t.cluster.Generation:
		cl := t.cluster
		cl.Generation, cl.Life, cl.Reclaim = c.Generation, 0, true
		t.putCluster(cl)
	}
	return Result{}
}

func (c RaiseGeneration) pb() (*ipampb.Command, error) {
	return &ipampb.Command{Kind: &ipampb.Command_RaiseGeneration{RaiseGeneration: &ipampb.RaiseGeneration{
		Generation: c.Generation,
	}}}, nil
}

func raiseGenerationFromPB(m *ipampb.RaiseGeneration) Command {
	return RaiseGeneration{Generation: m.GetGeneration()}
}
