package node

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"stellar.io/stellar/api"
	"stellar.io/stellar/raftstore/holder"
)

// machine has clocks that are set by hand.
type machine struct {
	moment
	t    *testing.T
	path string
}

func newMachine(t *testing.T) *machine {
	return &machine{
		moment: moment{Boot: "one", Up: time.Hour, Wall: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)},
		t:      t, path: filepath.Join(t.TempDir(), contactFile),
	}
}

func (m *machine) pass(d time.Duration) { m.Up, m.Wall = m.Up+d, m.Wall.Add(d) }

// reboot takes d by the wall clock; boot time begins anew.
func (m *machine) reboot(d time.Duration) { m.Boot, m.Up, m.Wall = m.Boot+"+", 0, m.Wall.Add(d) }

func (m *machine) open() *contact {
	return openContact(m.path, 12*time.Hour, func() moment { return m.moment }, slog.New(slog.DiscardHandler))
}

// TestContactLimit: the silence is counted through everything that a machine goes through.
func TestContactLimit(t *testing.T) {
	t.Parallel()
	const almost, over = 12*time.Hour - 2*time.Minute, 12*time.Hour + time.Second
	for _, tt := range []struct {
		name string
		do   func(m *machine, c *contact) *contact
		want bool // expired
	}{
		{"at first", func(_ *machine, c *contact) *contact { return c }, false},
		{"almost", func(m *machine, c *contact) *contact { m.pass(almost); return c }, false},
		{"over", func(m *machine, c *contact) *contact { m.pass(over); return c }, true},
		{"over, and heard again", func(m *machine, c *contact) *contact { m.pass(over); c.heard(0); return c }, false},
		{"over, and the agent restarted", func(m *machine, _ *contact) *contact { m.pass(over); return m.open() }, true},
		{"restarted over and over", func(m *machine, c *contact) *contact {
			for range 13 {
				m.pass(time.Hour)
				c = m.open()
			}
			return c
		}, true},
		{"the clock was set back", func(m *machine, c *contact) *contact { m.Up += over; m.Wall = m.Wall.Add(-time.Hour); return c }, true},
		{"the clock was set forward", func(m *machine, c *contact) *contact { m.Wall = m.Wall.Add(over); return c }, false},
		{"a short reboot", func(m *machine, _ *contact) *contact { m.reboot(time.Minute); return m.open() }, false},
		{"a long reboot", func(m *machine, _ *contact) *contact { m.reboot(over); return m.open() }, true},
		{"a reboot, then silence", func(m *machine, _ *contact) *contact { m.reboot(almost); c := m.open(); m.pass(time.Hour); return c }, true},
		{"a reboot without a clock", func(m *machine, _ *contact) *contact { m.reboot(-24 * 365 * time.Hour); return m.open() }, true},
		{"a reboot without a clock, and heard", func(m *machine, _ *contact) *contact {
			m.reboot(-24 * 365 * time.Hour)
			c := m.open()
			c.heard(0)
			return c
		}, false},
		{"a reboot with a clock a little off", func(m *machine, _ *contact) *contact { m.reboot(-time.Second); return m.open() }, false},
		{"heard until just before the restart", func(m *machine, c *contact) *contact {
			for range 13 * 60 {
				m.pass(time.Minute)
				c.heard(0)
			}
			m.pass(almost)
			return m.open()
		}, false},
		{"a damaged file", func(m *machine, _ *contact) *contact {
			if err := os.WriteFile(m.path, []byte("{"), 0o600); err != nil {
				m.t.Fatal(err)
			}
			c := m.open()
			m.pass(over)
			return c
		}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t)
			c := tt.do(m, m.open())
			if err := c.expired(); (err != nil) != tt.want || err != nil && !errors.Is(err, errSilence) {
				t.Errorf("expired: %v, want %v", err, tt.want)
			}
		})
	}
}

// TestContactIsWrittenSeldom: once a minute at most, however often a leader is heard.
func TestContactIsWrittenSeldom(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	c := m.open()
	writes := 0
	last, _ := os.Stat(m.path)
	for range 300 { // ten minutes
		m.pass(2 * time.Second)
		c.heard(0)
		if now, err := os.Stat(m.path); err != nil {
			t.Fatal(err)
		} else if !os.SameFile(last, now) {
			writes, last = writes+1, now
		}
	}
	if writes < 9 || writes > 10 {
		t.Errorf("%d writes in ten minutes", writes)
	}
}

// TestClocks: this machine's run, and in one direction.
func TestClocks(t *testing.T) {
	t.Parallel()
	a := clocks()
	b := clocks()
	if d, ok := b.since(a); !ok || a.Boot == "" || a.Up <= 0 || d < 0 || d > time.Minute {
		t.Errorf("%+v, %+v", a, b)
	}
}

// TestSilentNodePicksNothing: it binds nothing new, says why, and lets an owner keep
// what it has.
func TestSilentNodePicksNothing(t *testing.T) {
	t.Parallel()
	n := lone(t)
	m := newMachine(t)
	n.contact = m.open()
	p, _ := n.runStore(t)
	n.withHolder(t, p)
	g := guarded{p.holder, func() error { return n.barred(p) }}
	bind := func(id string) error {
		_, err := g.Bind(t.Context(), holder.BindRequest{Owner: containerOwner(id)})
		return err
	}
	if err := bind("old"); err != nil {
		t.Fatal(err)
	}
	m.pass(13 * time.Hour)
	if err := bind("new"); !errors.Is(err, errSilence) || !strings.Contains(err.Error(), "13h") {
		t.Errorf("a new owner after 13 h: %v", err)
	}
	if err := bind("old"); err != nil {
		t.Errorf("the old owner: %v", err)
	}
	if s, reason := n.membership(p); s != api.Err || !strings.Contains(reason, "13h") {
		t.Errorf("membership is %s: %s", s, reason)
	}
	n.review(t.Context(), p) // it leads itself
	if err := bind("new"); err != nil {
		t.Errorf("after contact: %v", err)
	}
}
