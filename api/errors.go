package api

import (
	"errors"
	"fmt"
)

// Code classifies an error for programs. The words are stable.
type Code string

const (
	CodeInternal       Code = "internal"          // none of the others
	CodeInvalid        Code = "invalid"           // the request cannot be right whatever the state is
	CodeUnreachable    Code = "agent_unreachable" // no agent answers at the address
	CodeNotFound       Code = "not_found"
	CodeUnhealthy      Code = "unhealthy"       // problems were found
	CodeNoLeader       Code = "no_leader"       // the cluster cannot decide now
	CodeNotInitialized Code = "not_initialized" // the node belongs to no cluster yet
	CodeConflict       Code = "conflict"        // the state forbids it
	CodeDenied         Code = "denied"          // the caller may not
	CodeTimeout        Code = "timeout"         // no answer in time; what was asked may still happen
	CodeUnknownOutcome Code = "unknown_outcome" // what was asked may or may not have happened
	CodeExhausted      Code = "exhausted"       // addresses or subnets have run out
)

// Error is an error with a code for programs and a hint for people. It wraps
// the error it was made from.
type Error struct {
	Code Code
	Hint string // what the operator can type next; may be empty
	Err  error  // never nil
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an Error without a hint.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Err: fmt.Errorf(format, args...)}
}

// WithHint returns a copy of e that carries the hint.
func (e *Error) WithHint(hint string) *Error {
	c := *e
	c.Hint = hint
	return &c
}

// CodeOf returns the code of err: that of the first Error it wraps, else
// CodeInternal.
func CodeOf(err error) Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return CodeInternal
}
