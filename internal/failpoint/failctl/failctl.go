// Package failctl is the control of failpoints from outside of the program that
// has them: a table in a file that both map into memory. It has one slot for each
// failpoint, with what is to happen there and how often it was reached, and outlives
// the program.
package failctl

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Action is what happens at a failpoint.
type Action uint64

// The actions.
const (
	None  Action = iota
	Crash        // the process ends at once, as by kill -9
	Error        // the step fails, if it is one that can
	Sleep        // the step takes so much longer
)

// slot is one failpoint. Only one of Arm's callers works on a table at a time.
type slot struct {
	reached atomic.Uint64 // times, ever
	fired   atomic.Uint64 // times that its action was taken, ever
	action  atomic.Uint64
	at      atomic.Int64 // arrivals until the action is due; 0: never again; negative: at each
	pause   atomic.Int64 // of Sleep, in nanoseconds
}

// Table is an open table. All methods are safe for concurrent use, by any process.
type Table struct {
	slots []slot
	index map[string]int
	mem   []byte
}

// Open opens or makes the table of these failpoints, whose order decides about the
// slots. path "" makes one that nobody else sees. It stays mapped until Close.
func Open(path string, names []string) (*Table, error) {
	size := len(names) * int(unsafe.Sizeof(slot{}))
	fd, flags := -1, unix.MAP_SHARED|unix.MAP_ANONYMOUS
	if path != "" {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		if err := f.Truncate(int64(size)); err != nil {
			return nil, err
		}
		fd, flags = int(f.Fd()), unix.MAP_SHARED
	}
	mem, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, flags)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	t := &Table{
		slots: unsafe.Slice((*slot)(unsafe.Pointer(&mem[0])), len(names)),
		index: make(map[string]int, len(names)), mem: mem,
	}
	for i, n := range names {
		t.index[n] = i
	}
	return t, nil
}

// Close ends the mapping; no other method may be called any more.
func (t *Table) Close() error {
	t.slots = nil
	return unix.Munmap(t.mem)
}

// ErrUnknown is returned for a name that no failpoint has.
var ErrUnknown = errors.New("no such failpoint")

func (t *Table) slot(name string) (*slot, error) {
	i, ok := t.index[name]
	if !ok {
		return nil, fmt.Errorf("%w: %s", ErrUnknown, name)
	}
	return &t.slots[i], nil
}

// Reach counts one arrival at a failpoint and returns what is due.
func (t *Table) Reach(name string) (Action, time.Duration) {
	s, err := t.slot(name)
	if err != nil {
		panic(err) // a name that is missing in names.go
	}
	s.reached.Add(1)
	action := Action(s.action.Load())
	if action == None || !s.due() {
		return None, 0
	}
	s.fired.Add(1)
	return action, time.Duration(s.pause.Load())
}

// due counts one arrival down.
func (s *slot) due() bool {
	for {
		n := s.at.Load()
		if n <= 0 {
			return n < 0
		}
		if s.at.CompareAndSwap(n, n-1) {
			return n == 1
		}
	}
}

// Arm says what happens at the n-th arrival from now on, once; n 0: at each.
func (t *Table) Arm(name string, a Action, n int, pause time.Duration) error {
	s, err := t.slot(name)
	if err != nil {
		return err
	}
	s.action.Store(uint64(None))
	if n == 0 {
		n = -1
	}
	s.at.Store(int64(n))
	s.pause.Store(int64(pause))
	s.action.Store(uint64(a))
	return nil
}

// Disarm lets nothing happen anywhere.
func (t *Table) Disarm() {
	for i := range t.slots {
		t.slots[i].action.Store(uint64(None))
	}
}

// Reached returns how often a failpoint was reached, and Fired how often its action
// was taken, by all programs that have had the table; 0 for an unknown name.
func (t *Table) Reached(name string) uint64 {
	s, err := t.slot(name)
	if err != nil {
		return 0
	}
	return s.reached.Load()
}

// Fired is described with Reached.
func (t *Table) Fired(name string) uint64 {
	s, err := t.slot(name)
	if err != nil {
		return 0
	}
	return s.fired.Load()
}

// Parse arms by a text: "NAME=crash@3;NAME=error@1;NAME=sleep:200ms". A number after
// @ counts arrivals, of which one is meant; without it crash means the first, the
// others each.
func (t *Table) Parse(text string) error {
	for _, part := range strings.Split(text, ";") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		name, what, ok := strings.Cut(part, "=")
		if !ok {
			return fmt.Errorf("%q is not NAME=ACTION", part)
		}
		if err := t.parse(name, what); err != nil {
			return fmt.Errorf("%q: %w", part, err)
		}
	}
	return nil
}

func (t *Table) parse(name, what string) (err error) {
	n := 0
	if action, at, counted := strings.Cut(what, "@"); counted {
		if n, err = strconv.Atoi(at); err != nil || n < 1 {
			return fmt.Errorf("%q is no number of arrivals", at)
		}
		what = action
	}
	kind, arg, _ := strings.Cut(what, ":")
	switch {
	case kind == "sleep":
		pause, err := time.ParseDuration(arg)
		if err != nil {
			return err
		}
		return t.Arm(name, Sleep, n, pause)
	case arg != "":
	case kind == "crash":
		return t.Arm(name, Crash, max(n, 1), 0)
	case kind == "error":
		return t.Arm(name, Error, n, 0)
	}
	return fmt.Errorf("%q is none of crash, error, sleep:DURATION", what)
}
