package rpc

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

// What is cut into chunks comes back whole, however it is written and read.
func TestChunks(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var chunks [][]byte
		w := NewChunkWriter(func(b []byte) error {
			if len(b) == 0 || len(b) > ChunkSize {
				t.Fatalf("a chunk of %d bytes", len(b))
			}
			chunks = append(chunks, bytes.Clone(b))
			return nil
		})
		var want []byte
		for _, n := range rapid.SliceOfN(rapid.IntRange(0, 2*ChunkSize+1), 0, 5).Draw(t, "writes") {
			p := bytes.Repeat([]byte{byte(len(want))}, n)
			want = append(want, p...)
			if m, err := w.Write(p); m != n || err != nil {
				t.Fatalf("Write = %d, %v", m, err)
			}
		}
		if err := w.Flush(); err != nil || w.Size() != int64(len(want)) {
			t.Fatalf("Flush = %v, size %d of %d", err, w.Size(), len(want))
		}
		r := NewChunkReader(func() ([]byte, error) {
			if len(chunks) == 0 {
				return nil, io.EOF
			}
			c := chunks[0]
			chunks = chunks[1:]
			return c, nil
		})
		if err := iotest.TestReader(r, want); err != nil {
			t.Fatal(err)
		}
	})
}

func TestChunkErrors(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	w := NewChunkWriter(func([]byte) error { return broken })
	if _, err := w.Write(make([]byte, 3*ChunkSize)); !errors.Is(err, broken) {
		t.Errorf("Write = %v", err)
	}
	first := true
	r := NewChunkReader(func() ([]byte, error) {
		if first {
			first = false
			return []byte("half"), nil
		}
		return nil, broken
	})
	got, err := io.ReadAll(r)
	if string(got) != "half" || !errors.Is(err, broken) {
		t.Errorf("ReadAll = %q, %v", got, err)
	}
}
