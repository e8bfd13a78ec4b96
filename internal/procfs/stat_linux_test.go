package procfs

import (
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"
)

// TestParseStat: the name of a process may hold anything.
func TestParseStat(t *testing.T) {
	t.Parallel()
	line := func(name, state, flags, start string) string {
		return "42 (" + name + ") " + state + " 1 42 42 0 -1 " + flags + " 0 0 0 0 0 0 0 0 20 0 1 0 " + start + " 0 0\n"
	}
	for _, tc := range []struct {
		name, in string
		want     Stat
		fails    bool
	}{
		{"plain", line("sh", "S", "4194368", "123"), Stat{Parent: 1, Start: 123, ForkedOnly: true}, false},
		{"exec'ed", line("sh", "R", "4194304", "123"), Stat{Parent: 1, Start: 123}, false},
		{"kernel", line("kworker", "I", "69238880", "1"), Stat{Parent: 1, Start: 1, ForkedOnly: true, Kernel: true}, false},
		{"name", line("a) R 1 (b", "t", "64", "9"), Stat{Parent: 1, Start: 9, ForkedOnly: true}, false},
		{"zombie", line("sh", "Z", "64", "9"), Stat{Parent: 1, Start: 9, ForkedOnly: true, Dead: true}, false},
		{"empty", "", Stat{}, true},
		{"short", "42 (sh) S 1", Stat{}, true},
		{"flags", line("sh", "S", "-1", "9"), Stat{}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := ParseStat([]byte(tc.in))
			if (err != nil) != tc.fails || got != tc.want {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("1 (x) S 0 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 25 0"))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = ParseStat(b) })
}

func TestReadStat(t *testing.T) {
	before := time.Now()
	cmd := exec.Command("sleep", "100")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	s, err := ReadLive(pid)
	if err != nil || s.PID != pid || s.Parent != os.Getpid() || s.Dead {
		t.Errorf("%+v, %v", s, err)
	}
	if s.StartedAfter(time.Now().Add(2*Tick)) || !s.StartedAfter(before.Add(-2*Tick)) {
		t.Errorf("started at %d ticks, which is not about now", s.Start)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for { // it dies, and stays as a zombie until it is waited for
		_, err := ReadLive(pid)
		if errors.Is(err, os.ErrProcessDone) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("killed, and no error")
	}
	if _, err := ReadStat(pid); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of no process: %v", err)
	}
}
