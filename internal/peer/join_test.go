package peer

import (
	"bytes"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"stellar.io/stellar/internal/pki"
)

func newToken(ca *pki.CA) pki.Token {
	return must(pki.NewToken(ca, pki.RoleServer, time.Now().Add(time.Hour)))
}

func TestJoin(t *testing.T) {
	t.Parallel()
	ca := newCA(clusterA)
	p := start(t, Config{TLS: newStore(t, ca, member(0)), Admit: func(Peer) error { return errors.New("nobody") }})
	serveAll(p)
	c := JoinClient(newToken(ca), p.Addr().String())
	defer c.CloseIdleConnections()
	// The URL's host means nothing: the token is for one address.
	got, err := get(c, "192.0.2.1:1")
	if err != nil || got != "hello a stranger" {
		t.Errorf("%q, %v", got, err)
	}
}

// Who joined does not get at the API or at Raft with the same connection or without a certificate.
func TestJoinReachesOnlyJoin(t *testing.T) {
	t.Parallel()
	ca := newCA(clusterA)
	p := start(t, Config{TLS: newStore(t, ca, member(0))})
	p.HandleAPI(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a stranger reached the API") }))
	p.HandleJoin(hello())
	go echo(p.Raft())
	c := JoinClient(newToken(ca), p.Addr().String())
	defer c.CloseIdleConnections()
	if got, err := get(c, "x:1"); err != nil || got != "hello a stranger" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestJoinBodyLimit(t *testing.T) {
	t.Parallel()
	ca := newCA(clusterA)
	p := start(t, Config{TLS: newStore(t, ca, member(0))})
	var read atomic.Int64
	p.HandleJoin(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var b bytes.Buffer
		n, err := b.ReadFrom(r.Body)
		if err == nil {
			t.Error("all of it was read")
		}
		read.Store(n)
	}))
	c := JoinClient(newToken(ca), p.Addr().String())
	defer c.CloseIdleConnections()
	resp, err := c.Post("https://x/", "", bytes.NewReader(make([]byte, 1<<20)))
	if err == nil {
		resp.Body.Close()
	}
	if read.Load() > maxJoinBody {
		t.Errorf("%d bytes were read", read.Load())
	}
}

// wiretap passes connections on and keeps what the clients send.
type wiretap struct {
	net.Listener
	mu  sync.Mutex
	all bytes.Buffer
}

func newWiretap(t *testing.T, to string) *wiretap {
	t.Helper()
	w := &wiretap{Listener: must(net.Listen("tcp", "127.0.0.1:0"))}
	t.Cleanup(func() { w.Close() })
	go func() {
		for {
			c, err := w.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("tcp", to)
			if err != nil {
				c.Close()
				continue
			}
			go func() {
				defer c.Close()
				b := make([]byte, 4096)
				for {
					n, err := up.Read(b)
					c.Write(b[:n])
					if err != nil {
						return
					}
				}
			}()
			go func() {
				defer up.Close()
				b := make([]byte, 4096)
				for {
					n, err := c.Read(b)
					w.mu.Lock()
					w.all.Write(b[:n])
					w.mu.Unlock()
					up.Write(b[:n])
					if err != nil {
						return
					}
				}
			}()
		}
	}()
	return w
}

// sent splits what the client sent into bytes in the clear and encrypted ones, by
// the headers of TLS records. TLS 1.3 encrypts the end of the handshake too.
func (w *wiretap) sent() (clear, encrypted int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for b := w.all.Bytes(); len(b) >= 5; {
		size := min(5+(int(b[3])<<8|int(b[4])), len(b))
		if b[0] == 23 {
			encrypted += size
		} else {
			clear += size
		}
		b = b[size:]
	}
	return clear, encrypted
}

// TestJoinManInTheMiddle: somebody in between has a CA of his own, with the right
// cluster id even. The joiner finds out and sends not one byte of data: what is
// on the wire is its ClientHello and an alert.
func TestJoinManInTheMiddle(t *testing.T) {
	t.Parallel()
	ca, evil := newCA(clusterA), newCA(clusterA)
	handled := atomic.Int64{}
	mitm := start(t, Config{TLS: newStore(t, evil, member(0))})
	mitm.HandleJoin(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { handled.Add(1) }))
	tap := newWiretap(t, mitm.Addr().String())
	c := JoinClient(newToken(ca), tap.Addr().String())
	defer c.CloseIdleConnections()
	resp, err := c.Post("https://join/", "text/plain", bytes.NewReader(bytes.Repeat([]byte("secret"), 1000)))
	if err == nil {
		resp.Body.Close()
	}
	if !errors.Is(err, pki.ErrWrongCA) {
		t.Fatalf("join: %v", err)
	}
	_, encrypted := tap.sent()
	// One record: header 5, alert 2, its type 1, tag 16.
	if encrypted > 24 {
		t.Errorf("the joiner sent %d encrypted bytes, more than an alert", encrypted)
	}
	if handled.Load() != 0 {
		t.Error("a request arrived")
	}
	// The measure is right: with the true CA a request is seen.
	good := start(t, Config{TLS: newStore(t, ca, member(0))})
	serveAll(good)
	tap = newWiretap(t, good.Addr().String())
	honest := JoinClient(newToken(ca), tap.Addr().String())
	defer honest.CloseIdleConnections()
	if _, err := get(honest, "join:1"); err != nil {
		t.Fatal(err)
	}
	if _, encrypted := tap.sent(); encrypted < 100 {
		t.Errorf("an honest join sent %d encrypted bytes", encrypted)
	}
}

// A server that is no peer port at all.
func TestJoinAtAStranger(t *testing.T) {
	t.Parallel()
	web := httptest.NewUnstartedServer(http.NotFoundHandler())
	web.Config.ErrorLog = log.New(io.Discard, "", 0)
	web.StartTLS()
	defer web.Close()
	if _, err := get(JoinClient(newToken(newCA(clusterA)), web.Listener.Addr().String()), "x:1"); err == nil {
		t.Error("joined at a web server")
	}
}

func TestJoinLimits(t *testing.T) {
	t.Parallel()
	ca := newCA(clusterA)
	p := start(t, Config{TLS: newStore(t, ca, member(0)), MaxJoinsPerIP: 3, JoinBurst: 6, JoinEvery: time.Hour, JoinLife: 3 * time.Second})
	serveAll(p)
	try := func() error {
		c, err := call(p, nil, Join, 0)
		if err == nil {
			t.Cleanup(func() { c.Close() }) // and not when it is collected as garbage
		}
		return err
	}
	for i := range 3 {
		if err := try(); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
	}
	if err := try(); !errors.Is(err, ErrTooMany) {
		t.Errorf("fourth at once: %v", err)
	}
	waitFor(t, "the end of their life", func() bool { return connections(p) == 0 })
	for i := range 2 {
		if err := try(); err != nil {
			t.Fatalf("connection %d later: %v", i, err)
		}
	}
	if err := try(); !errors.Is(err, ErrTooMany) {
		t.Errorf("beyond the rate: %v", err)
	}
	// Members are not touched by it.
	if c, err := call(p, signed(ca, member(1), time.Now(), 0), API, 0); err != nil {
		t.Errorf("member: %v", err)
	} else {
		c.Close()
	}
}

// connections counts what the port has in its registry.
func connections(p *Port) int {
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	return len(p.registry.conns)
}
