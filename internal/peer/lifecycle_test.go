package peer

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"stellar.io/stellar/internal/pki"
	"stellar.io/stellar/ipam"
)

func TestCaller(t *testing.T) {
	t.Parallel()
	ca := newCA(clusterA)
	server := start(t, Config{TLS: newStore(t, ca, member(0))})
	serveAll(server)
	client := start(t, Config{TLS: newStore(t, ca, member(1))})
	for _, expect := range []ipam.NodeID{"", member(0).Node} {
		got, err := get(client.HTTPClient(expect), server.Addr().String())
		if err != nil || got != "hello node-1" {
			t.Errorf("expecting %q: %q, %v", expect, got, err)
		}
	}
	if first, second := client.HTTPClient(""), client.HTTPClient(""); first != second {
		t.Error("connections are not shared")
	}
	if _, ok := Caller(context.Background()); ok {
		t.Error("a caller from nowhere")
	}
}

// TestListenEarly: who calls before there is a Port is served when there is one.
func TestListenEarly(t *testing.T) {
	t.Parallel()
	ca := newCA(clusterA)
	client := start(t, Config{TLS: newStore(t, ca, member(1))})
	l := must(Listen(t.Context(), loopback))
	type answer struct {
		text string
		err  error
	}
	answers := make(chan answer, 1)
	called := make(chan struct{})
	go func() {
		close(called)
		text, err := get(client.HTTPClient(member(0).Node), l.Addr().String())
		answers <- answer{text, err}
	}()
	<-called
	select {
	case a := <-answers:
		t.Fatalf("served by nobody: %+v", a)
	case <-time.After(50 * time.Millisecond):
	}
	p := must(New(Config{Listen: loopback, Listener: l, TLS: newStore(t, ca, member(0))}))
	serveAll(p)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	if a := <-answers; a.err != nil || a.text != "hello node-1" {
		t.Errorf("%+v", a)
	}
	if p.Addr().String() != l.Addr().String() {
		t.Errorf("the port says %s, its listener %s", p.Addr(), l.Addr())
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener is open: %v", err)
	}
}

// TestDropNode closes what runs in both directions, and nothing of other nodes.
func TestDropNode(t *testing.T) {
	t.Parallel()
	ca := newCA(clusterA)
	var removed atomic.Bool
	admit := func(p Peer) error {
		if removed.Load() && p.Node == member(1).Node {
			return ipam.ErrNodeRemoved
		}
		return nil
	}
	a := start(t, Config{TLS: newStore(t, ca, member(0)), Admit: admit})
	var log logs
	b := start(t, Config{TLS: newStore(t, ca, member(1)), Logger: log.logger()})
	c := start(t, Config{TLS: newStore(t, ca, member(2))})
	for _, p := range []*Port{a, b, c} {
		serveAll(p)
	}
	in := must(b.Raft().Dial(RaftAddress(member(0).Node, a.Addr().String()), 0))
	defer in.Close()
	if err := exchange(in); err != nil {
		t.Fatal(err)
	}
	go echo(b.Raft())
	layer := c.Raft()
	go echo(layer)
	other := must(layer.Dial(a.Addr().String(), 0))
	defer other.Close()
	aRaft := a.Raft()
	go echo(aRaft)
	out := must(aRaft.Dial(RaftAddress(member(1).Node, b.Addr().String()), 0))
	defer out.Close()
	if got, err := get(b.HTTPClient(""), a.Addr().String()); err != nil || got != "hello node-1" {
		t.Fatalf("%q, %v", got, err)
	}
	removed.Store(true)
	a.DropNode(member(1).Node)
	for name, conn := range map[string]net.Conn{"inbound": in, "outbound": out} {
		if err := exchange(conn); err == nil {
			t.Errorf("%s connection of the removed node lives", name)
		}
	}
	if err := exchange(other); err != nil {
		t.Errorf("connection of another node: %v", err)
	}
	if _, err := get(b.HTTPClient(""), a.Addr().String()); !errors.Is(err, ipam.ErrNodeRemoved) {
		t.Errorf("the removed node calls again: %v", err)
	}
	if strings.Contains(log.String(), "level=WARN") {
		t.Errorf("log of the removed node: %s", &log)
	}
}

