package raftstore

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"stellar.io/stellar/ipam"
)

var testPrefix = netip.MustParsePrefix("172.16.0.0/12")

func mustApply(t *testing.T, f *fsm, index uint64, env ipam.Envelope) applied {
	t.Helper()
	data, err := env.Encode()
	if err != nil {
		t.Fatal(err)
	}
	e := newEntry(data)
	e.Index = index
	return f.Apply(&e).(applied)
}

// failingSink fails at the nth byte.
type failingSink struct {
	left   int
	closed bool
}

var errSink = errors.New("disk full")

func (s *failingSink) Write(b []byte) (int, error) {
	if s.left -= len(b); s.left < 0 {
		return 0, errSink
	}
	return len(b), nil
}
func (s *failingSink) Close() error  { s.closed = true; return nil }
func (s *failingSink) Cancel() error { s.closed = true; return nil }
func (s *failingSink) ID() string    { return "test" }

// A snapshot that was not written must not look like one: the log would be cut.
func TestPersistReturnsFirstError(t *testing.T) {
	t.Parallel()
	f := newFSM(nil)
	mustApply(t, f, 2, firstEnvelope())
	snap, err := f.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	var whole bytes.Buffer
	n, err := snap.(*snapshot).s.WriteTo(&whole)
	if err != nil {
		t.Fatal(err)
	}
	for left := range int(n) {
		sink := &failingSink{left: left}
		if err := snap.Persist(sink); !errors.Is(err, errSink) {
			t.Fatalf("sink fails at byte %d: %v", left, err)
		}
		if sink.closed {
			t.Fatal("Persist closed the sink; a later Close by the library would succeed")
		}
	}
}

func TestRestoreSwapsState(t *testing.T) {
	t.Parallel()
	var restored uint64
	f := newFSM(func(i uint64, _ []ipam.Delta) { restored = i })
	mustApply(t, f, 2, firstEnvelope())
	snap, _ := f.Snapshot()
	var buf bytes.Buffer
	if _, err := snap.(*snapshot).s.WriteTo(&buf); err != nil {
		t.Fatal(err)
	}
	g := newFSM(func(i uint64, _ []ipam.Delta) { restored = i })
	changed := g.view(func(*ipam.State) {})
	if err := g.Restore(io.NopCloser(bytes.NewReader(buf.Bytes()[:buf.Len()/2]))); !errors.Is(err, ipam.ErrSnapshotTruncated) {
		t.Errorf("half a snapshot: %v", err)
	}
	select {
	case <-changed:
		t.Error("woken by a failed restore")
	default:
	}
	if err := g.Restore(io.NopCloser(&buf)); err != nil {
		t.Fatal(err)
	}
	<-changed
	if restored != 2 {
		t.Errorf("observer saw index %d", restored)
	}
	if f.state.Hash() != g.state.Hash() {
		t.Error("states differ")
	}
}

func TestLatch(t *testing.T) {
	t.Parallel()
	for what, entry := range map[string]raft.Log{
		"undecodable":     newEntry([]byte{9, 9}),
		"no checksum":     {Data: []byte{1}},
		"flipped bit":     func() raft.Log { e := newEntry([]byte{1, 2}); e.Data[0] ^= 1; return e }(),
		"index goes back": func() raft.Log { d, _ := firstEnvelope().Encode(); e := newEntry(d); e.Index = 1; return e }(),
	} {
		f := newFSM(nil)
		mustApply(t, f, 2, firstEnvelope())
		hash := f.state.Hash()
		if entry.Index == 0 {
			entry.Index = 3
		}
		if a := f.Apply(&entry).(applied); !errors.Is(a.err, ErrStopped) {
			t.Errorf("%s: %v", what, a.err)
		}
		if a := mustApply(t, f, 4, firstEnvelope()); !errors.Is(a.err, ErrStopped) {
			t.Errorf("%s: went on: %v", what, a.err)
		}
		if _, err := f.Snapshot(); !errors.Is(err, ErrStopped) {
			t.Errorf("%s: snapshot: %v", what, err)
		}
		if f.state.Hash() != hash {
			t.Errorf("%s: state changed", what)
		}
		select {
		case <-f.stopped:
		default:
			t.Errorf("%s: nobody told", what)
		}
	}
}

