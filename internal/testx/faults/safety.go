package faults

import (
	"fmt"
	"regexp"
)

// Mark begins a failure that no load excuses: an address was lost, doubled, stolen or
// is another one, a container's packet was lost, a forged one passed, nodes have
// different states, a cause is named wrongly. Such a test is not run again, or in vain.
const Mark = "SAFETY: "

// Safety fails the test for what must never be, however busy the machine is.
func Safety(t interface {
	Helper()
	Errorf(format string, args ...any)
}, format string, args ...any) {
	t.Helper()
	t.Errorf(Mark+format, args...)
}

// Violation is the error of a condition that a test waits for and whose failure then
// says, like Safety, what must never be. What may only be late is another error.
func Violation(format string, args ...any) error {
	return fmt.Errorf(Mark+format, args...)
}

var final = regexp.MustCompile(`(?m)` + Mark + `|WARNING: DATA RACE|^panic: |^fatal error: `)

// Final reports whether a failed test has printed what no load excuses: what Safety and
// Violation say, a data race, a crash.
func Final(log string) bool { return final.MatchString(log) }
