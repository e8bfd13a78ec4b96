package peer

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"stellar.io/stellar/internal/pki"
	"stellar.io/stellar/ipam"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	clusterA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	clusterB = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

var loopback = netip.MustParseAddrPort("127.0.0.1:0")

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// member returns the identity of the n-th node, a server that may speak Raft.
func member(n int) pki.Identity {
	digit := string("0123456789abcdef"[n])
	return pki.Identity{Cluster: clusterA, Node: ipam.NodeID(strings.Repeat(digit, 32)), Name: "node-" + digit, Role: pki.RoleServer, Raft: true}
}

func newCA(cluster string) *pki.CA { return must(pki.NewCA(cluster, time.Now())) }

// newStore returns the store of a node with a certificate of the CA.
func newStore(t testing.TB, ca *pki.CA, id pki.Identity) *pki.Store {
	t.Helper()
	return storeWith(t, ca, id, 0)
}

func storeWith(t testing.TB, ca *pki.CA, id pki.Identity, life time.Duration) *pki.Store {
	t.Helper()
	return signedStore(t, ca, id, life, must(pki.Open(filepath.Join(t.TempDir(), "tls"), pki.Options{})))
}

// storeAt is newStore for a node with another clock.
func storeAt(t testing.TB, ca *pki.CA, id pki.Identity, now func() time.Time) *pki.Store {
	t.Helper()
	return signedStore(t, ca, id, 0, must(pki.Open(filepath.Join(t.TempDir(), "tls"), pki.Options{Now: now})))
}

func signedStore(t testing.TB, ca *pki.CA, id pki.Identity, life time.Duration, s *pki.Store) *pki.Store {
	t.Helper()
	der := must(ca.Sign(must(s.Request(id)), id, time.Now(), life))
	if err := s.Install(der, must(pki.ParseCerts(ca.CertPEM()))); err != nil {
		t.Fatal(err)
	}
	return s
}

// signed returns a certificate with its key as TLS has them, as of a time.
func signed(ca *pki.CA, id pki.Identity, at time.Time, life time.Duration) *tls.Certificate {
	key, csr, err := pki.NewKeyAndCSR(id)
	if err != nil {
		panic(err)
	}
	return pair(ca, key, must(ca.Sign(csr, id, at, life)))
}

func pair(ca *pki.CA, key pki.Key, der []byte) *tls.Certificate {
	cert := must(tls.X509KeyPair(pki.EncodeCerts(must(x509.ParseCertificate(der))), must(key.MarshalPEM())))
	cert.Certificate = append(cert.Certificate, must(pki.ParseCerts(ca.CertPEM()))[0].Raw)
	return &cert
}

// nameless returns a certificate of the CA that carries no URI.
func nameless(ca *pki.CA) *tls.Certificate {
	caPair := must(tls.X509KeyPair(ca.CertPEM(), must(ca.KeyPEM())))
	key := must(pki.NewKey())
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "node-1"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	return pair(ca, key, must(x509.CreateCertificate(rand.Reader, template, caPair.Leaf, key.Public(), caPair.PrivateKey)))
}

// logs is a log that tests read.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *logs) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// start runs a port until the test ends. Zero fields of cfg are filled in.
func start(t testing.TB, cfg Config) *Port {
	t.Helper()
	if !cfg.Listen.IsValid() {
		cfg.Listen = loopback
	}
	p := must(New(cfg))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("port ended with %v", err)
		}
	})
	return p
}

// hello answers requests with the caller's name.
func hello() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, ok := Caller(r.Context())
		if !ok {
			id.Name = "a stranger"
		}
		w.Write([]byte("hello " + id.Name))
	})
}

// echo accepts Raft connections and returns what it reads, until the layer closes.
func echo(l *StreamLayer) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			b := make([]byte, 64)
			for {
				n, err := c.Read(b)
				if err != nil {
					return
				}
				c.Write(b[:n])
			}
		}()
	}
}

// serveAll makes the port serve every protocol.
func serveAll(p *Port) {
	p.HandleAPI(hello())
	p.HandleJoin(hello())
	go echo(p.Raft())
}

// get sends one request and returns the answer's text.
func get(c *http.Client, address string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req := must(http.NewRequestWithContext(ctx, "GET", "https://"+address+"/x", nil))
	resp, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	_, err = b.ReadFrom(resp.Body)
	return b.String(), err
}

// waitFor waits for a condition that comes true within a moment.
func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func exchange(c net.Conn) error {
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Write([]byte("ping")); err != nil {
		return err
	}
	_, err := c.Read(make([]byte, 4))
	return err
}
