package failpoint_test

import (
	"bytes"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"stellar.io/stellar/internal/failpoint"
)

// traces are the failpoints' symbols and names that a program holds.
func traces(t *testing.T, tags string) (found []string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	build := exec.Command("go", "test", "-c", "-tags", tags, "-o", path, "stellar.io/stellar/raftstore/holder")
	build.Env = append(os.Environ(), "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	symbols, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range symbols {
		if elf.ST_TYPE(s.Info) == elf.STT_FUNC && strings.Contains(s.Name, "internal/failpoint") {
			found = append(found, s.Name)
		}
	}
	for _, section := range []string{".rodata", ".data"} {
		data, err := f.Section(section).Data()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range failpoint.All() {
			if bytes.Contains(data, []byte(p.Name)) {
				found = append(found, string(p.Name))
			}
		}
	}
	return found
}

// TestOffCostsNothing: a program without the tag has no code of a failpoint and not
// even its name. The one with the tag shows that they would be found.
func TestOffCostsNothing(t *testing.T) {
	if found := traces(t, "hashicorpmetrics"); len(found) > 0 {
		t.Errorf("without the tag: %v", found)
	}
	if found := traces(t, "hashicorpmetrics failpoints"); len(found) < 20 {
		t.Errorf("with the tag only %v", found)
	}
}

// BenchmarkHit is what a failpoint costs.
func BenchmarkHit(b *testing.B) {
	for b.Loop() {
		failpoint.Hit(failpoint.JournalSynced)
	}
}
