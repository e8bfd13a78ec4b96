package failctl

import (
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

var three = []string{"a/one", "a/two", "a/three"}

func open(t *testing.T, path string) *Table {
	t.Helper()
	table, err := Open(path, three)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { table.Close() })
	return table
}

func TestParse(t *testing.T) {
	type step struct {
		action Action
		pause  time.Duration
	}
	for text, want := range map[string][]step{
		"":                   {{}, {}, {}},
		"a/two=crash":        {{}, {}, {}},
		"a/one=crash":        {{Crash, 0}, {}, {}},
		"a/one=crash@3":      {{}, {}, {Crash, 0}},
		"a/one=error":        {{Error, 0}, {Error, 0}, {Error, 0}},
		"a/one=error@2":      {{}, {Error, 0}, {}},
		"a/one=sleep:200ms":  {{Sleep, 200 * time.Millisecond}, {Sleep, 200 * time.Millisecond}, {Sleep, 200 * time.Millisecond}},
		"a/one=sleep:1s@1;;": {{Sleep, time.Second}, {}, {}},
		" a/two=error ; a/one=error@1 ; a/three=crash ": {{Error, 0}, {}, {}},
	} {
		table := open(t, "")
		if err := table.Parse(text); err != nil {
			t.Errorf("%q: %v", text, err)
		}
		for i, w := range want {
			action, pause := table.Reach("a/one")
			if action != w.action || action != None && pause != w.pause {
				t.Errorf("%q: arrival %d: %d %s, want %+v", text, i+1, action, pause, w)
			}
		}
		if n := table.Reached("a/one"); n != 3 {
			t.Errorf("%q: %d arrivals", text, n)
		}
	}
	for _, text := range []string{"a/one", "a/one=", "a/one=burn", "a/one=crash:1", "a/one=crash@0", "a/one=crash@x", "a/one=sleep", "a/four=crash"} {
		if err := open(t, "").Parse(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
	if err := open(t, "").Parse("a/four=crash"); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
}

// TestShared: what one holder of the table arms is due at the other, once over all
// goroutines, and the counts outlive both.
func TestShared(t *testing.T) {
	path := filepath.Join(t.TempDir(), "table")
	suite, program := open(t, path), open(t, path)
	if err := suite.Arm("a/two", Error, 50, 0); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	due := make(chan Action, 200)
	for range 100 {
		wg.Go(func() {
			action, _ := program.Reach("a/two")
			due <- action
			action, _ = program.Reach("a/three")
			due <- action
		})
	}
	wg.Wait()
	close(due)
	fired := 0
	for action := range due {
		if action == Error {
			fired++
		}
	}
	later := open(t, path)
	if fired != 1 || later.Fired("a/two") != 1 || later.Reached("a/two") != 100 || later.Reached("a/three") != 100 {
		t.Errorf("%d fired; counted %d of %d and %d", fired, later.Fired("a/two"), later.Reached("a/two"), later.Reached("a/three"))
	}
	if err := suite.Arm("a/one", Crash, 0, 0); err != nil {
		t.Fatal(err)
	}
	suite.Disarm()
	if action, _ := program.Reach("a/one"); action != None {
		t.Errorf("disarmed, and %d is due", action)
	}
	if later.Reached("a/four") != 0 {
		t.Error("an unknown name was reached")
	}
}
