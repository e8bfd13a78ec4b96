package journal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"stellar.io/stellar/internal/failpoint"
	"stellar.io/stellar/ipam"
)

// Options says whose journal it is and where it works.
type Options struct {
	Header Header
	Logger *slog.Logger // nil: discard
	FS     FS           // nil: OS
	// Go runs fn, before it returns or concurrently; nil: concurrently.
	Go func(fn func())
	// OnSync is called with the time that each fsync took, and how it ended, by
	// whoever writes; nil: nobody is told. It must not block.
	OnSync func(took time.Duration, err error)
}

// Recovered is what Open found.
type Recovered struct {
	// Records are the fewest that amount to what the file says: one bind or
	// release for each address that is not free, the reservations, one seq.
	Records []Record
	// Created: there was no file. Whatever was in one is lost.
	Created bool
	// Torn is the number of bytes that were cut off the end.
	Torn int64
}

// Journal is an open journal. Close it.
type Journal struct {
	path   string
	fs     FS
	log    *slog.Logger
	header Header
	spawn  func(func())
	onSync func(time.Duration, error)

	mu       sync.Mutex // guards the block
	queue    []*batch   // not yet being written
	flushing bool       // a flush goroutine is running
	closed   bool
	failed   error // the first error since the last good file
	bytes    int64 // size of the file
	live     int   // records that it amounts to, about

	flushers sync.WaitGroup // counts the flush goroutine

	// turn is held by whoever writes; it guards the block.
	turn  chan struct{}
	file  File
	codec codec
	size  int64 // of the file
	// sealed is the size that the file had when it was opened: as long as nothing is
	// written it needs no further seal.
	sealed int64
	state  *state
}

// batch is what one fsync will make durable.
type batch struct {
	buf     []byte // a frame without its head filled in
	records []Record
	done    chan struct{} // closed when err is set
	err     error
}

// Open opens the journal at path, or makes an empty one. It returns ErrCorrupt,
// ErrForeign or ErrVersion and leaves the file as it is, or an error of the disk.
func Open(path string, o Options) (*Journal, Recovered, error) {
	j := &Journal{
		path: path, fs: o.FS, log: o.Logger, header: o.Header, spawn: o.Go, onSync: o.OnSync,
		turn: make(chan struct{}, 1), state: newState(),
	}
	if j.fs == nil {
		j.fs = OS{}
	}
	if j.onSync == nil {
		j.onSync = func(time.Duration, error) {}
	}
	if j.spawn == nil {
		j.spawn = func(fn func()) { go fn() }
	}
	if j.log == nil {
		j.log = slog.New(slog.DiscardHandler)
	}
	var rec Recovered
	data, err := j.fs.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		rec.Created = true
		err = j.rewrite()
	case err == nil:
		if rec.Torn, err = j.load(data); err == nil {
			err = j.fs.Remove(path + newSuffix) // of a rotation that a crash ended
		}
	}
	if err != nil {
		if j.file != nil {
			j.file.Close()
		}
		return nil, Recovered{}, fmt.Errorf("open journal %s: %w", path, err)
	}
	j.measure()
	rec.Records = j.state.all()
	return j, rec, nil
}

// load reads an existing file and cuts off what a crash has left half written.
func (j *Journal) load(data []byte) (torn int64, err error) {
	h, codec, start, err := readHeader(data)
	if err != nil {
		return 0, err
	}
	if h != j.header {
		return 0, fmt.Errorf("%w: node %s of cluster %s", ErrForeign, h.Node.Short(), h.Cluster)
	}
	end, err := codec.scan(data, start, j.state.apply)
	if err != nil {
		return 0, err
	}
	if j.file, err = j.fs.OpenAppend(j.path); err != nil {
		return 0, err
	}
	j.codec, j.size, j.sealed = codec, int64(end), int64(end)
	if torn = int64(len(data) - end); torn > 0 {
		j.log.Warn("journal ended in a torn write, cut off", "path", j.path, "at", end, "bytes", torn)
		if err := j.file.Truncate(int64(end)); err != nil {
			return torn, err
		}
	}
	// What the last process wrote without living to see its fsync becomes durable
	// here: from now on it counts.
	return torn, j.file.Sync()
}

// Append makes the records durable, all of them or none, and then returns nil.
// It wraps ErrInvalid or ErrClosed when nothing was written, ErrFailed when the
// disk refused, and ctx's error when it did not wait for the end; after the last
// two the records may or may not become durable.
func (j *Journal) Append(ctx context.Context, records ...Record) error {
	return j.Begin(records...).Wait(ctx)
}

// Write is an Append under way. It goes on whether or not somebody waits.
type Write struct{ b *batch }

