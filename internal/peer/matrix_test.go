package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"stellar.io/stellar/internal/pki"
	"stellar.io/stellar/ipam"
)

// wrong are the certificates that nobody may accept, with the reason.
type wrong struct {
	name string
	cert *tls.Certificate // nil: none
	want error
	only Protocol // "": Raft and API
}

func wrongs(ca *pki.CA) []wrong {
	twin, other := newCA(clusterA), newCA(clusterB)
	foreign := member(1)
	foreign.Cluster = clusterB
	mute := member(1)
	mute.Raft = false
	now := time.Now()
	return []wrong{
		{"other cluster's CA", signed(other, foreign, now, 0), pki.ErrOtherCluster, ""},
		{"other CA with our cluster's id", signed(twin, member(1), now, 0), pki.ErrUntrusted, ""},
		{"expired", signed(ca, member(1), now.Add(-2*time.Hour), time.Hour), pki.ErrExpired, ""},
		{"not valid yet, beyond the backdating", signed(ca, member(1), now.Add(pki.Backdate+10*time.Minute), 0), pki.ErrNotYetValid, ""},
		{"no URI", nameless(ca), pki.ErrNoIdentity, ""},
		{"no Raft capability", signed(ca, mute, now, 0), ErrNoRaft, Raft},
		{"none", nil, pki.ErrNoCertificate, ""},
	}
}

// call does a client's side with any certificate and believes any server.
func call(p *Port, cert *tls.Certificate, proto Protocol, generation uint64) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	cfg := clientTLS(proto, func(tls.ConnectionState) error { return nil })
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if cert == nil {
			return &tls.Certificate{}, nil
		}
		return cert, nil
	}
	c, _, err := connect(ctx, p.Addr().String(), cfg, greeting{generation: generation}, &Peer{})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// TestMatrixServer: the server refuses each wrong client on each protocol, says
// why to the client, and says it in its log.
func TestMatrixServer(t *testing.T) {
	t.Parallel()
	ca := newCA(clusterA)
	follower := member(1)
	follower.Role = pki.RoleNode
	cases := append(wrongs(ca),
		wrong{"never votes, and so never calls", signed(ca, follower, time.Now(), 0), ErrNoRaft, Raft},
		wrong{"removed", signed(ca, member(2), time.Now(), 0), ipam.ErrNodeRemoved, ""},
		wrong{"lower generation", signed(ca, member(3), time.Now(), 0), ErrGeneration, ""},
		wrong{"refused for another reason", signed(ca, member(4), time.Now(), 0), ErrRefused, ""},
	)
	for _, proto := range []Protocol{Raft, API} {
		for _, w := range cases {
			if w.only != "" && w.only != proto {
				continue
			}
			t.Run(string(proto)+"/"+w.name, func(t *testing.T) {
				t.Parallel()
				var log logs
				p := start(t, Config{
					TLS: newStore(t, ca, member(0)), Logger: log.logger(), Generation: func() uint64 { return 5 },
					Admit: func(p Peer) error {
						switch {
						case p.Node == member(2).Node:
							return fmt.Errorf("%s: %w", p.Identity, ipam.ErrNodeRemoved)
						case p.Generation < 5:
							return fmt.Errorf("%w: it is of generation %d, the cluster of 5", ErrGeneration, p.Generation)
						case p.Node == member(4).Node:
							return errors.New("it is Sunday")
						}
						return nil
					},
				})
				serveAll(p)
				generation := uint64(5)
				if errors.Is(w.want, ErrGeneration) {
					generation = 4
				}
				c, err := call(p, w.cert, proto, generation)
				if err == nil {
					c.Close()
				}
				var refused *RefusedError
				if !errors.Is(err, w.want) || !errors.As(err, &refused) {
					t.Fatalf("client: %v, want %v", err, w.want)
				}
				reason := w.want.Error()
				if w.want == ErrRefused {
					reason = "it is Sunday"
				}
				if !strings.Contains(err.Error(), reason) {
					t.Errorf("client: no reason in %q", err)
				}
				waitFor(t, "reason in the log", func() bool { return strings.Contains(log.String(), reason) })
				if !strings.Contains(log.String(), "level=WARN msg=\"refused a connection\"") {
					t.Errorf("log %s", &log)
				}
			})
		}
	}
}

