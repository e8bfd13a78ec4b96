package peer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode"

	"stellar.io/stellar/internal/pki"
)

// fakeConn has an address and knows whether it was closed.
type fakeConn struct {
	net.Conn
	from   string
	closed bool
}

func (c *fakeConn) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(c.from), 1))
}
func (c *fakeConn) Close() error { c.closed = true; return nil }

func TestPendingEvicts(t *testing.T) {
	t.Parallel()
	p := &pending{max: 4, maxPerIP: 3}
	conns := map[string]*fakeConn{}
	add := func(name, from string) { conns[name] = &fakeConn{from: from}; p.add(conns[name]) }
	check := func(step string, closed ...string) {
		t.Helper()
		want := " " + strings.Join(closed, " ") + " "
		for name, c := range conns {
			if c.closed != strings.Contains(want, " "+name+" ") {
				t.Errorf("%s: %s closed: %t", step, name, c.closed)
			}
		}
	}
	add("a1", "192.0.2.1")
	add("a2", "192.0.2.1")
	add("a3", "192.0.2.1")
	check("room")
	add("a4", "192.0.2.1")
	check("its own share", "a1")
	add("b1", "192.0.2.2")
	check("room for another", "a1")
	add("c1", "192.0.2.3")
	check("full: the greediest gives way", "a1", "a2")
	p.remove(conns["a3"])
	p.remove(conns["a3"])
	add("d1", "192.0.2.4")
	check("room again", "a1", "a2")
	p.closeAll()
	if !conns["b1"].closed || !conns["a4"].closed {
		t.Error("closeAll left some")
	}
}

func TestRemoteIP(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "::ffff:192.0.2.1": "192.0.2.1",
		"2001:db8:1:2:3:4:5:6": "2001:db8:1:2::", "fe80::1%eth0": "fe80::",
	} {
		if got := remoteIP(&fakeConn{from: in}); got.String() != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if got := remoteIP(a); got.IsValid() {
		t.Errorf("a pipe has %s", got)
	}
}

func TestRate(t *testing.T) {
	t.Parallel()
	r := &rate{burst: 2, every: time.Second}
	at := time.Unix(1000, 0)
	x, y := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	for i, c := range []struct {
		from  netip.Addr
		after time.Duration
		want  bool
	}{
		{x, 0, true}, {x, 0, true}, {x, 0, false}, {y, 0, true},
		{x, 500 * time.Millisecond, false}, {x, 500 * time.Millisecond, true}, {x, 0, false},
		{x, time.Hour, true}, {x, 0, true}, {x, 0, false},
	} {
		at = at.Add(c.after)
		if got := r.allow(c.from, at); got != c.want {
			t.Errorf("step %d: %t", i, got)
		}
	}
	for i := range 3 * maxBuckets { // many strangers do not fill the memory
		r.allow(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), at)
	}
	if len(r.taken) > maxBuckets {
		t.Errorf("%d buckets", len(r.taken))
	}
}

func TestQuiet(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	q := &quiet{log: slog.New(slog.NewTextHandler(&out, nil))}
	now := time.Now()
	x := netip.MustParseAddr("192.0.2.1")
	if _, ok := q.allow(quietKey{x, 1}, now); !ok {
		t.Error("the first is left out")
	}
	for range 5 {
		if _, ok := q.allow(quietKey{x, 1}, now); ok {
			t.Error("a repetition is said")
		}
	}
	if n, ok := q.allow(quietKey{x, 2}, now); !ok || n != 5 {
		t.Errorf("another reason: %d, %t", n, ok)
	}
	said := 0
	for i := range 1000 {
		if _, ok := q.allow(quietKey{netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 1}, now); ok {
			said++
		}
	}
	if said != quietLines-2 {
		t.Errorf("%d lines of strangers", said)
	}
	if n, ok := q.allow(quietKey{x, 1}, now.Add(time.Minute)); !ok || n != 1000-said {
		t.Errorf("a minute later: %d, %t", n, ok)
	}
	q.warn(netip.MustParseAddr("192.0.2.9"), 3, "refused")
	q.warn(netip.MustParseAddr("192.0.2.9"), 3, "refused")
	if n := strings.Count(out.String(), "\n"); n != 1 {
		t.Errorf("log %q", &out)
	}
}

func TestGreeting(t *testing.T) {
	t.Parallel()
	for _, want := range []greeting{{}, {0, 1 << 63, ""}, {7, 3, "certificate has expired"}, {1, 0, strings.Repeat("x", maxReason)}} {
		rest := "what follows"
		r := io.MultiReader(bytes.NewReader(want.encode()), strings.NewReader(rest))
		got, err := readGreeting(r)
		if err != nil || got != want {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
		if left, _ := io.ReadAll(r); string(left) != rest {
			t.Errorf("it left %q", left)
		}
	}
	long, err := readGreeting(bytes.NewReader(greeting{reason: strings.Repeat("ü", maxReason)}.encode()))
	if err != nil || len(long.reason) > maxReason || strings.Trim(long.reason, "ü") != "" {
		t.Errorf("a long reason: %q, %v", long.reason, err)
	}
	for _, bad := range []string{"", "\x00", "\x00\x08aaaaaaaa", "\xff\xff", "\x00\x09abc"} {
		if _, err := readGreeting(strings.NewReader(bad)); err == nil {
			t.Errorf("read %q", bad)
		}
	}
	evil, err := readGreeting(bytes.NewReader(greeting{verdict: 1, reason: "a\x1b[2J\nlevel=ERROR\u202eb\xff"}.encode()))
	if err != nil || evil.reason != "a[2Jlevel=ERRORb" {
		t.Errorf("%q, %v", evil.reason, err)
	}
}

func FuzzGreeting(f *testing.F) {
	f.Add(greeting{verdict: 3, generation: 4, reason: "x"}.encode())
	f.Add([]byte{0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := readGreeting(bytes.NewReader(b))
		if err != nil {
			return
		}
		if len(g.reason) > maxReason {
			t.Fatal("long reason")
		}
		for _, r := range g.reason {
			if !unicode.IsPrint(r) {
				t.Fatalf("%q", g.reason)
			}
		}
		again, err := readGreeting(bytes.NewReader(g.encode()))
		if err != nil || again != g {
			t.Fatalf("%+v became %+v, %v", g, again, err)
		}
	})
}

func TestCodes(t *testing.T) {
	t.Parallel()
	seen := map[uint8]bool{codeAccepted: true, codeOther: true}
	for _, c := range codes {
		if seen[c.code] {
			t.Errorf("code %d twice", c.code)
		}
		seen[c.code] = true
		if got := codeOf(fmt.Errorf("x: %w", c.err)); got != c.code {
			t.Errorf("%v: code %d, want %d", c.err, got, c.code)
		}
		r := &RefusedError{Server: member(1), Text: c.err.Error(), code: c.code}
		if !errors.Is(r, c.err) || !errors.Is(r, ErrRefused) {
			t.Errorf("%v is lost", c.err)
		}
	}
	later := &RefusedError{Server: member(1), Text: "a reason of a later version", code: 200}
	if !errors.Is(later, ErrRefused) || errors.Is(later, pki.ErrExpired) || !strings.Contains(later.Error(), "later version") {
		t.Errorf("%v", later)
	}
}
