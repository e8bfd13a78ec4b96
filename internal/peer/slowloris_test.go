package peer

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"
)

// stall are the ways to hold a handshake up.
var stall = []func(c net.Conn){
	func(net.Conn) {}, // not a byte
	func(c net.Conn) { c.Write([]byte{22, 3, 1, 2}) },                                  // a part of a record's header
	func(c net.Conn) { c.Write(append([]byte{22, 3, 1, 2, 0}, make([]byte, 100)...)) }, // a part of a ClientHello
	func(c net.Conn) { // a ClientHello, and no answer to the server's part
		t := tls.Client(writeOnly{c}, clientTLS(API, func(tls.ConnectionState) error { return nil }))
		t.Handshake()
	},
	func(c net.Conn) { // TLS is complete, and no greeting comes
		t := tls.Client(c, clientTLS(API, func(tls.ConnectionState) error { return nil }))
		t.Handshake()
	},
}

// writeOnly lets a TLS client write its first flight and then fail.
type writeOnly struct{ net.Conn }

func (w writeOnly) Read([]byte) (int, error) { return 0, os.ErrClosed }

func fds(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// TestSlowloris: 200 connections that stall do not hinder a good one, neither
// from their own address nor from another, and everything they took comes back.
// Not parallel: it counts descriptors and goroutines.
func TestSlowloris(t *testing.T) {
	const attackers = 200
	for _, spread := range []bool{false, true} {
		t.Run(fmt.Sprintf("spread=%t", spread), func(t *testing.T) {
			ca := newCA(clusterA)
			p := start(t, Config{TLS: newStore(t, ca, member(0)), HandshakeTimeout: 3 * time.Second})
			serveAll(p)
			cert := signed(ca, member(1), time.Now(), 0)
			good := func() time.Duration {
				begin := time.Now()
				c, err := call(p, cert, API, 0)
				if err != nil {
					t.Fatalf("the good one: %v", err)
				}
				c.Close()
				return time.Since(begin)
			}
			good()
			waitFor(t, "a quiet start", func() bool { return connections(p) == 0 })
			fdsBefore, goroutinesBefore := fds(t), runtime.NumGoroutine()

			var wg sync.WaitGroup
			var mu sync.Mutex
			var conns []net.Conn
			for i := range attackers {
				wg.Go(func() {
					d := net.Dialer{}
					if spread {
						d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i%50))}
					}
					c, err := d.Dial("tcp", p.Addr().String())
					if err != nil {
						t.Error(err)
						return
					}
					stall[i%len(stall)](c)
					mu.Lock()
					conns = append(conns, c)
					mu.Unlock()
				})
			}
			wg.Wait()
			if waiting := pendings(p); !spread && waiting > 64 || waiting < 20 {
				t.Errorf("%d handshakes wait", waiting)
			}
			var worst time.Duration
			for range 10 {
				worst = max(worst, good())
			}
			t.Logf("good handshakes among %d stalled ones: worst of 10 %s", attackers, worst)
			if worst > 2*time.Second {
				t.Errorf("a good handshake took %s", worst)
			}
			waitFor(t, "the deadline", func() bool { return pendings(p) == 0 })
			good()
			for _, c := range conns {
				c.Close()
			}
			waitFor(t, "descriptors and goroutines", func() bool {
				return fds(t) <= fdsBefore && runtime.NumGoroutine() <= goroutinesBefore
			})
		})
	}
}

func pendings(p *Port) int {
	p.pending.mu.Lock()
	defer p.pending.mu.Unlock()
	return len(p.pending.list)
}

// TestNoLogStorm: a thousand refusals leave a handful of lines.
func TestNoLogStorm(t *testing.T) {
	t.Parallel()
	var log logs
	ca := newCA(clusterA)
	p := start(t, Config{TLS: newStore(t, ca, member(0)), Logger: log.logger()})
	serveAll(p)
	foreign := signed(newCA(clusterA), member(1), time.Now(), 0)
	for range 200 {
		if _, err := call(p, foreign, Raft, 0); err == nil {
			t.Fatal("accepted")
		}
	}
	if n := bytes.Count([]byte(log.String()), []byte("level=WARN")); n != 1 {
		t.Errorf("%d lines for 200 refusals", n)
	}
}
