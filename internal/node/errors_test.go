package node

import (
	"errors"
	"fmt"
	"testing"

	"stellar.io/stellar/api"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore"
)

func TestOutcome(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err  error
		want api.Code
	}{
		{raftstore.ErrNoLeader, api.CodeNoLeader},
		// A proposal that may have been committed is never told as one that was not.
		{fmt.Errorf("%w: %w", raftstore.ErrUnknownOutcome, raftstore.ErrNoLeader), api.CodeUnknownOutcome},
		{raftstore.ErrQuorum, api.CodeConflict},
		{raftstore.ErrNotMember, api.CodeNotFound},
		{raftstore.ErrStopped, api.CodeInternal},
	} {
		err := outcome(fmt.Errorf("propose: %w", tt.err))
		if got := api.CodeOf(err); got != tt.want {
			t.Errorf("%v: code %q, want %q", tt.err, got, tt.want)
		}
		if !errors.Is(err, tt.err) {
			t.Errorf("%v does not wrap %v", err, tt.err)
		}
	}
	if outcome(nil) != nil || !errors.Is(outcome(ipam.ErrAddressTaken), ipam.ErrAddressTaken) {
		t.Error("other errors must come through as they are")
	}
}
