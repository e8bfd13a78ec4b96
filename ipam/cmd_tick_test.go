package ipam

import (
	"math"
	"testing"
	"time"
)

func TestTick(t *testing.T) {
	t.Parallel()
	s := New()
	refused(t, s, ErrNotInitialized, Tick{time.Second})
	ok(t, s, initCmd())
	at := func() time.Duration {
		c, _ := s.Cluster()
		return time.Duration(c.Time)
	}
	out := ok(t, s, Tick{time.Second})
	equal(t, "deltas", out.Deltas, []Delta{TimePut{int64(time.Second)}})
	unchanged(t, s, Tick{})
	refused(t, s, ErrInvalid, Tick{-1})
	equal(t, "time", at(), time.Second)
	ok(t, s, Tick{time.Hour})
	equal(t, "time is capped", at(), 11*time.Second)
	ok(t, s, Tick{math.MaxInt64}, Tick{math.MaxInt64})
	equal(t, "time is capped", at(), 31*time.Second)

	s.cluster.Time = math.MaxInt64 - 1
	ok(t, s, Tick{time.Second})
	unchanged(t, s, Tick{time.Second})
	equal(t, "the end of time", at(), time.Duration(math.MaxInt64))
}
