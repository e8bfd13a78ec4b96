package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"stellar.io/stellar/api"
)

// Exit codes. They are part of the command line's contract.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 2
	exitUnreachable = 3
	exitNotFound    = 4
	exitUnhealthy   = 5
	exitNoLeader    = 6
	exitConflict    = 7
	exitDenied      = 8
	exitTimeout     = 124
)

// exitCodes leaves out what exits with exitError.
var exitCodes = map[api.Code]int{
	api.CodeInvalid:        exitUsage,
	api.CodeUnreachable:    exitUnreachable,
	api.CodeNotFound:       exitNotFound,
	api.CodeUnhealthy:      exitUnhealthy,
	api.CodeNotInitialized: exitUnhealthy,
	api.CodeNoLeader:       exitNoLeader,
	api.CodeConflict:       exitConflict,
	api.CodeExhausted:      exitConflict,
	api.CodeDenied:         exitDenied,
	api.CodeTimeout:        exitTimeout,
}

// usage marks an error of the command line's form.
func usage(err error) error {
	if _, ok := errors.AsType[*api.Error](err); ok {
		return err
	}
	return api.Errorf(api.CodeInvalid, "%w", err).WithHint("`stellar --help` shows how commands look")
}

// fail reports err once, on stderr, and returns the exit code.
func (a *app) fail(err error) int {
	e, ok := errors.AsType[*api.Error](err)
	switch {
	case ok && error(e) != err: // what was wrapped around it is part of the message
		e = &api.Error{Code: e.Code, Hint: e.Hint, Err: err}
	case ok:
	case errors.Is(err, context.DeadlineExceeded):
		e = api.Errorf(api.CodeTimeout, "%w", err)
	case errors.Is(err, context.Canceled):
		e = api.Errorf(api.CodeInternal, "interrupted")
	default:
		e = api.Errorf(api.CodeInternal, "%w", err)
	}
	code, ok := exitCodes[e.Code]
	if !ok {
		code = exitError
	}
	if a.output == formatJSON {
		type body struct {
			Code    api.Code `json:"code"`
			Message string   `json:"message"`
			Hint    string   `json:"hint"`
		}
		enc := json.NewEncoder(a.stderr)
		enc.SetEscapeHTML(false)
		if enc.Encode(map[string]body{"error": {e.Code, e.Error(), e.Hint}}) == nil {
			return code
		}
	}
	line := "stellar: " + printable(strings.ReplaceAll(e.Error(), "\n", "; "))
	if e.Hint != "" {
		line += " (hint: " + printable(e.Hint) + ")"
	}
	fmt.Fprintln(a.stderr, line)
	return code
}

// requestedOutput finds -o in a command line that could not be parsed.
func requestedOutput(args []string) string {
	for i, s := range args {
		if s == "--" {
			break
		}
		if (s == "-o" || s == "--output") && i+1 < len(args) {
			return args[i+1]
		}
		if v, ok := strings.CutPrefix(s, "--output="); ok {
			return v
		}
		if v, ok := strings.CutPrefix(s, "-o"); ok && v != "" {
			return strings.TrimPrefix(v, "=")
		}
	}
	return formatTable
}