// Whatever the order of a removal and of handshakes under way, no connection of
// the removed node is left.
func TestDropNodeRace(t *testing.T) {
	t.Parallel()
	ca := newCA(clusterA)
	for range 5 {
		var removed atomic.Bool
		p := start(t, Config{TLS: newStore(t, ca, member(0)), Admit: func(Peer) error {
			if removed.Load() {
				return ipam.ErrNodeRemoved
			}
			return nil
		}})
		serveAll(p)
		cert := signed(ca, member(1), time.Now(), 0)
		var wg sync.WaitGroup
		conns := make(chan net.Conn, 64)
		for range 8 {
			wg.Go(func() {
				for range 8 {
					if c, err := call(p, cert, Raft, 0); err == nil {
						conns <- c
					}
				}
			})
		}
		waitFor(t, "some connections", func() bool { return len(conns) >= 8 })
		removed.Store(true)
		p.DropNode(member(1).Node)
		wg.Wait()
		// The clients have closed nothing: what ends, the port has ended.
		waitFor(t, "no connections", func() bool { return connections(p) == 0 })
		close(conns)
		for c := range conns {
			c.Close()
		}
	}
}

// Too many connections of one node: the oldest go, the new one works.
func TestMaxPerNode(t *testing.T) {
	t.Parallel()
	ca := newCA(clusterA)
	p := start(t, Config{TLS: newStore(t, ca, member(0)), MaxPerNode: 4})
	serveAll(p)
	one, two := signed(ca, member(1), time.Now(), 0), signed(ca, member(2), time.Now(), 0)
	other := must(call(p, two, Raft, 0))
	defer other.Close()
	var conns []net.Conn
	for range 6 {
		c := must(call(p, one, Raft, 0))
		defer c.Close()
		conns = append(conns, c)
	}
	for i, c := range conns {
		if err := exchange(c); (err == nil) != (i >= 2) {
			t.Errorf("connection %d: %v", i, err)
		}
	}
	if err := exchange(other); err != nil {
		t.Errorf("other node: %v", err)
	}
}

