package server

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"

	"stellar.io/stellar/api"
	stellarv1 "stellar.io/stellar/api/stellar/v1"
	"stellar.io/stellar/ipam"
)

// ErrInUse is returned by Listen when another process serves the socket.
var ErrInUse = errors.New("another agent is listening there")

const (
	hintInit     = "make a cluster with `stellar cluster init`"
	hintElse     = "run the command on the node that holds the subnet; `stellar ipam ls` shows it"
	hintShow     = "`stellar ipam show ADDRESS` shows who has an address"
	hintIpamLs   = "`stellar ipam ls` shows the subnets"
	hintEndpoint = "`stellar endpoint ls` shows the endpoints of this node"
)

// sentinels says what the refusals of the replicated state mean to a caller.
// The order does not matter: a refusal wraps one of them.
var sentinels = []struct {
	err  error
	code api.Code
	hint string
}{
	{ipam.ErrNotInitialized, api.CodeNotInitialized, hintInit},
	{ipam.ErrAlreadyInitialized, api.CodeConflict, "`stellar status` shows the cluster of this node"},
	{ipam.ErrInvalid, api.CodeInvalid, ""},
	{ipam.ErrNetworkNotFound, api.CodeNotFound, hintIpamLs},
	{ipam.ErrNodeNotFound, api.CodeNotFound, "`stellar node ls` shows the nodes"},
	{ipam.ErrNodeExists, api.CodeConflict, "`stellar node ls` shows the names that are taken"},
	{ipam.ErrNodeRemoved, api.CodeConflict, ""},
	{ipam.ErrNoAvailableSubnets, api.CodeExhausted, hintIpamLs},
	{ipam.ErrSubnetNotFound, api.CodeNotFound, hintIpamLs},
	{ipam.ErrWrongNode, api.CodeConflict, hintElse},
	{ipam.ErrStaleEpoch, api.CodeConflict, hintIpamLs},
	{ipam.ErrNoAvailableIP, api.CodeExhausted, hintIpamLs},
	{ipam.ErrOutOfSubnet, api.CodeInvalid, hintIpamLs},
	{ipam.ErrAddressTaken, api.CodeConflict, hintShow},
	{ipam.ErrAddressReserved, api.CodeConflict, hintShow},
	{ipam.ErrOwnerHasAddress, api.CodeConflict, hintShow},
	{ipam.ErrLeaseNotFound, api.CodeNotFound, hintShow},
	{ipam.ErrReservationNotFound, api.CodeNotFound, hintShow},
	{ipam.ErrRouteExists, api.CodeConflict, ""},
	{ipam.ErrModeInUse, api.CodeConflict, ""},
	{ipam.ErrMachineMismatch, api.CodeConflict, ""},
	{ipam.ErrNodeInUse, api.CodeConflict, hintEndpoint},
	{ipam.ErrSubnetInUse, api.CodeConflict, hintIpamLs},
	{ipam.ErrLeaseInUse, api.CodeConflict, hintShow},
	{ipam.ErrRequestForgotten, api.CodeUnknownOutcome, "look whether it was done before you repeat it"},
	{ipam.ErrRequestReused, api.CodeInternal, ""},
	{ipam.ErrUnknownCommand, api.CodeInternal, ""},
}

// classify turns any error of a backend into one with a code and a hint.
func classify(err error) *api.Error {
	if e, ok := errors.AsType[*api.Error](err); ok {
		return &api.Error{Code: e.Code, Hint: e.Hint, Err: err}
	}
	for _, s := range sentinels {
		if errors.Is(err, s.err) {
			return &api.Error{Code: s.code, Hint: s.hint, Err: err}
		}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return &api.Error{Code: api.CodeTimeout, Hint: "give it longer with --timeout; `stellar status` may say why it is slow", Err: err}
	}
	return &api.Error{Code: api.CodeInternal, Err: err}
}

// rpcCodes gives each code the RPC code that generic clients understand.
var rpcCodes = map[api.Code]connect.Code{
	api.CodeInternal:       connect.CodeInternal,
	api.CodeInvalid:        connect.CodeInvalidArgument,
	api.CodeUnreachable:    connect.CodeUnavailable,
	api.CodeNotFound:       connect.CodeNotFound,
	api.CodeUnhealthy:      connect.CodeFailedPrecondition,
	api.CodeNoLeader:       connect.CodeUnavailable,
	api.CodeNotInitialized: connect.CodeFailedPrecondition,
	api.CodeConflict:       connect.CodeFailedPrecondition,
	api.CodeDenied:         connect.CodePermissionDenied,
	api.CodeTimeout:        connect.CodeDeadlineExceeded,
	api.CodeUnknownOutcome: connect.CodeUnknown,
	api.CodeExhausted:      connect.CodeResourceExhausted,
}

// rpcError makes what goes over the wire. nil stays nil.
func rpcError(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, context.Canceled) {
		return connect.NewError(connect.CodeCanceled, err)
	}
	e := classify(err)
	code, ok := rpcCodes[e.Code]
	if !ok {
		code = connect.CodeUnknown
	}
	out := connect.NewError(code, e)
	detail, derr := connect.NewErrorDetail(&stellarv1.ErrorDetail{Code: string(e.Code), Hint: e.Hint})
	if derr != nil {
		return connect.NewError(connect.CodeInternal, fmt.Errorf("%w (and its detail cannot be sent: %w)", err, derr))
	}
	out.AddDetail(detail)
	return out
}
