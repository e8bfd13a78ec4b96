package journal

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"stellar.io/stellar/internal/testx/faults"
	"stellar.io/stellar/ipam"
)

// TestFaultJournalFlips: a flipped bit anywhere in the journal of a process that has
// ended gives what was written, or a clean refusal. The last write is no exception.
func TestFaultJournalFlips(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "j")
	j, _ := mustOpen(t, path, Options{})
	mustAppend(t, j, Record{Op: OpSeq, Request: ipam.RequestID{Seq: 1000}})
	for i := range 20 {
		mustAppend(t, j, bindRecord(i))
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	j, want := mustOpen(t, path, Options{})
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if again := size(t, path); again != int64(len(good)) {
		t.Errorf("a journal that was only opened has grown from %d to %d", len(good), again)
	}
	first, n := rand.Uint64()>>12, uint64(200)
	if faults.Long() {
		n = 1000
	}
	if os.Getenv(faults.EnvSeed) != "" {
		first, n = faults.Seed(t, "./raftstore/journal"), 1
	}
	refused := 0
	for seed := first; seed < first+n; seed++ {
		r := rand.New(rand.NewPCG(seed, 0))
		bad := bytes.Clone(good)
		bad[r.IntN(len(bad))] ^= 1 << r.IntN(8)
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		j, rec, err := Open(path, Options{Header: header})
		switch {
		case errors.Is(err, ErrCorrupt) || errors.Is(err, ErrForeign) || errors.Is(err, ErrVersion):
			refused++
			continue
		case err != nil:
			t.Fatalf("%v\n%s", err, faults.Replay(t.Name(), "./raftstore/journal", seed, false))
		}
		if d := cmp.Diff(want.Records, rec.Records, compare); d != "" {
			t.Errorf("%s\n%s", d, faults.Replay(t.Name(), "./raftstore/journal", seed, false))
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	faults.Report(t, faults.InProcess, "bit flips in the journal", "%d: %d refused, the others as written", n, refused)
	if n > 1 && refused < int(n)/2 {
		t.Errorf("only %d of %d refused", refused, n)
	}
}