// tcpStreams is a StreamLayer without TLS.
type tcpStreams struct{ net.Listener }

func (s tcpStreams) Dial(addr string, timeout time.Duration) (net.Conn, error) {
	return net.DialTimeout("tcp", addr, timeout)
}

func TestStreamLayer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t.TempDir())
	cfg.Address, cfg.Streams = l.Addr().String(), tcpStreams{l}
	mustInit(t, cfg)
	r := mustRun(t, cfg)
	if st := r.Stats(); st.LeaderAddress != cfg.Address {
		t.Errorf("stats: %+v", st)
	}
	r.mustStop(t)
	if _, err := l.Accept(); err == nil {
		t.Error("the listener is still open")
	}
}

func TestSilentWhenHealthy(t *testing.T) {
	var buf bytes.Buffer
	cfg := testConfig(t.TempDir())
	cfg.Logger = slog.New(slog.NewTextHandler(&buf, &slog.HandlerOptions{Level: slog.LevelInfo}))
	cfg.SnapshotThreshold, cfg.SnapshotInterval, cfg.TrailingLogs = 5, 10*time.Millisecond, 2
	mustInit(t, cfg)
	for range 2 {
		r := mustRun(t, cfg)
		sub := testSubnet(t, r.Store)
		for i := range 20 {
			mustPropose(t, r.Store, ipam.Envelope{Commands: []ipam.Command{bind(sub, 2+i, string(rune('a'+i)))}})
		}
		waitFor(t, func() bool { return r.Stats().SnapshotIndex > 10 })
		r.mustStop(t)
	}
	if buf.Len() > 0 {
		t.Errorf("a healthy store logged:\n%s", &buf)
	}
}

func TestHCLog(t *testing.T) {
	t.Parallel()
	var buf bytes.Buffer
	h := newHCLog(slog.New(slog.NewTextHandler(&buf, &slog.HandlerOptions{Level: slog.LevelDebug})))
	h.Named("x").With("k", 1).Info("starting", "servers", hclog.Fmt("%d of %d", 1, 2), "odd")
	h.Warn("failed to contact quorum of nodes, stepping down", "error", io.EOF)
	h.Warn("failed to contact", "error", io.EOF)                                   // the store says it once, in its own words
	h.Error("failed to get log", "index", uint64(7), "error", raft.ErrLogNotFound) // the snapshot is sent instead
	h.Error("failed to get log", "index", uint64(8), "error", io.EOF)
	h.Error("broken")
	h.StandardLogger(nil).Print("from std")
	for _, want := range []string{
		`level=DEBUG msg=starting component=raft k=1 servers="1 of 2"`,
		`level=WARN msg="failed to contact quorum of nodes, stepping down" component=raft error=EOF`,
		`level=DEBUG msg="failed to contact" component=raft error=EOF`,
		`level=DEBUG msg="failed to get log" component=raft index=7 error="log not found"`,
		`level=ERROR msg="failed to get log" component=raft index=8 error=EOF`,
		`level=ERROR msg=broken`, `level=DEBUG msg="from std"`,
	} {
		if !strings.Contains(buf.String(), want) {
			t.Errorf("no %q in\n%s", want, &buf)
		}
	}
}

// reportPercentiles reports p50 and p99 in microseconds.
func reportPercentiles(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	at := func(p int) float64 { return float64(took[min(len(took)-1, len(took)*p/100)].Microseconds()) }
	b.ReportMetric(at(50), "p50-µs")
	b.ReportMetric(at(99), "p99-µs")
}
