package raftstore

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// retryAttempt bounds one attempt: the leader that was asked may be the one that
	// has just been cut off.
	retryAttempt = 2 * time.Second
	// retryPause lies between two attempts.
	retryPause = 50 * time.Millisecond
	// retryPatience is for how long a leader is waited for; an election takes 3 s at
	// most (DefaultConfig).
	retryPatience = 5 * time.Second
	// retryLimit bounds what a caller without a deadline waits.
	retryLimit = 10 * time.Second
	// answerMargin is kept of the caller's time, so that it hears how it ended.
	answerMargin = 250 * time.Millisecond
)

// Retry calls try until a change of leadership no longer keeps it from an outcome.
// try must be safe to repeat after ErrUnknownOutcome: an envelope with a request id,
// a command or a Change that is idempotent. It gets a context for one attempt.
//
// What is in doubt is tried again until shortly before ctx's deadline (10 s without
// one); a leader that is missing is waited for, but for no more than 5 s. The error is try's last one;
// it wraps ErrUnknownOutcome also when an earlier attempt may have been committed.
func Retry(ctx context.Context, try func(context.Context) error) error {
	end, ok := ctx.Deadline()
	switch {
	case !ok:
		end = time.Now().Add(retryLimit)
	case time.Until(end) > 2*answerMargin:
		end = end.Add(-answerMargin)
	}
	ctx, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	doubt := false
	var last error
	for patience := time.Now().Add(retryPatience); ; {
		err := attempt(ctx, try)
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil || passing(err) { // else it only says that the time is over
			last = err
		}
		unknown := errors.Is(err, ErrUnknownOutcome)
		doubt = doubt || unknown
		if !passing(err) || !unknown && time.Now().After(patience) || !sleep(ctx, retryPause) {
			if doubt && !errors.Is(last, ErrUnknownOutcome) {
				return fmt.Errorf("%w: %w", ErrUnknownOutcome, last)
			}
			return last
		}
	}
}

func attempt(ctx context.Context, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, retryAttempt)
	defer cancel()
	return try(ctx)
}

// passing reports whether an error may be gone with the next leader.
func passing(err error) bool {
	switch {
	case errors.Is(err, ErrRemoved), errors.Is(err, ErrShutdown), errors.Is(err, ErrStopped):
		return false
	}
	return errors.Is(err, ErrUnknownOutcome) || errors.Is(err, ErrNoLeader) || errors.Is(err, ErrBusy) || errors.Is(err, ErrNotStarted)
}
