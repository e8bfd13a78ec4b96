package raftstore

import (
	"encoding/binary"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// ring holds the latest committed commands for the followers of this node, each
// encoded once for all of them. A follower has no queue of its own but a place in the
// ring: what it costs does not depend on how slow it is. Who has fallen out of the
// ring, or stood before the state was replaced, is given a snapshot.
//
// What all nodes should hear of is told at once. Single addresses matter to the holder
// of their subnet alone, who is told of its own; the others hear of them after a
// pause that grows with their number, so that many followers cannot take this node's
// processors from those that attach containers on it.
type ring struct {
	maxLen, maxBytes int

	mu      sync.Mutex // guards the block
	recs    []record   // in the order of the log
	bytes   int
	base    uint64 // recs hold all commands after it
	last    uint64 // the latest command, in recs or not
	life    uint64 // grows when the state is replaced
	wake    chan struct{}
	told    time.Time   // when wake was last closed
	pending bool        // a timer is going to close it
	timer   *time.Timer // nil: never used
	streams map[*stream]struct{}
	own     map[[8]byte]*stream // by the tags of their proposals
}

// record is one command as it is sent:
//
//	index (8) previous command's index (8) term (8) length of the data (4) of the extensions (2)
//	data extensions
type record struct {
	index, prev uint64
	data        []byte
}

const recordHead = 8 + 8 + 8 + 4 + 2

func newRing(maxLen, maxBytes int) *ring {
	return &ring{
		maxLen: maxLen, maxBytes: maxBytes, wake: make(chan struct{}),
		streams: make(map[*stream]struct{}), own: make(map[[8]byte]*stream),
	}
}

// appendRecord appends the wire form of a command to b.
func appendRecord(b []byte, prev uint64, l *raft.Log) []byte {
	b = binary.BigEndian.AppendUint64(b, l.Index)
	b = binary.BigEndian.AppendUint64(b, prev)
	b = binary.BigEndian.AppendUint64(b, l.Term)
	b = binary.BigEndian.AppendUint32(b, uint32(len(l.Data)))
	b = binary.BigEndian.AppendUint16(b, uint16(len(l.Extensions)))
	return append(append(b, l.Data...), l.Extensions...)
}

// cutRecord reads the first command of b; false: b does not begin with one.
func cutRecord(b []byte) (l raft.Log, prev uint64, rest []byte, ok bool) {
	if len(b) < recordHead {
		return l, 0, nil, false
	}
	l.Type = raft.LogCommand
	l.Index, prev, l.Term = binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[16:])
	data, ext := uint64(binary.BigEndian.Uint32(b[24:])), uint64(binary.BigEndian.Uint16(b[28:]))
	b = b[recordHead:]
	if uint64(len(b)) < data+ext {
		return l, 0, nil, false
	}
	l.Data, l.Extensions = b[:data:data], b[data:data+ext:data+ext]
	return l, prev, b[data+ext:], true
}

// add takes a command in that was applied, after the one at prev. all: every node
// should hear of it at once. It does not block.
func (r *ring) add(prev uint64, l *raft.Log, all bool) {
	data := appendRecord(make([]byte, 0, recordHead+len(l.Data)+len(l.Extensions)), prev, l)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.recs = append(r.recs, record{l.Index, prev, data})
	r.bytes += len(data)
	r.last = l.Index
	drop := 0
	for len(r.recs)-drop > r.maxLen || r.bytes > r.maxBytes && drop < len(r.recs) {
		r.base = r.recs[drop].index
		r.bytes -= len(r.recs[drop].data)
		r.recs[drop].data = nil
		drop++
	}
	r.recs = r.recs[drop:] // append moves what is left when it needs room
	if len(r.streams) == 0 {
		return
	}
	if t, ok := entryTag(l); ok {
		if s := r.own[[8]byte(t[:8])]; s != nil {
			s.nudge()
		}
	}
	r.tell(all)
}

// perStream is the pause between two messages of single addresses, for each follower
// of this node: one message costs some 25 µs, so they take a quarter of a processor.
const perStream = 100 * time.Microsecond

// tell wakes the streams: at once, or when the pause is over. The caller holds mu.
func (r *ring) tell(now bool) {
	pause := perStream*time.Duration(len(r.streams)) - time.Since(r.told)
	if now || pause <= 0 {
		r.broadcast()
		return
	}
	if r.pending {
		return
	}
	r.pending = true
	if r.timer == nil {
		r.timer = time.AfterFunc(pause, r.due)
	} else {
		r.timer.Reset(pause)
	}
}

func (r *ring) due() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pending {
		r.broadcast()
	}
}

// broadcast wakes all streams. The caller holds mu.
func (r *ring) broadcast() {
	r.told, r.pending = time.Now(), false
	close(r.wake)
	r.wake = make(chan struct{})
}

// wakeAll lets all streams look at once.
func (r *ring) wakeAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.broadcast()
}

// reset empties the ring: the state was replaced by one at index.
func (r *ring) reset(index uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.recs, r.bytes, r.base, r.last = nil, 0, index, index
	r.life++
	r.broadcast()
}

// place is how far a follower is.
type place struct {
	index uint64 // of the last command that it has
	life  uint64 // of the ring, in which that is so
}

// next appends to b what comes after a place, up to about most bytes, and returns the
// place after that. ok is false when the ring does not say what comes after it. wake
// is closed when there is more.
func (r *ring) next(b []byte, at place, most int) (out []byte, after place, wake <-chan struct{}, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if at.life != r.life || at.index < r.base {
		return b, at, r.wake, false
	}
	i, found := slices.BinarySearchFunc(r.recs, at.index, func(rec record, index uint64) int {
		switch {
		case rec.index < index:
			return -1
		case rec.index > index:
			return 1
		}
		return 0
	})
	if found {
		i++
	}
	if i < len(r.recs) && r.recs[i].prev != at.index {
		return b, at, r.wake, false // there was no command at that place
	}
	for sent := 0; i < len(r.recs) && (sent == 0 || sent+len(r.recs[i].data) <= most); i++ {
		b = append(b, r.recs[i].data...)
		sent += len(r.recs[i].data)
		at.index = r.recs[i].index
	}
	return b, at, r.wake, true
}

// now returns the place after the latest command.
func (r *ring) now() place {
	r.mu.Lock()
	defer r.mu.Unlock()
	return place{r.last, r.life}
}

// holds reports whether the ring says what comes after a place.
func (r *ring) holds(at place) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return at.life == r.life && at.index >= r.base
}

// enter and leave note who is to be woken.
func (r *ring) enter(s *stream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.streams[s] = struct{}{}
	r.own[s.hello.tags] = s
}

func (r *ring) leave(s *stream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.streams, s)
	if r.own[s.hello.tags] == s {
		delete(r.own, s.hello.tags)
	}
}
