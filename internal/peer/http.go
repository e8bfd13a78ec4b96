package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"stellar.io/stellar/internal/pki"
	"stellar.io/stellar/ipam"
)

const (
	// maxJoinBody is the most that a joining machine may send in one request.
	maxJoinBody  = 64 << 10
	idleTimeout  = 10 * time.Minute
	pingAfter    = 5 * time.Second // of silence; a dead peer is known pingPatience later
	pingPatience = 5 * time.Second
)

// HandleAPI sets who serves the API to members. Until then it is refused.
func (p *Port) HandleAPI(h http.Handler) { p.api.Store(&h) }

// HandleJoin sets who serves machines that join: anybody who can reach the port,
// without a certificate, so the handler must ask for a token. Until then it is
// refused. A request has at most 64 KiB.
func (p *Port) HandleJoin(h http.Handler) { p.join.Store(&h) }

type callerKey struct{}

// Caller returns who sent the request that ctx belongs to, by its certificate.
// false: the request did not come from a member over the node-to-node port.
func Caller(ctx context.Context) (pki.Identity, bool) {
	c, ok := ctx.Value(callerKey{}).(*conn)
	if !ok || c.peer.Protocol != API {
		return pki.Identity{}, false
	}
	return c.peer.Identity, true
}

// httpServer returns a server that takes connections which are past TLS. So it
// speaks HTTP/2 "unencrypted": net/http knows nothing of the ALPN names here.
func (p *Port) httpServer(h http.HandlerFunc) *http.Server {
	return &http.Server{
		Handler:           h,
		Protocols:         onlyHTTP2(),
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 1024, SendPingTimeout: 3 * pingAfter, PingTimeout: pingPatience},
		ReadHeaderTimeout: p.cfg.HandshakeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(p.cfg.Logger.Handler(), slog.LevelWarn), // a handler's panic, for one
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, callerKey{}, c)
		},
	}
}

func onlyHTTP2() *http.Protocols {
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	return &p
}

func (p *Port) serveHTTP(s *http.Server, q *queue) {
	if err := s.Serve(q); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
		p.cfg.Logger.Error("HTTP server of the node-to-node port ended", "error", err)
	}
}

func (p *Port) serveAPI(w http.ResponseWriter, r *http.Request) {
	if c, ok := r.Context().Value(callerKey{}).(*conn); ok && c.old() {
		w.Header().Set("Connection", "close") // the HTTP/2 way: no new requests, those that run may end
	}
	(*p.api.Load()).ServeHTTP(w, r)
}

func (p *Port) serveJoin(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxJoinBody)
	(*p.join.Load()).ServeHTTP(w, r)
}

// shutdown lets running requests end for a second.
func shutdown(servers ...*http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for _, s := range servers {
		wg.Go(func() {
			if s.Shutdown(ctx) != nil {
				s.Close()
			}
		})
	}
	wg.Wait()
}

// HTTPClient returns a client for the API of other nodes; the host of a request's
// URL is the address to call, its scheme https or http: both mean the same, TLS.
// Only the node with the id may answer; empty: any server. Connections are kept
// and shared by all callers for the same id. A refusal comes as a RefusedError
// in the error of the request.
func (p *Port) HTTPClient(expect ipam.NodeID) *http.Client {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.clients[expect]; c != nil {
		return c
	}
	c := httpClient(func(ctx context.Context, _, address string) (net.Conn, error) {
		return p.dial(ctx, address, API, expect)
	})
	if p.cfg.OnRequest != nil {
		c.Transport = told{c.Transport, expect, p.cfg.OnRequest}
	}
	p.clients[expect] = c
	return c
}

func httpClient(dial func(ctx context.Context, network, address string) (net.Conn, error)) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Protocols:          onlyHTTP2(),
			HTTP2:              &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingPatience},
			DialContext:        dial,
			DialTLSContext:     dial,
			IdleConnTimeout:    idleTimeout / 2,
			DisableCompression: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// JoinClient returns a client for a machine that has nothing but a token. It
// calls the address whatever a URL says, and sends nothing before the server has
// proven that it belongs to the cluster whose CA the token names: otherwise
// requests fail with pki.ErrWrongCA. Close its idle connections after use.
func JoinClient(token pki.Token, address string) *http.Client {
	return httpClient(func(ctx context.Context, _, _ string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, DefaultConfig().HandshakeTimeout)
		defer cancel()
		peer := Peer{Protocol: Join}
		cfg := clientTLS(Join, func(cs tls.ConnectionState) (err error) {
			peer.Identity, err = token.VerifyServer(cs, time.Now())
			return err
		})
		t, _, err := connect(ctx, address, cfg, greeting{}, &peer)
		if err != nil {
			return nil, fmt.Errorf("join at %s: %w", address, err)
		}
		return plain{t}, nil
	})
}

// plain hides from net/http that a connection is TLS, as conn does.
type plain struct{ net.Conn }

// told tells of each request.
type told struct {
	http.RoundTripper
	to   ipam.NodeID
	tell func(to ipam.NodeID, path string, took time.Duration, status int)
}

// RoundTrip implements http.RoundTripper.
func (t told) RoundTrip(r *http.Request) (*http.Response, error) {
	begin := time.Now()
	answer, err := t.RoundTripper.RoundTrip(r)
	status := 0
	if err == nil {
		status = answer.StatusCode
	}
	t.tell(t.to, r.URL.Path, time.Since(begin), status)
	return answer, err
}

// CloseIdleConnections is what http.Client.CloseIdleConnections looks for.
func (t told) CloseIdleConnections() {
	if c, ok := t.RoundTripper.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}