// Begin starts an Append and does not block.
func (j *Journal) Begin(records ...Record) Write {
	var buf []byte
	for _, r := range records {
		var err error
		if buf, err = appendRecord(buf, r); err != nil {
			return failedWrite(err)
		}
	}
	if len(buf) > maxAppend {
		return failedWrite(fmt.Errorf("%w: %d bytes at once", ErrInvalid, len(buf)))
	}
	b, idle, err := j.enqueue(buf, records)
	if b == nil {
		return failedWrite(err)
	}
	if idle {
		j.spawn(j.flush)
	}
	return Write{b}
}

// enqueue puts records into a batch; none and nil when there is nothing to write.
// idle: the caller has to have flush run.
func (j *Journal) enqueue(buf []byte, records []Record) (b *batch, idle bool, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case j.closed:
		return nil, false, ErrClosed
	case j.failed != nil:
		return nil, false, j.failed
	case len(records) == 0:
		return nil, false, nil
	}
	b = j.last(len(buf))
	b.buf = append(b.buf, buf...)
	b.records = append(b.records, records...)
	if idle = !j.flushing; idle {
		j.flushing = true
		j.flushers.Add(1)
	}
	return b, idle, nil
}

// last returns the batch that has room for n more bytes. The caller holds j.mu.
func (j *Journal) last(n int) *batch {
	if l := len(j.queue); l > 0 && len(j.queue[l-1].buf)+n <= frameHead+maxAppend {
		return j.queue[l-1]
	}
	b := &batch{buf: make([]byte, frameHead, frameHead+max(n, 4<<10)), done: make(chan struct{})}
	j.queue = append(j.queue, b)
	return b
}

func failedWrite(err error) Write {
	b := &batch{done: make(chan struct{}), err: err}
	close(b.done)
	return Write{b}
}

// Wait returns what Append returns.
func (w Write) Wait(ctx context.Context) error {
	select {
	case <-w.b.done:
		return w.b.err
	default:
	}
	select {
	case <-w.b.done:
		return w.b.err
	case <-ctx.Done():
		return fmt.Errorf("journal not yet written: %w", context.Cause(ctx))
	}
}

// Done is closed when the write has ended; Wait then does not block.
func (w Write) Done() <-chan struct{} { return w.b.done }

// flush writes batches until none is left.
func (j *Journal) flush() {
	defer j.flushers.Done()
	for {
		j.turn <- struct{}{}
		b, err := j.next()
		if b == nil {
			<-j.turn
			return
		}
		if err == nil {
			err = j.write(b)
		}
		<-j.turn
		b.err = err
		close(b.done)
	}
}

// next takes the first batch off the queue, or ends the flush goroutine.
func (j *Journal) next() (*batch, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.queue) == 0 {
		j.flushing = false
		return nil, nil
	}
	b := j.queue[0]
	j.queue = append(j.queue[:0], j.queue[1:]...)
	return b, j.failed
}

// write makes a batch durable. The caller holds j.turn.
func (j *Journal) write(b *batch) error {
	j.codec.frame(j.size, b.buf)
	err := failpoint.Err(failpoint.JournalAppend)
	if err == nil {
		_, err = j.file.Write(b.buf)
	}
	if err == nil {
		err = failpoint.Err(failpoint.JournalWritten)
	}
	if err == nil {
		begin := time.Now()
		err = j.file.Sync()
		j.onSync(time.Since(begin), err)
	}
	if err != nil {
		return j.fail(err)
	}
	failpoint.Hit(failpoint.JournalSynced)
	j.size += int64(len(b.buf))
	for _, r := range b.records {
		j.state.apply(r)
	}
	j.measure()
	return nil
}

// fail makes every later Append fail until Compact has succeeded.
func (j *Journal) fail(err error) error {
	err = fmt.Errorf("%w: %w", ErrFailed, err)
	j.mu.Lock()
	j.failed = err
	j.mu.Unlock()
	return err
}

// Failed returns the error that keeps the journal from being written, or nil.
func (j *Journal) Failed() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.failed
}

// Close writes what was begun and closes the file. It may be called twice.
func (j *Journal) Close() error {
	j.mu.Lock()
	closed := j.closed
	j.closed = true
	j.mu.Unlock()
	if closed {
		return nil
	}
	j.flushers.Wait()
	j.turn <- struct{}{}
	defer func() { <-j.turn }()
	j.seal()
	if err := j.file.Close(); err != nil {
		return fmt.Errorf("close journal %s: %w", filepath.Base(j.path), err)
	}
	return nil
}

// seal writes a frame that says nothing new behind the last one, so that damage to that
// one is known from a torn write. It need not be durable: the next Open sees to that
// before it writes. The caller holds j.turn.
func (j *Journal) seal() {
	if j.state.seq == 0 || j.Failed() != nil || j.size == j.sealed {
		return
	}
	frame, err := appendRecord(make([]byte, frameHead, 64), Record{Op: OpSeq, Request: ipam.RequestID{Seq: j.state.seq}})
	if err != nil {
		return
	}
	j.codec.frame(j.size, frame)
	if _, err := j.file.Write(frame); err != nil {
		j.log.Warn("journal is closed without a seal", "path", j.path, "err", err)
	}
}
