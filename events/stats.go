package events

import (
	"errors"
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// LagBounds are the upper bounds of Stats.Lag's buckets.
func LagBounds() []time.Duration {
	return []time.Duration{
		500 * time.Microsecond, time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond,
		50 * time.Millisecond, 250 * time.Millisecond, time.Second, 5 * time.Second, 30 * time.Second,
	}
}

// Lag is how long events took from containerd's stamp to this process. A shim
// that could not reach containerd sends its events late, with their old stamps.
type Lag struct {
	Count     uint64
	Sum       time.Duration
	Last, Max time.Duration
	// Buckets[i] counts lags ≤ LagBounds()[i] that fit no smaller bound; the last
	// one counts the rest.
	Buckets []uint64
}

// Stats is what a Client has counted since New.
type Stats struct {
	Connected bool
	// Reconnects counts the connections that were lost after they had been proven.
	Reconnects uint64
	// Received counts hints by topic.
	Received map[Topic]uint64
	// Execs counts exits and deletes of exec processes, which become no hints.
	Execs uint64
	// Unknown counts events of other topics, DecodeErrors those that could not be read.
	Unknown, DecodeErrors uint64
	Lag                   Lag
	// Relists counts complete listings, RelistErrors those that failed.
	Relists, RelistErrors uint64
	LastListing           time.Time
	LastProbe             time.Time
}

type counters struct {
	connected  atomic.Bool
	reconnects atomic.Uint64

	mu       sync.Mutex // guards what follows
	received map[Topic]uint64
	execs    uint64
	unknown  uint64
	bad      uint64
	lag      Lag
	relists  uint64
	failed   uint64
	listed   time.Time
	probed   time.Time
}

// Stats returns a copy of the counters.
func (c *Client) Stats() Stats {
	s := &c.stats
	s.mu.Lock()
	defer s.mu.Unlock()
	lag := s.lag
	lag.Buckets = make([]uint64, len(LagBounds())+1)
	copy(lag.Buckets, s.lag.Buckets)
	received := maps.Clone(s.received)
	if received == nil {
		received = make(map[Topic]uint64)
	}
	return Stats{
		Connected: s.connected.Load(), Reconnects: s.reconnects.Load(),
		Received: received, Execs: s.execs, Unknown: s.unknown, DecodeErrors: s.bad, Lag: lag,
		Relists: s.relists, RelistErrors: s.failed, LastListing: s.listed, LastProbe: s.probed,
	}
}

func (s *counters) setConnected(v bool) { s.connected.Store(v) }

func (s *counters) hint(h Hint) {
	lag := max(0, h.Received.Sub(h.Time)) // a stepped clock must not count backwards
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.received == nil {
		s.received = make(map[Topic]uint64)
		s.lag.Buckets = make([]uint64, len(LagBounds())+1)
	}
	s.received[h.Topic]++
	if h.Time.IsZero() {
		return
	}
	s.lag.Count++
	s.lag.Sum += lag
	s.lag.Last, s.lag.Max = lag, max(s.lag.Max, lag)
	i := 0
	for _, bound := range LagBounds() {
		if lag <= bound {
			break
		}
		i++
	}
	s.lag.Buckets[i]++
}

// noHint counts an event that decode refused and reports whether it was malformed.
func (s *counters) noHint(err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case errors.Is(err, errExecEvent):
		s.execs++
	case errors.Is(err, errUnknownTopic):
		s.unknown++
	default:
		s.bad++
		return true
	}
	return false
}

func (s *counters) probe(at time.Time) {
	s.mu.Lock()
	s.probed = at
	s.mu.Unlock()
}

func (s *counters) relist(at time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.failed++
		return
	}
	s.relists++
	s.listed = at
}
