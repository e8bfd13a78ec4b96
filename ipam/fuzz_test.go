package ipam

import (
	"bytes"
	"errors"
	"os"
	"testing"
)

// FuzzApply: whatever the log holds, Apply neither panics nor breaks the state,
// and the same bytes do the same twice.
func FuzzApply(f *testing.F) {
	everything, err := Envelope{Request: RequestID{nodeID(1), 9}, Commands: everyCommand()}.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(everything)
	for _, c := range everyCommand() {
		data, err := Envelope{Commands: []Command{c}}.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	full := written(f, fullState(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		var hashes [2][32]byte
		for i := range hashes {
			s, err := Restore(bytes.NewReader(full))
			if err != nil {
				t.Fatal(err)
			}
			before := s.Hash()
			if _, err := s.Apply(s.Index()+1, data); err != nil {
				if !errors.Is(err, ErrUnknownCommand) || s.Hash() != before {
					t.Fatalf("apply: %v, changed: %v", err, s.Hash() != before)
				}
			}
			if err := s.Check(); err != nil {
				t.Fatal(err)
			}
			hashes[i] = s.Hash()
		}
		if hashes[0] != hashes[1] {
			t.Fatal("two states differ")
		}
	})
}

// FuzzRestore: damaged data gives an error of ours or the very state it was
// written from; data with right checksums but any records gives a sound state or
// an error.
func FuzzRestore(f *testing.F) {
	full := fullState(f)
	var records []byte
	if err := full.encode(func(b []byte) error { records = append(records, b...); return nil }); err != nil {
		f.Fatal(err)
	}
	f.Add(written(f, full), false)
	f.Add(written(f, New()), false)
	if first, err := os.ReadFile("testdata/snapshot-v1.bin"); err != nil {
		f.Fatal(err)
	} else {
		f.Add(first, false)
	}
	f.Add(records, true)
	f.Fuzz(func(t *testing.T, data []byte, sealed bool) {
		if sealed && len(data) > 0 && len(data) <= maxFrame {
			var b bytes.Buffer
			w := newFrameWriter(&b)
			if err := errors.Join(w.header(snapshotVersion, 1<<40), w.frame(data), w.end()); err != nil {
				t.Fatal(err)
			}
			data = b.Bytes()
		}
		s, err := Restore(bytes.NewReader(data))
		if err != nil {
			for _, want := range []error{
				ErrSnapshotTruncated, ErrSnapshotFormat, ErrSnapshotVersion, ErrSnapshotChecksum, ErrSnapshotInvalid,
			} {
				if errors.Is(err, want) {
					return
				}
			}
			t.Fatalf("restore: %v", err)
		}
		again, err := Restore(bytes.NewReader(written(t, s)))
		if err != nil || again.Hash() != s.Hash() {
			t.Fatalf("a restored state does not survive its own snapshot: %v", err)
		}
	})
}
