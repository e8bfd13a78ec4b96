package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Options of a Store. Zero values: the wall clock, no logs.
type Options struct {
	Now    func() time.Time
	Logger *slog.Logger
}

// Store is a node's directory of certificates and what TLS needs of it. A new
// certificate takes effect with the next handshake, as server and as client;
// connections that are open stay so. All methods are safe for concurrent use, and
// those that handshakes call do not wait for the disk.
//
// A node asks for a certificate by Request and puts the answer in by Install.
// The key that Request makes is on disk before the request exists, so a node
// that dies in between repeats the request with the same key, and the server
// can tell the repetition from somebody else's.
type Store struct {
	dir     dir
	now     func() time.Time
	log     *slog.Logger
	current atomic.Pointer[material]
	changed chan struct{} // of capacity 1: Install tells RunRenewal

	mu sync.Mutex // one writer of the directory at a time; held over I/O
}

// material is what one set of files holds. It is not changed after it was made.
type material struct {
	id    Identity
	leaf  *x509.Certificate
	roots []*x509.Certificate // the first is the one that signs
	tls   tls.Certificate     // the leaf, then the first root, by which joiners know the cluster
}

// Open reads the directory, which it makes (0700) if there is none. A directory
// without certificates is not an error: the node has not joined yet. An Install
// that a crash interrupted is completed.
func Open(path string, o Options) (*Store, error) {
	s := &Store{dir: dir{path}, now: o.Now, log: o.Logger, changed: make(chan struct{}, 1)}
	if s.now == nil {
		s.now = time.Now
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	return s, s.Reload()
}

// Reload reads the directory again.
func (s *Store) Reload() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reload()
}

func (s *Store) reload() error {
	tightened, err := s.dir.tighten()
	if err != nil {
		return err
	}
	for _, name := range tightened {
		s.log.Warn("file was readable by others, made it private", "path", s.dir.file(name))
	}
	m, err := s.dir.load()
	if err != nil {
		return fmt.Errorf("certificates in %s: %w", s.dir.path, err)
	}
	s.current.Store(m)
	select {
	case s.changed <- struct{}{}:
	default:
	}
	return nil
}

// Identity returns who this node is; false: it has no certificate yet.
func (s *Store) Identity() (Identity, bool) {
	if m := s.current.Load(); m != nil {
		return m.id, true
	}
	return Identity{}, false
}

// Expires returns when the certificate ends; false: there is none.
func (s *Store) Expires() (time.Time, bool) {
	if m := s.current.Load(); m != nil {
		return m.leaf.NotAfter, true
	}
	return time.Time{}, false
}

// Check says whether this node's certificate is of any use now: nil, ErrNoCertificate,
// ErrExpired or ErrNotYetValid, as the others would say it.
func (s *Store) Check() error {
	m := s.current.Load()
	if m == nil {
		return ErrNoCertificate
	}
	return inTime(m.leaf, s.now())
}

// Roots returns the cluster's CA certificates, the signing one first.
func (s *Store) Roots() []*x509.Certificate {
	if m := s.current.Load(); m != nil {
		return slices.Clone(m.roots)
	}
	return nil
}

// CAHash returns what tokens name the CA by. The error wraps ErrNoCertificate.
func (s *Store) CAHash() ([32]byte, error) {
	m := s.current.Load()
	if m == nil {
		return [32]byte{}, ErrNoCertificate
	}
	return spkiHash(m.roots[0]), nil
}

// Request returns a certificate request for id. It uses the key of an earlier
// request that has had no answer yet, or else makes one.
func (s *Store) Request(id Identity) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.fits(id); err != nil {
		return nil, err
	}
	key, err := s.dir.pendingKey()
	if err != nil {
		return nil, err
	}
	return key.csr(id)
}

