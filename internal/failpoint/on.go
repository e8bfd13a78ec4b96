//go:build failpoints

package failpoint

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"stellar.io/stellar/internal/failpoint/failctl"
)

// Enabled says whether this program has failpoints.
const Enabled = true

// ErrInjected is what an armed Err returns.
var ErrInjected = errors.New("injected failure")

// table is opened at the first failpoint that is reached. What is wrong with the
// environment is a mistake of the test.
var table = sync.OnceValue(func() *failctl.Table {
	t, err := failctl.Open(os.Getenv(EnvFile), Names())
	if err == nil {
		err = t.Parse(os.Getenv(EnvArm))
	}
	if err != nil {
		panic(fmt.Sprintf("failpoints: %v", err))
	}
	return t
})

// Hit is a failpoint in a step that cannot fail.
func Hit(n Name) { _ = reach(n) }

// Err is a failpoint in a step that can fail.
func Err(n Name) error {
	if reach(n) == failctl.Error {
		return fmt.Errorf("%w at %s", ErrInjected, n)
	}
	return nil
}

// reach counts and does what is due now.
func reach(n Name) failctl.Action {
	action, pause := table().Reach(string(n))
	switch action {
	case failctl.Crash:
		_ = syscall.Kill(syscall.Getpid(), syscall.SIGKILL)
		select {} // not one step further
	case failctl.Sleep:
		time.Sleep(pause)
	}
	return action
}