// TestRecycling: old connections end, and no call notices.
func TestRecycling(t *testing.T) {
	t.Parallel()
	ca := newCA(clusterA)
	var handshakes atomic.Int64
	var log logs
	p := start(t, Config{TLS: newStore(t, ca, member(0)), Logger: log.logger(), MaxAge: 200 * time.Millisecond, Admit: func(Peer) error {
		handshakes.Add(1)
		return nil
	}})
	// The end by force comes an hour later for a day, and 8 ms later here.
	p.HandleAPI(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Context().Value(callerKey{}).(*conn).life.Stop()
		w.Write([]byte("ok"))
	}))
	client := start(t, Config{TLS: newStore(t, ca, member(1))}).HTTPClient("")
	begin := time.Now()
	for time.Since(begin) < 2*time.Second || handshakes.Load() < 4 && time.Since(begin) < 30*time.Second {
		if _, err := get(client, p.Addr().String()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
	if strings.Contains(log.String(), "level=WARN") {
		t.Errorf("log %s", &log)
	}
	if n, most := handshakes.Load(), int64(time.Since(begin)/(100*time.Millisecond)); n < 4 || n > most {
		t.Errorf("%d handshakes in %s at 200 ms each", n, time.Since(begin))
	}
}

// renewing keeps a store's certificate fresh from the CA until the test ends.
func renewing(t *testing.T, s *pki.Store, ca *pki.CA, id pki.Identity, life time.Duration, count *atomic.Int64) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.RunRenewal(ctx, func(_ context.Context, csr []byte) ([]byte, error) {
			count.Add(1)
			return ca.Sign(csr, id, time.Now(), life)
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
}

// TestRenewalUnderLoad: certificates of a few seconds on both sides, renewed
// several times under calls over fresh and over kept connections; none fails.
func TestRenewalUnderLoad(t *testing.T) {
	t.Parallel()
	const life, runs = 4 * time.Second, 14 * time.Second
	ca := newCA(clusterA)
	var ports [2]*Port
	var renewals [2]atomic.Int64
	for i := range ports {
		s := storeWith(t, ca, member(i), life)
		renewing(t, s, ca, member(i), life, &renewals[i])
		ports[i] = start(t, Config{TLS: s})
		serveAll(ports[i])
	}
	server, client := ports[0], ports[1]
	layer := client.Raft()
	address := RaftAddress(member(0).Node, server.Addr().String())
	kept := must(layer.Dial(address, 0))
	defer kept.Close()
	var calls atomic.Int64
	ctx, cancel := context.WithTimeout(context.Background(), runs)
	defer cancel()
	loop := func(what string, f func() error) func() {
		return func() {
			for ctx.Err() == nil {
				if err := f(); err != nil {
					t.Errorf("%s: %v", what, err)
					return
				}
				calls.Add(1)
				time.Sleep(2 * time.Millisecond)
			}
		}
	}
	var wg sync.WaitGroup
	wg.Go(loop("API, kept connection", func() error { _, err := get(client.HTTPClient(""), server.Addr().String()); return err }))
	wg.Go(loop("API, fresh connection", func() error {
		fresh := httpClient(func(ctx context.Context, _, address string) (net.Conn, error) {
			return client.dial(ctx, address, API, member(0).Node)
		})
		defer fresh.CloseIdleConnections()
		_, err := get(fresh, server.Addr().String())
		return err
	}))
	wg.Go(loop("raft, fresh connection", func() error {
		c, err := layer.Dial(address, 0)
		if err != nil {
			return err
		}
		defer c.Close()
		return exchange(c)
	}))
	wg.Go(loop("raft, kept connection", func() error { return exchange(kept) }))
	wg.Wait()
	for i := range renewals {
		if n := renewals[i].Load(); n < 4 {
			t.Errorf("node %d renewed %d times", i, n)
		}
	}
	t.Logf("%d calls, %d and %d renewals, no failure", calls.Load(), renewals[0].Load(), renewals[1].Load())
}

// Without a renewal the same certificates stop to work, on both sides.
func TestExpiry(t *testing.T) {
	t.Parallel()
	ca := newCA(clusterA)
	server := start(t, Config{TLS: newStore(t, ca, member(0))})
	serveAll(server)
	s := storeWith(t, ca, member(1), 2*time.Second)
	client := start(t, Config{TLS: s})
	serveAll(client)
	if c, err := client.Raft().Dial(server.Addr().String(), 0); err != nil {
		t.Fatal(err)
	} else {
		c.Close()
	}
	until, _ := s.Expires()
	time.Sleep(time.Until(until) + 1100*time.Millisecond)
	if _, err := client.Raft().Dial(server.Addr().String(), 0); !errors.Is(err, pki.ErrExpired) || !errors.Is(err, ErrRefused) {
		t.Errorf("as client: %v", err)
	}
	if _, err := server.Raft().Dial(client.Addr().String(), 0); !errors.Is(err, pki.ErrExpired) {
		t.Errorf("as server: %v", err)
	}
	// An expired node that joins again gets a new certificate into the same store.
	der := must(ca.Sign(must(s.Request(member(1))), member(1), time.Now(), 0))
	if err := s.Install(der, nil); err != nil {
		t.Fatal(err)
	}
	go echo(server.Raft())
	if c, err := client.Raft().Dial(server.Addr().String(), 0); err != nil {
		t.Errorf("with a new certificate: %v", err)
	} else {
		c.Close()
	}
}

// A node whose store is empty refuses and is refused, without a crash.
func TestWithoutCertificates(t *testing.T) {
	t.Parallel()
	empty := must(pki.Open(filepath.Join(t.TempDir(), "tls"), pki.Options{}))
	p := start(t, Config{TLS: empty, HandshakeTimeout: 2 * time.Second})
	serveAll(p)
	ca := newCA(clusterA)
	member := start(t, Config{TLS: newStore(t, ca, member(1)), HandshakeTimeout: 2 * time.Second})
	serveAll(member)
	if _, err := member.Raft().Dial(p.Addr().String(), 0); err == nil {
		t.Error("dialled a node without a certificate")
	}
	if _, err := p.Raft().Dial(member.Addr().String(), 0); !errors.Is(err, pki.ErrNoCertificate) {
		t.Errorf("dialled without a certificate: %v", err)
	}
}

func TestRunEnds(t *testing.T) {
	t.Parallel()
	ca := newCA(clusterA)
	p := must(New(Config{Listen: loopback, TLS: newStore(t, ca, member(0))}))
	layer := p.Raft()
	running := make(chan struct{})
	p.HandleAPI(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(running)
		<-r.Context().Done() // a stream that never ends by itself
	}))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- p.Run(ctx) }()
	client := start(t, Config{TLS: newStore(t, ca, member(1))})
	failed := make(chan error)
	go func() {
		_, err := get(client.HTTPClient(""), p.Addr().String())
		failed <- err
	}()
	<-running
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Run does not end")
	}
	if err := <-failed; err == nil {
		t.Error("the stream ended well")
	}
	if _, err := layer.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept: %v", err)
	}
	if _, err := layer.Dial(client.Addr().String(), 0); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Dial: %v", err)
	}
	if c, err := net.Dial("tcp", p.Addr().String()); err == nil {
		c.Close()
		t.Error("the port is still open")
	}
	p.Close() // twice is fine
}

