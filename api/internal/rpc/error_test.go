package rpc

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"connectrpc.com/connect"

	"stellar.io/stellar/api"
	"stellar.io/stellar/ipam"
)

// Every sentinel that can come out of the log must mean something to a caller.
func TestEverySentinelIsClassified(t *testing.T) {
	t.Parallel()
	const first = 2
	code := uint32(first)
	for ; ; code++ {
		err := ipam.ErrorFromCode(code, "refused: detail")
		if errors.Unwrap(err) == nil {
			break // no such code
		}
		var found bool
		for _, s := range sentinels {
			found = found || errors.Is(err, s.err)
		}
		if !found {
			t.Errorf("no entry for %v (code %d)", errors.Unwrap(err), code)
		}
		got := classify(fmt.Errorf("bind: %w", err))
		if got.Error() != "bind: refused: detail" {
			t.Errorf("message = %q, want that of the error", got.Error())
		}
	}
	if code < 20 {
		t.Errorf("only %d codes found, the loop is wrong", code-first)
	}
}

func TestClassify(t *testing.T) {
	t.Parallel()
	mine := api.Errorf(api.CodeNoLeader, "no leader").WithHint("wait")
	tests := []struct {
		name string
		err  error
		code api.Code
		hint string
	}{
		{"own error", mine, api.CodeNoLeader, "wait"},
		{"wrapped own error", fmt.Errorf("propose: %w", mine), api.CodeNoLeader, "wait"},
		{"own error around a sentinel", api.Errorf(api.CodeDenied, "no: %w", ipam.ErrInvalid), api.CodeDenied, ""},
		{"sentinel", fmt.Errorf("bind: %w", ipam.ErrNotInitialized), api.CodeNotInitialized, hintInit},
		{"deadline", fmt.Errorf("wait: %w", context.DeadlineExceeded), api.CodeTimeout, "give it longer with --timeout; `stellar status` may say why it is slow"},
		{"anything", errors.New("disk on fire"), api.CodeInternal, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := classify(tt.err)
			if got.Code != tt.code || got.Hint != tt.hint || !errors.Is(got, tt.err) {
				t.Errorf("classify = %s (%s), wraps %t; want %s (%s)", got.Code, got.Hint, errors.Is(got, tt.err), tt.code, tt.hint)
			}
			if connect.CodeOf(Error(tt.err)) != rpcCodes[tt.code] {
				t.Errorf("RPC code = %s, want %s", connect.CodeOf(Error(tt.err)), rpcCodes[tt.code])
			}
		})
	}
	if Error(nil) != nil {
		t.Error("nil became an error")
	}
	if got := connect.CodeOf(Error(context.Canceled)); got != connect.CodeCanceled {
		t.Errorf("cancelled became %s", got)
	}
}
