package node

import (
	"errors"

	"stellar.io/stellar/api"
	"stellar.io/stellar/raftstore"
)

// outcome gives an error of the store the code that callers of the API know.
func outcome(err error) error {
	for _, c := range []struct {
		is   error
		code api.Code
		hint string
	}{
		{raftstore.ErrUnknownOutcome, api.CodeUnknownOutcome, "look whether it was done before you repeat it"},
		{raftstore.ErrNoLeader, api.CodeNoLeader, "`stellar raft peers` shows who answers"},
		{raftstore.ErrBusy, api.CodeNoLeader, "try again"},
		{raftstore.ErrNotStarted, api.CodeNoLeader, "try again"},
		{raftstore.ErrQuorum, api.CodeConflict, "`stellar raft peers` shows the voters"},
		{raftstore.ErrNotReady, api.CodeConflict, "`stellar raft peers` shows how far each node is"},
		{raftstore.ErrNotMember, api.CodeNotFound, "`stellar raft peers` shows the members"},
	} {
		if errors.Is(err, c.is) {
			return &api.Error{Code: c.code, Hint: c.hint, Err: err}
		}
	}
	return err
}
