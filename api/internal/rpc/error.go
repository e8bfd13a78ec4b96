// Package rpc is what the local API and the one between nodes have in common: how
// the errors of package api travel over Connect, and the limits of handlers.
package rpc

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"

	"stellar.io/stellar/api"
	stellarv1 "stellar.io/stellar/api/stellar/v1"
	"stellar.io/stellar/ipam"
)

const (
	hintInit     = "make a cluster with `stellar cluster init`, or join one with `stellar cluster join`"
	hintElse     = "run the command on the node that holds the subnet; `stellar ipam ls` shows it"
	hintShow     = "`stellar ipam show ADDRESS` shows who has an address"
	hintIpamLs   = "`stellar ipam ls` shows the subnets"
	hintSubnets  = hintIpamLs + "; when the last holder of a quarantined one is dead for certain, `stellar ipam release SUBNET` frees it"
	hintEndpoint = "`stellar endpoint ls` shows the endpoints of this node; --force does it all the same"
	hintToken    = "make a new token on a member: `stellar cluster token create`"
	hintTokens   = "`stellar cluster token ls` shows the tokens"
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
	{ipam.ErrNoAvailableSubnets, api.CodeExhausted, hintSubnets},
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
	{ipam.ErrTokenInvalid, api.CodeDenied, hintToken},
	{ipam.ErrTokenExpired, api.CodeDenied, hintToken},
	{ipam.ErrTokenRevoked, api.CodeDenied, hintToken},
	{ipam.ErrTokenUsed, api.CodeDenied, hintToken},
	{ipam.ErrTokenExists, api.CodeConflict, hintTokens},
	{ipam.ErrTokenNotFound, api.CodeNotFound, hintTokens},
	{ipam.ErrReclaiming, api.CodeConflict, "when each node has its subnet again, end it with `stellar cluster end-reclaim`"},
	{ipam.ErrStaleGeneration, api.CodeConflict, "the cluster was restored or recovered meanwhile; `stellar status` shows it"},
	{ipam.ErrSnapshotTruncated, api.CodeInvalid, ""},
	{ipam.ErrSnapshotFormat, api.CodeInvalid, ""},
	{ipam.ErrSnapshotVersion, api.CodeInvalid, "update Stellar to the version that wrote it"},
	{ipam.ErrSnapshotChecksum, api.CodeInvalid, ""},
	{ipam.ErrSnapshotCluster, api.CodeConflict, "`stellar raft snapshot inspect FILE` shows whose it is"},
	{ipam.ErrSnapshotInvalid, api.CodeInvalid, ""},
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

// Error makes what goes over the wire: the code and hint of an *api.Error, or
// those that a sentinel of package ipam has, travel as a detail. nil stays nil.
func Error(err error) error {
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

// Detail returns the error as Error was given it; false when err did not come
// from a handler that uses Error.
func Detail(err error) (*api.Error, bool) {
	ce, ok := errors.AsType[*connect.Error](err)
	if !ok {
		return nil, false
	}
	for _, d := range ce.Details() {
		v, err := d.Value()
		if err != nil {
			continue
		}
		if m, ok := v.(*stellarv1.ErrorDetail); ok && m.GetCode() != "" {
			return &api.Error{Code: api.Code(m.GetCode()), Hint: m.GetHint(), Err: errors.New(ce.Message())}, true
		}
	}
	return nil, false
}