// What must be accepted, so that the matrix does not pass because nothing works.
func TestMatrixAccepted(t *testing.T) {
	t.Parallel()
	ca := newCA(clusterA)
	p := start(t, Config{TLS: newStore(t, ca, member(0))})
	serveAll(p)
	now := time.Now()
	mute := member(1)
	mute.Raft, mute.Role = false, pki.RoleNode
	for _, c := range []struct {
		name  string
		cert  *tls.Certificate
		proto Protocol
	}{
		{"member on Raft", signed(ca, member(1), now, 0), Raft},
		{"member on the API", signed(ca, member(1), now, 0), API},
		{"follower on the API", signed(ca, mute, now, 0), API},
		{"nobody on the join protocol", nil, Join},
		{"member on the join protocol", signed(ca, member(1), now, 0), Join},
		{"signer's clock ahead within the backdating", signed(ca, member(1), now.Add(pki.Backdate-10*time.Minute), 0), Raft},
	} {
		conn, err := call(p, c.cert, c.proto, 0)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		conn.Close()
	}
}

// impostor is a TLS server that speaks all protocols with one certificate, and
// records what clients let it read and how the handshake ended.
type impostor struct {
	net.Listener
	got  chan []byte
	ends chan error
}

func newImpostor(t *testing.T, cert *tls.Certificate) *impostor {
	t.Helper()
	i := &impostor{must(net.Listen("tcp", "127.0.0.1:0")), make(chan []byte, 16), make(chan error, 16)}
	t.Cleanup(func() { i.Close() })
	cfg := &tls.Config{Certificates: []tls.Certificate{*cert}, NextProtos: []string{string(Raft), string(API), string(Join)}, ClientAuth: tls.RequestClientCert}
	go func() {
		for {
			c, err := i.Accept()
			if err != nil {
				return
			}
			s := tls.Server(c, cfg)
			s.SetDeadline(time.Now().Add(10 * time.Second))
			err = s.Handshake()
			b, _ := io.ReadAll(s)
			s.Close()
			i.ends <- err
			i.got <- b
		}
	}()
	return i
}

// TestMatrixClient: each client refuses each wrong server, sends nothing, and
// lets the server know that it was its certificate.
func TestMatrixClient(t *testing.T) {
	t.Parallel()
	ca := newCA(clusterA)
	p := start(t, Config{TLS: newStore(t, ca, member(0))})
	token := must(pki.NewToken(ca, pki.RoleServer, time.Now().Add(time.Hour)))
	raft := p.Raft()
	clients := map[Protocol]func(address string) error{
		Raft: func(address string) error { _, err := raft.Dial(address, 10*time.Second); return err },
		API:  func(address string) error { _, err := get(p.HTTPClient(member(1).Node), address); return err },
		Join: func(address string) error { _, err := get(JoinClient(token, address), address); return err },
	}
	other := wrong{"other node than expected", signed(ca, member(2), time.Now(), 0), ErrWrongNode, ""}
	follower := member(1)
	follower.Role = pki.RoleNode
	for _, w := range append(wrongs(ca), other, wrong{"no server", signed(ca, follower, time.Now(), 0), ErrNotServer, "any"}) {
		if w.cert == nil {
			continue // TLS 1.3 has no server without a certificate
		}
		imp := newImpostor(t, w.cert)
		for proto, dial := range clients {
			want := w.want
			switch {
			case w.only == "any" && proto != API, w.only == Raft && proto != Raft, w.want == ErrWrongNode && proto == Join:
				continue
			case proto == Join && (w.want == pki.ErrOtherCluster || w.want == pki.ErrUntrusted):
				want = pki.ErrWrongCA
			}
			address := imp.Addr().String()
			if proto == Raft {
				address = RaftAddress(member(1).Node, address)
			}
			if w.only == "any" {
				dial = func(address string) error { _, err := get(p.HTTPClient(""), address); return err }
			}
			if err := dial(address); !errors.Is(err, want) {
				t.Errorf("%s/%s: %v, want %v", proto, w.name, err, want)
			}
			if end := <-imp.ends; end == nil || !strings.Contains(end.Error(), "bad certificate") {
				t.Errorf("%s/%s: the server's handshake ended with %v", proto, w.name, end)
			}
			if got := <-imp.got; len(got) > 0 {
				t.Errorf("%s/%s: the server got %q", proto, w.name, got)
			}
		}
	}
}

// The server whose certificate was refused says so in its log.
func TestServerLearnsThatItsCertificateIsRefused(t *testing.T) {
	t.Parallel()
	var log logs
	old := start(t, Config{TLS: newStore(t, newCA(clusterA), member(1)), Logger: log.logger()})
	serveAll(old)
	p := start(t, Config{TLS: newStore(t, newCA(clusterA), member(0))})
	if _, err := p.Raft().Dial(old.Addr().String(), 0); !errors.Is(err, pki.ErrUntrusted) {
		t.Errorf("client: %v", err)
	}
	waitFor(t, "line in the log", func() bool {
		return strings.Contains(log.String(), "did not accept this node's certificate")
	})
}

