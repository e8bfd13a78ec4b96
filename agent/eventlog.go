package agent

import (
	"sync"
	"time"
)

// Event is one thing that happened on this node, for people: `stellar events`.
type Event struct {
	Seq     uint64 // grows by one; a reader sees by a gap what it missed
	Time    time.Time
	Type    string // attach, detach, reject, repair, …
	Node    string
	Subject string
	Message string
}

// eventLog keeps the last events and wakes who waits for more. It never blocks
// the one who records.
type eventLog struct {
	mu      sync.Mutex // guards all below
	ring    []Event
	next    uint64
	changed chan struct{} // closed when an event is added
}

// historySize is how many events are kept for those who look later.
const historySize = 1000

func newEventLog() *eventLog { return &eventLog{changed: make(chan struct{})} }

func (l *eventLog) add(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e.Seq = l.next
	l.next++
	if len(l.ring) < historySize {
		l.ring = append(l.ring, e)
	} else {
		l.ring[e.Seq%historySize] = e
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

// since returns the kept events from seq on, the seq to ask for next, and a
// channel that is closed when there is more.
func (l *eventLog) since(seq uint64) ([]Event, uint64, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	oldest := l.next - uint64(len(l.ring))
	var out []Event
	for s := max(seq, oldest); s < l.next; s++ {
		out = append(out, l.ring[s%historySize])
	}
	return out, l.next, l.changed
}
