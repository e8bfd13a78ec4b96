package raftstore

import "time"

// write does what writes to the file, and notes how long it takes and how it ends.
func (s *sumStore) write(fn func() error) error {
	defer s.busy.start(time.Now())()
	return s.try(fn)
}

// try writes, and returns when the file can be used again.
func (s *sumStore) try(fn func() error) error {
	s.using.RLock()
	err := fn()
	s.using.RUnlock()
	s.failed(err)
	if err != nil && s.open != nil {
		s.reopen()
	}
	return err
}

// reopen opens the file anew, as often as it takes. Opening it writes to it: when it
// has succeeded there is room. Until then this node is one whose disk hangs.
func (s *sumStore) reopen() {
	s.setReopening(true)
	defer s.setReopening(false)
	s.using.Lock()
	defer s.using.Unlock()
	if err := s.bolt.Close(); err != nil {
		s.log.Warn("raft log cannot be closed after a failed write", "error", err)
	}
	for first := true; ; first = false {
		bolt, err := s.open()
		if err == nil {
			s.bolt = bolt
			return
		}
		s.failed(err)
		if first {
			s.log.Warn("raft log cannot be opened after a failed write, will retry", "error", err)
		}
		time.Sleep(termRetry)
	}
}

func (s *sumStore) setReopening(on bool) {
	s.mu.Lock()
	s.reopening = on
	s.mu.Unlock()
}

// failed notes how a write has ended.
func (s *sumStore) failed(err error) {
	s.mu.Lock()
	s.failing = err
	s.mu.Unlock()
}

// condition returns how long the oldest write that is under way has taken, and why the
// last one failed.
func (s *sumStore) condition(now time.Time) (busy time.Duration, failing error) {
	s.mu.Lock()
	failing = s.failing
	s.mu.Unlock()
	return s.busy.age(now), failing
}

// hung reports whether the disk has not taken a write for hangAfter, or has refused one
// and takes no other.
func (s *sumStore) hung() bool {
	s.mu.Lock()
	reopening := s.reopening
	s.mu.Unlock()
	return reopening || s.busy.age(time.Now()) >= hangAfter
}
