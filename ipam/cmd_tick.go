package ipam

import (
	"fmt"
	"math"
	"time"

	"stellar.io/stellar/ipam/ipampb"
)

// maxTick bounds how far one Tick moves cluster time, so that a leader whose
// clock is wrong cannot let everything expire at once.
const maxTick = 10 * time.Second

// Tick advances cluster time by what has elapsed on the leader's monotonic clock
// since its last Tick; of more than 10 s only 10 s count.
type Tick struct {
	Elapsed time.Duration
}

func (c Tick) apply(t *tx) Result {
	if t.cluster.ID == "" {
		return Result{Err: ErrNotInitialized}
	}
	if c.Elapsed < 0 {
		return Result{Err: fmt.Errorf("%w: time went back by %s", ErrInvalid, -c.Elapsed)}
	}
	step := min(int64(c.Elapsed), int64(maxTick), math.MaxInt64-t.cluster.Time)
	if step > 0 {
		t.cluster.Time += step
		t.emit(TimePut{t.cluster.Time})
	}
	return Result{}
}

func (c Tick) pb() (*ipampb.Command, error) {
	return &ipampb.Command{Kind: &ipampb.Command_Tick{Tick: &ipampb.Tick{Elapsed: int64(c.Elapsed)}}}, nil
}

func tickFromPB(m *ipampb.Tick) Command { return Tick{Elapsed: time.Duration(m.GetElapsed())} }
