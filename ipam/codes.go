package ipam

import (
	"errors"
	"fmt"
)

// codes gives each sentinel the number under which it travels. A number is never
// given a second meaning; 0 is success and 1 any other error.
var codes = [...]struct {
	code uint32
	err  error
}{
	{2, ErrNotInitialized},
	{3, ErrAlreadyInitialized},
	{4, ErrInvalid},
	{5, ErrNetworkNotFound},
	{6, ErrNodeNotFound},
	{7, ErrNodeExists},
	{8, ErrNodeRemoved},
	{9, ErrNoAvailableSubnets},
	{10, ErrSubnetNotFound},
	{11, ErrWrongNode},
	{12, ErrStaleEpoch},
	{13, ErrNoAvailableIP},
	{14, ErrOutOfSubnet},
	{15, ErrAddressTaken},
	{16, ErrAddressReserved},
	{17, ErrOwnerHasAddress},
	{18, ErrLeaseNotFound},
	{19, ErrReservationNotFound},
	{20, ErrRouteExists},
	{21, ErrModeInUse},
	{22, ErrMachineMismatch},
	{23, ErrNodeInUse},
	{24, ErrSubnetInUse},
	{25, ErrLeaseInUse},
	{26, ErrRequestForgotten},
	{27, ErrRequestReused},
	{28, ErrUnknownCommand},
	{29, ErrTokenInvalid},
	{30, ErrTokenExpired},
	{31, ErrTokenRevoked},
	{32, ErrTokenUsed},
	{33, ErrTokenExists},
	{34, ErrTokenNotFound},
	{35, ErrReclaiming},
	{36, ErrStaleGeneration},
}

// codedError is an error that came back from a code.
type codedError struct {
	code uint32
	msg  string
	err  error // the sentinel; nil when this version does not know the code
}

func (e *codedError) Error() string { return e.msg }
func (e *codedError) Unwrap() error { return e.err }

// ErrorCode returns the stable number of the sentinel that err wraps: 0 for nil,
// 1 for an error without a number.
func ErrorCode(err error) uint32 {
	if err == nil {
		return 0
	}
	var coded *codedError
	if errors.As(err, &coded) {
		return coded.code
	}
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return c.code
		}
	}
	return 1
}

// ErrorFromCode is the inverse of ErrorCode: an error that reads msg and wraps
// the code's sentinel, or nil for code 0. An empty msg means the sentinel's own
// text. A code of a newer version keeps its number.
func ErrorFromCode(code uint32, msg string) error {
	if code == 0 {
		return nil
	}
	for _, c := range codes {
		if c.code != code {
			continue
		}
		if msg == "" || msg == c.err.Error() {
			return c.err
		}
		return &codedError{code: code, msg: msg, err: c.err}
	}
	if msg == "" {
		msg = fmt.Sprintf("refused with code %d", code)
	}
	return &codedError{code: code, msg: msg}
}