// Repeat returns the request once more that this node's present certificate answers,
// where there is one; else it is Request. A node that joins and dies between the
// certificate and what comes after it is known again by its key.
func (s *Store) Repeat(id Identity) ([]byte, error) {
	if s.current.Load() == nil {
		return s.Request(id)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.fits(id); err != nil {
		return nil, err
	}
	key, err := s.dir.key(fileKey)
	if err != nil {
		return nil, err
	}
	return key.csr(id)
}

// Install puts in the certificate that answers Request or Repeat, and the CA certificates
// if there are any (nil: as before). It is refused with ErrMismatch when it does
// not fit the requested key or belongs to another node than this one, and as
// Verify refuses when the CA did not sign it. When it returns nil the
// certificate is on disk and in use.
func (s *Store) Install(certDER []byte, roots []*x509.Certificate) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	leaf, err := x509.ParseCertificate(certDER)
	if err != nil {
		return fmt.Errorf("install: %w", err)
	}
	id, err := IdentityOf(leaf)
	if err != nil {
		return fmt.Errorf("install: %w", err)
	}
	if err := s.fits(id); err != nil {
		return fmt.Errorf("install: %w", err)
	}
	trusted := roots
	if trusted == nil {
		trusted = s.Roots()
	}
	// Valid from the CA's point of view: this clock may be wrong, and then every
	// handshake says so; a certificate that was thrown away would say nothing.
	if _, err := verify([]*x509.Certificate{leaf}, trusted, id.Cluster, x509.ExtKeyUsageClientAuth, leaf.NotBefore); err != nil {
		return fmt.Errorf("install: %w", err)
	}
	if len(roots) > 0 {
		if err := s.dir.write(fileRoots, EncodeCerts(roots...)); err != nil {
			return err
		}
	}
	if err := s.dir.install(leaf); err != nil {
		return err
	}
	return s.reload()
}

// fits refuses an identity of another cluster or node than the present one.
func (s *Store) fits(id Identity) error {
	if have, ok := s.Identity(); ok && (have.Cluster != id.Cluster || have.Node != id.Node) {
		return fmt.Errorf("%w: it is for %s of cluster %s, this is %s of cluster %s", ErrMismatch, id, id.Cluster, have, have.Cluster)
	}
	return nil
}

// SaveCA keeps the CA's key, on a server. The CA must be the cluster's; where
// there is no CA certificate yet, as on the first node, it becomes that.
func (s *Store) SaveCA(ca *CA) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	roots, err := s.dir.roots()
	switch {
	case err != nil:
		return err
	case roots == nil:
		if err := s.dir.write(fileRoots, ca.CertPEM()); err != nil {
			return err
		}
	case !roots[0].Equal(ca.cert):
		return fmt.Errorf("save CA: %w the cluster's", ErrMismatch)
	}
	data, err := ca.KeyPEM()
	if err != nil {
		return err
	}
	return s.dir.write(fileCAKey, data)
}

// CA returns the CA with its key; ErrNoCA where it is not kept.
func (s *Store) CA() (*CA, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dir.ca()
}

// Clear removes all files, when the node has left its cluster. From then on each
// handshake fails with ErrNoCertificate.
func (s *Store) Clear() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current.Store(nil)
	return s.dir.clear()
}

// GetCertificate is for tls.Config of a server.
func (s *Store) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	m := s.current.Load()
	if m == nil {
		return nil, errors.New("this node has no certificate: it has not joined a cluster")
	}
	return &m.tls, nil
}

// GetClientCertificate is for tls.Config of a client.
func (s *Store) GetClientCertificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return s.GetCertificate(nil)
}

// VerifyClient checks the certificate that a client showed, and VerifyServer a
// server's: the cluster's CA signed it for that use, it names an identity of
// this cluster, and now is in its time. The error wraps one of the sentinels.
func (s *Store) VerifyClient(cs tls.ConnectionState) (Identity, error) {
	return s.verify(cs, x509.ExtKeyUsageClientAuth)
}

// VerifyServer is like VerifyClient.
func (s *Store) VerifyServer(cs tls.ConnectionState) (Identity, error) {
	return s.verify(cs, x509.ExtKeyUsageServerAuth)
}

func (s *Store) verify(cs tls.ConnectionState, use x509.ExtKeyUsage) (Identity, error) {
	m := s.current.Load()
	if m == nil {
		return Identity{}, fmt.Errorf("this node has %w", ErrNoCertificate)
	}
	return verify(cs.PeerCertificates, m.roots, m.id.Cluster, use, s.now())
}
