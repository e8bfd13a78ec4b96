package peer

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

// quiet keeps refusals from flooding the log: one line a minute for each address
// and reason, 60 a minute for all together, each with the number of those that
// were left out before it.
type quiet struct {
	log *slog.Logger

	mu      sync.Mutex // guards what follows
	minute  time.Time
	said    map[quietKey]struct{}
	skipped int
}

type quietKey struct {
	from netip.Addr
	code uint8
}

const quietLines = 60

func (q *quiet) warn(from netip.Addr, code uint8, msg string, attrs ...slog.Attr) {
	if skipped, ok := q.allow(quietKey{from, code}, time.Now()); ok {
		if skipped > 0 {
			attrs = append(attrs, slog.Int("similar_left_out", skipped))
		}
		q.log.LogAttrs(context.Background(), slog.LevelWarn, msg, attrs...)
	}
}

func (q *quiet) allow(k quietKey, now time.Time) (skipped int, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.said == nil || now.Sub(q.minute) >= time.Minute {
		q.minute, q.said = now, map[quietKey]struct{}{}
	}
	if _, again := q.said[k]; again || len(q.said) >= quietLines {
		q.skipped++
		return 0, false
	}
	q.said[k] = struct{}{}
	skipped, q.skipped = q.skipped, 0
	return skipped, true
}
