package journal

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"stellar.io/stellar/internal/failpoint"
)

// A file is worth compacting when it is larger than compactSize and holds
// compactRatio times as much as what it amounts to.
const (
	compactSize  = 256 << 10
	compactRatio = 4
	recordSize   = 200 // bytes of a typical record
)

// newSuffix is the end of the name of a file that is to replace the journal.
const newSuffix = ".new"

// Size returns the size of the file after the last write, and whether Compact would
// make it much smaller.
func (j *Journal) Size() (bytes int64, worth bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.bytes, j.bytes > compactSize && j.bytes > compactRatio*recordSize*int64(j.live+1)
}

// measure lets Size know. The caller holds j.turn.
func (j *Journal) measure() {
	j.mu.Lock()
	j.bytes, j.live = j.size, len(j.state.leases)+len(j.state.reservations)
	j.mu.Unlock()
}

// Compact writes a new file with the fewest records and puts it in place of the
// old one. Appends that are waiting go to the new file. It is also how a journal
// recovers from ErrFailed: records whose Append failed are not in the new file.
// After an error the journal is as it was, or has failed.
func (j *Journal) Compact(ctx context.Context) error {
	select {
	case j.turn <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("compact journal: %w", context.Cause(ctx))
	}
	defer func() { <-j.turn }()
	j.mu.Lock()
	closed := j.closed
	j.mu.Unlock()
	if closed {
		return ErrClosed
	}
	if err := j.rewrite(); err != nil {
		return fmt.Errorf("compact journal: %w", err)
	}
	return nil
}

// rewrite makes a file of the state and puts it in place. The caller holds j.turn.
//
// Order: the new file is complete and durable before it gets the name, so a crash
// leaves the old or the new file. Then the name must be durable before anything is
// acknowledged: a crash that brings back the old name would lose it otherwise.
func (j *Journal) rewrite() error {
	codec := newCodec()
	buf := codec.header(j.header)
	if records := j.state.all(); len(records) > 0 {
		frame := make([]byte, frameHead, frameHead+len(records)*recordSize)
		for _, r := range records {
			var err error
			if frame, err = appendRecord(frame, r); err != nil {
				return err
			}
		}
		codec.frame(int64(len(buf)), frame)
		buf = append(buf, frame...)
	}
	tmp := j.path + newSuffix
	f, err := j.fs.Create(tmp)
	if err != nil {
		return err
	}
	if err = failpoint.Err(failpoint.JournalRewrite); err == nil {
		_, err = f.Write(buf)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = failpoint.Err(failpoint.JournalRewritten)
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	if err := j.fs.Rename(tmp, j.path); err != nil {
		// Which file has the name now is unknown, so neither may be written to.
		return errors.Join(j.fail(err), f.Close())
	}
	old := j.file
	j.file, j.codec, j.size = f, codec, int64(len(buf))
	j.measure()
	if err = failpoint.Err(failpoint.JournalRenamed); err == nil {
		err = j.fs.SyncDir(filepath.Dir(j.path))
	}
	failpoint.Hit(failpoint.JournalRotated)
	if old != nil {
		old.Close() // nothing in it counts any more
	}
	if err != nil {
		return j.fail(err)
	}
	j.mu.Lock()
	j.failed = nil
	j.mu.Unlock()
	return nil
}

// Records returns about how many records the file amounts to.
func (j *Journal) Records() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.live
}
