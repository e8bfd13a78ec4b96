package nlx

import (
	"errors"
	"fmt"
	"syscall"
)

var (
	// ErrInterrupted is returned when a dump was still inconsistent after all
	// retries. Nothing may be concluded from what is missing in it.
	ErrInterrupted = errors.New("netlink dump interrupted")
	// ErrTimeout is returned when the kernel did not answer in time. Whether the
	// request took effect is unknown: read before trying again.
	ErrTimeout = errors.New("netlink request timed out")
	// ErrOverrun is returned by a subscription that lost messages. Everything
	// learned from it so far is doubtful: list again.
	ErrOverrun = errors.New("netlink notifications lost")
)

// Error is the kernel's refusal of one request. It unwraps to the errno, so
// errors.Is(err, unix.EEXIST) and the like work.
type Error struct {
	Errno syscall.Errno
	Text  string // the kernel's explanation, often empty
}

func (e *Error) Error() string {
	if e.Text == "" {
		return e.Errno.Error()
	}
	return fmt.Sprintf("%s (%s)", e.Errno.Error(), e.Text)
}

func (e *Error) Unwrap() error { return e.Errno }
