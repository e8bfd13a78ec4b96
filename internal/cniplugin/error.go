package cniplugin

import (
	"errors"

	"github.com/containernetworking/cni/pkg/types"

	"stellar.io/stellar/api"
)

// Codes of our own; CNI leaves those from 100 to plugins. docs/cni.md lists them.
const (
	errConflict  = 101 // the state forbids it: address taken, label rejected, …
	errExhausted = 102 // no address is left
	errDenied    = 103 // the caller may not, or the namespace is the host's
)

var cniCodes = map[api.Code]uint{
	api.CodeInternal:       types.ErrInternal,
	api.CodeInvalid:        types.ErrInvalidNetworkConfig,
	api.CodeUnreachable:    types.ErrTryAgainLater,
	api.CodeNotFound:       types.ErrInternal, // nothing that an ADD or GC names must be there before
	api.CodeUnhealthy:      types.ErrTryAgainLater,
	api.CodeNoLeader:       types.ErrTryAgainLater,
	api.CodeNotInitialized: types.ErrTryAgainLater,
	api.CodeConflict:       errConflict,
	api.CodeDenied:         errDenied,
	api.CodeTimeout:        types.ErrTryAgainLater,
	api.CodeUnknownOutcome: types.ErrTryAgainLater,
	api.CodeExhausted:      errExhausted,
}

// fromAgent makes CNI's error of the agent's; the hint becomes its details. nil
// stays nil.
func fromAgent(err error) *types.Error {
	if err == nil {
		return nil
	}
	code, ok := cniCodes[api.CodeOf(err)]
	if !ok {
		code = types.ErrInternal
	}
	hint := ""
	if e, ok := errors.AsType[*api.Error](err); ok {
		hint = e.Hint
	}
	return types.NewError(code, err.Error(), hint)
}
