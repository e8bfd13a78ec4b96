package holder

import (
	"context"
	"errors"

	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore"
)

// Submit proposes commands of this node that are about no lease of its own, as one
// request: it is executed once however often a change of leadership makes it being
// proposed. It works fenced, too. The errors are those of raftstore.Retry and of the
// journal; that a command was refused is in its result.
func (h *Holder) Submit(ctx context.Context, commands ...ipam.Command) ([]ipam.Result, error) {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil, ErrClosed
	}
	h.ops.Add(1)
	h.mu.Unlock()
	defer h.ops.Done()
	return h.once(ctx, ipam.Envelope{Commands: commands})
}

// once proposes an envelope until its outcome is known, or Retry gives up. An
// envelope without a request id gets one. A number that the state knows from somebody
// else is replaced, unless what it answers may be about an earlier attempt.
func (h *Holder) once(ctx context.Context, env ipam.Envelope) (results []ipam.Result, err error) {
	doubt := false
	for renewed := 0; ; renewed++ {
		if env.Request == (ipam.RequestID{}) {
			if env.Request, err = h.seq.next(); err != nil {
				return nil, err
			}
		}
		err = raftstore.Retry(ctx, func(ctx context.Context) (err error) {
			results, err = h.cfg.Store.Propose(ctx, env)
			doubt = doubt || errors.Is(err, raftstore.ErrUnknownOutcome)
			return err
		})
		if err != nil || doubt || len(results) == 0 || !strangeID(results[0].Err) || renewed == maxRenew {
			return results, err
		}
		h.seq.skip()
		env.Request = ipam.RequestID{}
	}
}
