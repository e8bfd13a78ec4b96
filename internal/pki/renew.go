package pki

import (
	"context"
	"math/rand/v2"
	"time"
)

// RunRenewal keeps the certificate fresh until ctx ends: it asks for a new one
// between 1/2 and 6/10 of its life, at random so that nodes that were set up
// together do not renew together. After a failure it asks again after a second,
// then ever more slowly: up to ten minutes, or 1/20 of a shorter life. renew
// takes the request to a server and returns the certificate. An agent that has
// not joined yet waits here for its certificate. It returns ctx's error.
func (s *Store) RunRenewal(ctx context.Context, renew func(ctx context.Context, csrDER []byte) (certDER []byte, err error)) error {
	var (
		m        *material
		due      time.Time
		failures int
	)
	for {
		if now := s.current.Load(); now != m {
			m, due, failures = now, s.due(now), 0
		}
		if failures > 0 { // a clock that was ahead then must not put it off for years
			due = earliest(due, s.now().Add(2*maxRetryPause))
		}
		if err := s.sleepUntil(ctx, due); err != nil {
			return err
		}
		if m == nil || s.current.Load() != m || s.now().Before(due) {
			continue // another certificate, or the hour of sleepUntil
		}
		err := s.renewOnce(ctx, m.id, renew)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			until, _ := s.Expires()
			s.log.Info("certificate renewed", "until", until)
		default:
			failures++
			pause := retryPause(m.life(), failures)
			if m.leaf.NotAfter.Before(s.now()) {
				pause = max(pause, expiredPause) // nobody but a person can help now
			}
			due = s.now().Add(pause)
			s.complain(m, err)
		}
	}
}

func (s *Store) renewOnce(ctx context.Context, id Identity, renew func(context.Context, []byte) ([]byte, error)) error {
	csr, err := s.Request(id)
	if err != nil {
		return err
	}
	cert, err := renew(ctx, csr)
	if err != nil {
		return err
	}
	return s.Install(cert, nil)
}

// due returns when to ask for m's successor; never (zero) for no certificate.
func (s *Store) due(m *material) time.Time {
	if m == nil {
		return time.Time{}
	}
	return m.leaf.NotAfter.Add(-m.life() / 2).Add(jitter(m.life() / 10))
}

const (
	maxRetryPause = 10 * time.Minute
	expiredPause  = time.Minute
)

func retryPause(life time.Duration, failures int) time.Duration {
	pause := time.Second << min(failures-1, 10)
	pause = min(pause, life/20, maxRetryPause)
	return pause + jitter(pause/2)
}

// life is how long the certificate was meant to live, without the backdating.
func (m *material) life() time.Duration {
	return max(m.leaf.NotAfter.Sub(m.leaf.NotBefore)-Backdate, time.Second)
}

func jitter(below time.Duration) time.Duration { return rand.N(max(below, 1)) }

// sleepUntil waits for the time, the next change of the certificate, or an hour:
// timers stand still while a machine is suspended, so the wall clock is looked at
// again and again. The zero time is never.
func (s *Store) sleepUntil(ctx context.Context, at time.Time) error {
	pause := time.Hour
	if !at.IsZero() {
		pause = min(pause, max(at.Sub(s.now()), 0))
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-s.changed:
	case <-timer.C:
	}
	return nil
}

// complain logs a failed renewal, as an error when the end is near: the last
// seven days, or the last quarter of a shorter life.
func (s *Store) complain(m *material, err error) {
	left := m.leaf.NotAfter.Sub(s.now())
	if left <= 0 {
		s.log.Error("certificate has expired: no other node speaks to this one", "since", m.leaf.NotAfter, "error", err,
			"hint", "check the clock; if it is right, join again with a token: stellar cluster join")
		return
	}
	if left < min(7*24*time.Hour, m.life()/4) {
		s.log.Error("certificate is about to expire and cannot be renewed", "left", left.Round(time.Second), "until", m.leaf.NotAfter,
			"error", err, "hint", "check the clock and that a server is reachable; once expired, the node has to join again with a token")
		return
	}
	s.log.Warn("certificate not renewed, will retry", "left", left.Round(time.Second), "error", err)
}
