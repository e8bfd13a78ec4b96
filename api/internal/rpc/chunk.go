package rpc

import (
	"errors"
	"io"
)

// ChunkWriter cuts what is written to it into messages of ChunkSize.
type ChunkWriter struct {
	send func([]byte) error
	buf  []byte
	size int64
}

// NewChunkWriter returns a writer that gives send each chunk; send must not keep
// it. The last one is sent by Flush.
func NewChunkWriter(send func([]byte) error) *ChunkWriter {
	return &ChunkWriter{send: send, buf: make([]byte, 0, ChunkSize)}
}

// Write implements io.Writer. After an error of send it must not be used again.
func (w *ChunkWriter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		part := min(len(p), ChunkSize-len(w.buf))
		w.buf = append(w.buf, p[:part]...)
		p = p[part:]
		if len(w.buf) == ChunkSize {
			if err := w.Flush(); err != nil {
				return n - len(p) - part, err
			}
		}
	}
	return n, nil
}

// Flush sends what is left.
func (w *ChunkWriter) Flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	if err := w.send(w.buf); err != nil {
		return err
	}
	w.size += int64(len(w.buf))
	w.buf = w.buf[:0]
	return nil
}

// Size returns how many bytes were sent.
func (w *ChunkWriter) Size() int64 { return w.size }

// ChunkReader reads the chunks of a stream one after the other.
type ChunkReader struct {
	next func() ([]byte, error)
	buf  []byte
	err  error
}

// NewChunkReader returns a reader of what next returns until its error, io.EOF at
// the regular end.
func NewChunkReader(next func() ([]byte, error)) *ChunkReader { return &ChunkReader{next: next} }

// Read implements io.Reader.
func (r *ChunkReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(r.buf) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		r.buf, r.err = r.next()
		if r.err != nil {
			r.buf = nil
			if errors.Is(r.err, io.EOF) {
				r.err = io.EOF
			}
		}
	}
	n := copy(p, r.buf)
	r.buf = r.buf[n:]
	return n, nil
}