// A port that is never run lets its address go.
func TestCloseWithoutRun(t *testing.T) {
	t.Parallel()
	s := newStore(t, newCA(clusterA), member(0))
	p := must(New(Config{Listen: loopback, TLS: s}))
	at := p.Advertise()
	if _, err := New(Config{Listen: at, TLS: s}); err == nil {
		t.Error("two ports at one address")
	}
	p.Close()
	again, err := New(Config{Listen: at, TLS: s})
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

// Raft is opened again on the same port; the first StreamLayer is over.
func TestRaftTwice(t *testing.T) {
	t.Parallel()
	ca := newCA(clusterA)
	p := start(t, Config{TLS: newStore(t, ca, member(0))})
	client := start(t, Config{TLS: newStore(t, ca, member(1))}).Raft()
	first := p.Raft()
	second := p.Raft()
	if _, err := first.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("first: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	go echo(second)
	c := must(client.Dial(p.Addr().String(), 0))
	defer c.Close()
	if err := exchange(c); err != nil {
		t.Error(err)
	}
	second.Close()
	if _, err := client.Dial(p.Addr().String(), 0); !errors.Is(err, ErrNotServed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestDialTimeout(t *testing.T) {
	t.Parallel()
	l := must(net.Listen("tcp", "127.0.0.1:0")) // connects, and says nothing
	defer l.Close()
	p := start(t, Config{TLS: newStore(t, newCA(clusterA), member(0))})
	begin := time.Now()
	_, err := p.Raft().Dial(l.Addr().String(), 200*time.Millisecond)
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) > 3*time.Second {
		t.Errorf("%v after %s", err, time.Since(begin))
	}
	if _, err := p.Raft().Dial("not an address", 0); err == nil {
		t.Error("dialled nonsense")
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	s := newStore(t, newCA(clusterA), member(0))
	for _, c := range []struct {
		cfg Config
		ok  bool
	}{
		{Config{Listen: loopback, TLS: s}, true},
		{Config{}, false},
		{Config{Listen: loopback}, false},
		{Config{TLS: s}, false},
		{Config{Listen: loopback, TLS: s, MaxAge: -1}, false},
		{Config{Listen: loopback, TLS: s, MaxJoins: -1}, false},
		{Config{Listen: netip.MustParseAddrPort("0.0.0.0:9640"), TLS: s}, false},
		{Config{Listen: netip.MustParseAddrPort("0.0.0.0:9640"), Advertise: netip.MustParseAddrPort("192.0.2.1:9640"), TLS: s}, true},
		{Config{Listen: loopback, Advertise: netip.MustParseAddrPort("0.0.0.0:9640"), TLS: s}, false},
		{Config{Listen: loopback, Advertise: netip.MustParseAddrPort("192.0.2.1:0"), TLS: s}, false},
	} {
		if err := c.cfg.Validate(); (err == nil) != c.ok {
			t.Errorf("%+v: %v", c.cfg.Listen, err)
		}
	}
}
