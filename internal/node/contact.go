package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/atomicfile"
)

const (
	// contactFile is inside the data directory: when a leader was last heard.
	contactFile = "contact.json"
	// contactEvery is how often that is written at most. A start may so take the
	// silence for longer than it was, never for shorter.
	contactEvery = time.Minute
)

// errSilence is why a node that has not heard a leader for too long binds no new
// address: its subnet may have been given away meanwhile.
var errSilence = errors.New("no contact with a leader")

// moment is one reading of the clocks.
type moment struct {
	Boot string        `json:"boot"`  // id of the boot
	Up   time.Duration `json:"up"`    // since that boot, suspension included
	Wall time.Time     `json:"clock"` // for what came before the boot
}

// since returns the time from an earlier reading, false when it cannot be told: the
// machine was started anew, and its clock stands before that of the reading.
func (m moment) since(earlier moment) (time.Duration, bool) {
	if m.Boot == earlier.Boot && m.Boot != "" {
		return max(0, m.Up-earlier.Up), true
	}
	d := m.Wall.Sub(earlier.Wall)
	return max(0, d), d >= -contactEvery // a clock that was set right at the start may have gone back a little
}

// clocks reads the machine's clocks. Boot time goes on while it is suspended.
func clocks() moment {
	m := moment{Wall: time.Now().Round(0)}
	var ts unix.Timespec
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err == nil && unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) == nil {
		m.Boot, m.Up = strings.TrimSpace(string(id)), time.Duration(ts.Nano())
	}
	return m
}

// contact remembers, past restarts and reboots, when this node last knew that it was
// led: as a follower that heard its leader, or as a leader that a majority followed.
type contact struct {
	path  string
	limit time.Duration // of silence, after which nothing new is bound
	now   func() moment
	log   *slog.Logger

	mu      sync.Mutex // guards what follows; not held while the file is written
	last    moment
	written moment // what the file holds
}

// openContact reads the file. Where there is none, the silence begins now: a node
// that never heard of a leader holds nothing, and one whose file was lost is asked to
// trust nobody's clock but its own.
func openContact(path string, limit time.Duration, now func() moment, log *slog.Logger) *contact {
	c := &contact{path: path, limit: limit, now: now, log: log, last: now()}
	data, err := os.ReadFile(path)
	if err == nil {
		var m moment
		if err = json.Unmarshal(data, &m); err == nil && !m.Wall.IsZero() {
			c.last, c.written = m, m
			return c
		}
	}
	if !errors.Is(err, fs.ErrNotExist) {
		log.Warn("it cannot be read when a leader was last heard; counting from now", "file", path, "err", err)
	}
	c.write(c.last)
	return c
}

// heard notes that the node was led so long ago.
func (c *contact) heard(ago time.Duration) {
	last := c.now()
	last.Up, last.Wall = last.Up-ago, last.Wall.Add(-ago)
	c.mu.Lock()
	c.last = last
	age, known := last.since(c.written)
	c.mu.Unlock()
	if !known || age >= contactEvery {
		c.write(last)
	}
}

func (c *contact) write(m moment) {
	data, err := json.Marshal(m)
	if err == nil {
		err = atomicfile.Write(c.path, append(data, '\n'), 0o600)
	}
	if err != nil {
		c.log.Warn("it cannot be written when a leader was last heard", "err", err)
		return
	}
	c.mu.Lock()
	c.written = m
	c.mu.Unlock()
}

// silence returns for how long no leader was heard, false when that cannot be told.
func (c *contact) silence() (time.Duration, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now().since(c.last)
}

// expired wraps errSilence when no leader was heard for too long.
func (c *contact) expired() error {
	c.mu.Lock()
	silent, known := c.now().since(c.last)
	c.mu.Unlock()
	switch {
	case !known:
		return fmt.Errorf("%w since before the reboot, and the clock stands before it", errSilence)
	case silent > c.limit:
		return fmt.Errorf("%w for %s, at most %s are allowed (contact-limit)", errSilence, silent.Round(time.Second), c.limit)
	}
	return nil
}
