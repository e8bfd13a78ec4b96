package holder

import (
	"context"
	"sync"
	"time"

	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore/journal"
)

// seqBlock is how many request numbers are set aside in the journal at once.
const seqBlock = 1000

// sequence hands out request ids, none of them twice: not after a crash, and not
// after the journal was lost. The journal says up to which number they may have been
// used. A new journal starts at a number made from the wall clock, which lies above
// whatever a lost one has handed out (a million a second, for 500,000 years).
type sequence struct {
	node    ipam.NodeID
	journal *journal.Journal

	mu    sync.Mutex // guards the block; held while the journal is written
	last  uint64     // handed out
	limit uint64     // durable: numbers up to here may be handed out
	ahead journal.Write
	begun uint64 // the limit that ahead makes durable; 0: none under way
}

// newSequence goes on after the numbers that may have been used. used is what the
// journal says, 0 when it says nothing.
func newSequence(node ipam.NodeID, j *journal.Journal, used uint64, now time.Time) *sequence {
	if used == 0 {
		used = uint64(now.Unix()) << 20
	}
	return &sequence{node: node, journal: j, last: used, limit: used}
}

// next returns a new id. It waits for the journal when no number is set aside.
func (s *sequence) next() (ipam.RequestID, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.extend()
	if s.last == s.limit {
		if err := s.settle(); err != nil {
			return ipam.RequestID{}, err
		}
	}
	s.last++
	return ipam.RequestID{Node: s.node, Seq: s.last}, nil
}

// extend sets the next block aside in time, without waiting for it.
func (s *sequence) extend() {
	if s.begun != 0 {
		select {
		case <-s.ahead.Done():
			s.settle() // an error shows when the numbers are needed
		default:
		}
	}
	if s.begun == 0 && s.limit-s.last < seqBlock/2 {
		s.begun = s.limit + seqBlock
		s.ahead = s.journal.Begin(journal.Record{Op: journal.OpSeq, Request: ipam.RequestID{Seq: s.begun}})
	}
}

// settle waits for the block that was begun.
func (s *sequence) settle() error {
	err := s.ahead.Wait(context.Background())
	if err == nil {
		s.limit = s.begun
	}
	s.begun = 0
	return err
}

// skip leaves out numbers that the state seems to know from somebody else: a
// journal older than the last was put back, or the clock went back.
func (s *sequence) skip() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.begun != 0 {
		_ = s.settle()
	}
	s.last += 1 << 20
	s.limit = s.last
}