// The dialling side asks its own Admit too: a removed server is not spoken to.
func TestDialAsksAdmit(t *testing.T) {
	t.Parallel()
	ca := newCA(clusterA)
	removed := start(t, Config{TLS: newStore(t, ca, member(1)), Generation: func() uint64 { return 3 }})
	serveAll(removed)
	asked := make(chan Peer, 8)
	p := start(t, Config{TLS: newStore(t, ca, member(0)), Admit: func(p Peer) error {
		asked <- p
		return ipam.ErrNodeRemoved
	}})
	if _, err := p.Raft().Dial(removed.Addr().String(), 0); !errors.Is(err, ipam.ErrNodeRemoved) || errors.Is(err, ErrRefused) {
		t.Errorf("raft: %v", err)
	}
	if got, want := <-asked, (Peer{member(1), 3, Raft, false}); got != want {
		t.Errorf("asked about %+v", got)
	}
	if _, err := get(p.HTTPClient(""), removed.Addr().String()); !errors.Is(err, ipam.ErrNodeRemoved) {
		t.Errorf("api: %v", err)
	}
}

func TestNotServed(t *testing.T) {
	t.Parallel()
	ca := newCA(clusterA)
	p := start(t, Config{TLS: newStore(t, ca, member(0))})
	cert := signed(ca, member(1), time.Now(), 0)
	for _, proto := range []Protocol{Raft, API, Join} {
		if _, err := call(p, cert, proto, 0); !errors.Is(err, ErrNotServed) {
			t.Errorf("%s: %v", proto, err)
		}
	}
	serveAll(p)
	for _, proto := range []Protocol{Raft, API, Join} {
		c, err := call(p, cert, proto, 0)
		if err != nil {
			t.Errorf("%s: %v", proto, err)
			continue
		}
		c.Close()
	}
}

// Others than us on the port: no ALPN, another ALPN, TLS 1.2, no TLS at all.
func TestOtherClients(t *testing.T) {
	t.Parallel()
	p := start(t, Config{TLS: newStore(t, newCA(clusterA), member(0)), HandshakeTimeout: 2 * time.Second})
	serveAll(p)
	for name, cfg := range map[string]*tls.Config{
		"other ALPN": {NextProtos: []string{"h2"}},
		"TLS 1.2":    {MaxVersion: tls.VersionTLS12, NextProtos: []string{string(API)}},
		"no ALPN":    {},
	} {
		cfg.InsecureSkipVerify = true
		c, err := tls.Dial("tcp", p.Addr().String(), cfg)
		if err != nil {
			continue
		}
		c.Write(greeting{}.encode())
		c.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
		b, _ := io.ReadAll(c)
		if !strings.Contains(string(b), ErrProtocol.Error()) || strings.Contains(string(b), "HTTP") {
			t.Errorf("%s: got %q", name, b)
		}
		c.Close()
	}
	c := must(net.Dial("tcp", p.Addr().String()))
	defer c.Close()
	fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if b, _ := io.ReadAll(c); strings.Contains(string(b), "HTTP") {
		t.Errorf("plain text: got %q", b)
	}
}

// Clocks that differ: up to an hour either way nobody notices, for certificates are
// backdated. One that is further behind takes a fresh certificate for one to come,
// one that is ahead by more than a certificate's life for one that is over, and says
// in both directions that it may be the clock.
func TestClockOff(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		off  time.Duration
		want error
	}{
		{-40 * 24 * time.Hour, pki.ErrNotYetValid}, {-2 * time.Hour, pki.ErrNotYetValid}, {-61 * time.Minute, pki.ErrNotYetValid},
		{-59 * time.Minute, nil}, {59 * time.Minute, nil}, {61 * time.Minute, nil}, {14 * 24 * time.Hour, nil},
		{31 * 24 * time.Hour, pki.ErrExpired},
	} {
		t.Run(tt.off.String(), func(t *testing.T) {
			t.Parallel()
			ca := newCA(clusterA)
			right := start(t, Config{TLS: newStore(t, ca, member(0))})
			wrong := start(t, Config{TLS: storeAt(t, ca, member(1), func() time.Time { return time.Now().Add(tt.off) })})
			for _, p := range []*Port{right, wrong} {
				serveAll(p)
			}
			for name, dial := range map[string]func() (net.Conn, error){
				"calls":     func() (net.Conn, error) { return wrong.Raft().Dial(right.Addr().String(), 0) },
				"is called": func() (net.Conn, error) { return right.Raft().Dial(wrong.Addr().String(), 0) },
			} {
				c, err := dial()
				if err == nil {
					c.Close()
				}
				if !errors.Is(err, tt.want) || tt.want == nil && err != nil || err != nil && !strings.Contains(err.Error(), "check both clocks") {
					t.Errorf("%s: %v, want %v and a word on clocks", name, err, tt.want)
				}
			}
		})
	}
}
