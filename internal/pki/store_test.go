package pki

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// newStore returns a store of the first node, which holds the CA too.
func newStore(t testing.TB, ca *CA) (*Store, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tls")
	s, err := Open(dir, Options{Now: func() time.Time { return today }})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SaveCA(ca); err != nil {
		t.Fatal(err)
	}
	install(t, s, ca, identity(), today, 0)
	return s, dir
}

func install(t testing.TB, s *Store, ca *CA, id Identity, now time.Time, life time.Duration) {
	t.Helper()
	csr, err := s.Request(id)
	if err != nil {
		t.Fatal(err)
	}
	der, err := ca.Sign(csr, id, now, life)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Install(der, []*x509.Certificate{ca.cert}); err != nil {
		t.Fatal(err)
	}
}

func TestStoreFiles(t *testing.T) {
	t.Parallel()
	_, dir := newStore(t, newCA(t, clusterA))
	modes := map[string]fs.FileMode{}
	err := filepath.Walk(dir, func(path string, info fs.FileInfo, err error) error {
		modes[strings.TrimPrefix(path, dir)] = info.Mode().Perm()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]fs.FileMode{"": 0o700, "/ca.crt": 0o600, "/ca.key": 0o600, "/node.crt": 0o600, "/node.key": 0o600}
	if diff := cmp.Diff(want, modes); diff != "" {
		t.Error(diff)
	}
}

func TestStoreTightensModes(t *testing.T) {
	t.Parallel()
	_, dir := newStore(t, newCA(t, clusterA))
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(filepath.Join(dir, "node.key"), 0o644)); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	if _, err := Open(dir, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]fs.FileMode{dir: 0o700, filepath.Join(dir, "node.key"): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "node.key") {
		t.Errorf("log %q", &log)
	}
	if err := os.Remove(filepath.Join(dir, "node.key")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/hostname", filepath.Join(dir, "node.key")); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{}); err == nil || !strings.Contains(err.Error(), "regular") {
		t.Errorf("a link in place of the key: %v", err)
	}
}

func TestStoreLifecycle(t *testing.T) {
	t.Parallel()
	ca := newCA(t, clusterA)
	s, err := Open(filepath.Join(t.TempDir(), "tls"), Options{Now: func() time.Time { return today }})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Identity(); ok {
		t.Error("an identity without a certificate")
	}
	if _, err := s.GetCertificate(nil); err == nil {
		t.Error("a certificate from nothing")
	}
	if _, err := s.VerifyClient(tls.ConnectionState{}); !errors.Is(err, ErrNoCertificate) {
		t.Errorf("verify: %v", err)
	}
	if _, err := s.CA(); !errors.Is(err, ErrNoCA) {
		t.Errorf("CA: %v", err)
	}
	if _, err := s.CAHash(); !errors.Is(err, ErrNoCertificate) {
		t.Errorf("CA hash: %v", err)
	}
	install(t, s, ca, identity(), today, 0)
	if id, ok := s.Identity(); !ok || id != identity() {
		t.Errorf("identity %+v", id)
	}
	if until, ok := s.Expires(); !ok || !until.Equal(today.Add(LeafLife)) {
		t.Errorf("expires %s", until)
	}
	if hash, err := s.CAHash(); err != nil || hash != ca.SPKIHash() {
		t.Errorf("CA hash: %v", err)
	}
	if err := s.SaveCA(newCA(t, clusterA)); !errors.Is(err, ErrMismatch) {
		t.Errorf("another CA: %v", err)
	}
	if err := s.SaveCA(ca); err != nil {
		t.Fatal(err)
	}
	if got, err := s.CA(); err != nil || got.SPKIHash() != ca.SPKIHash() {
		t.Errorf("CA: %v", err)
	}
	chain, err := s.GetClientCertificate(nil)
	if err != nil || len(chain.Certificate) != 2 || !bytes.Equal(chain.Certificate[1], ca.cert.Raw) {
		t.Errorf("chain of %d, %v", len(chain.Certificate), err)
	}
	again, err := Open(s.dir.path, Options{Now: s.now})
	if err != nil {
		t.Fatal(err)
	}
	if id, ok := again.Identity(); !ok || id != identity() {
		t.Errorf("identity after a restart %+v", id)
	}
	if err := s.Clear(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(s.dir.path); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
	if _, err := s.GetCertificate(nil); err == nil {
		t.Error("a certificate after Clear")
	}
}

func TestInstallRefuses(t *testing.T) {
	t.Parallel()
	ca, twin := newCA(t, clusterA), newCA(t, clusterA)
	s, _ := newStore(t, ca)
	before, _ := s.GetCertificate(nil)
	csr, err := s.Request(identity())
	if err != nil {
		t.Fatal(err)
	}
	signed := func(ca *CA, csr []byte, id Identity) []byte {
		der, err := ca.Sign(csr, id, today, 0)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	stranger := identity()
	stranger.Node = node2
	_, strangers, err := NewKeyAndCSR(stranger)
	if err != nil {
		t.Fatal(err)
	}
	_, otherKey, err := NewKeyAndCSR(identity())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		der  []byte
		want error
	}{
		{"garbage", []byte("x"), nil},
		{"other CA", signed(twin, csr, identity()), ErrUntrusted},
		{"other key", signed(ca, otherKey, identity()), ErrMismatch},
		{"other node", signed(ca, strangers, stranger), ErrMismatch},
	} {
		if err := s.Install(c.der, nil); err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if _, err := s.Request(stranger); !errors.Is(err, ErrMismatch) {
		t.Errorf("request for another node: %v", err)
	}
	if after, _ := s.GetCertificate(nil); after != before {
		t.Error("a refused certificate is in use")
	}
	if err := s.Install(signed(ca, csr, identity()), nil); err != nil {
		t.Errorf("the right one: %v", err)
	}
}

// The key of a request outlives a crash, so that the request can be repeated.
func TestRequestKeepsItsKey(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "tls")
	var hashes [2][32]byte
	for i := range hashes {
		s, err := Open(dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		csr, err := s.Request(identity())
		if err != nil {
			t.Fatal(err)
		}
		r, err := ParseRequest(csr)
		if err != nil {
			t.Fatal(err)
		}
		hashes[i] = r.KeyHash
	}
	if hashes[0] != hashes[1] {
		t.Error("another key after a restart")
	}
	// One that a crash left torn was never used.
	if err := os.WriteFile(filepath.Join(dir, fileNext), []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Request(identity()); err != nil {
		t.Error(err)
	}
}

// TestInstallCrash stops an install after each of its steps.
// TestRepeat: a node that has its certificate, but died before it could make anything
// of it, asks again as the one that it was, and the second answer fits.
func TestRepeat(t *testing.T) {
	t.Parallel()
	ca, id := newCA(t, clusterA), identity()
	s, err := Open(filepath.Join(t.TempDir(), "tls"), Options{Now: func() time.Time { return today }})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(request func(Identity) ([]byte, error)) (csr []byte, hash [32]byte) {
		t.Helper()
		csr, err := request(id)
		if err != nil {
			t.Fatal(err)
		}
		r, err := ParseRequest(csr)
		if err != nil {
			t.Fatal(err)
		}
		return csr, r.KeyHash
	}
	_, first := ask(s.Repeat)
	install(t, s, ca, id, today, time.Hour)
	csr, again := ask(s.Repeat)
	if first != again {
		t.Error("it is not known again")
	}
	der, err := ca.Sign(csr, id, today, 2*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Install(der, nil); err != nil {
		t.Errorf("the second answer: %v", err)
	}
	if end, _ := s.Expires(); end.Before(today.Add(time.Hour + time.Minute)) {
		t.Errorf("in use is the certificate until %s", end)
	}
	if _, renewed := ask(s.Request); renewed == first {
		t.Error("a renewal has the old key")
	}
}

func TestInstallCrash(t *testing.T) {
	t.Parallel()
	ca := newCA(t, clusterA)
	for steps := range 3 {
		s, dir := newStore(t, ca)
		old, _ := s.Expires()
		csr, err := s.Request(identity()) // step 0: node.key.next is there
		if err != nil {
			t.Fatal(err)
		}
		der, err := ca.Sign(csr, identity(), today.Add(time.Hour), 0)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		want := old
		if steps > 0 {
			want = leaf.NotAfter
			if err := s.dir.write(fileCert, EncodeCerts(leaf)); err != nil {
				t.Fatal(err)
			}
		}
		if steps > 1 {
			if err := s.dir.promote(); err != nil {
				t.Fatal(err)
			}
		}
		s, err = Open(dir, Options{})
		if err != nil {
			t.Fatalf("after step %d: %v", steps, err)
		}
		if got, _ := s.Expires(); !got.Equal(want) {
			t.Errorf("after step %d: until %s, want %s", steps, got, want)
		}
		cert, err := s.GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		if !cert.Leaf.PublicKey.(*ecdsa.PublicKey).Equal(cert.PrivateKey.(crypto.Signer).Public()) {
			t.Errorf("after step %d: key and certificate do not match", steps)
		}
		if after, err := os.ReadDir(dir); err != nil || steps > 0 && len(after) != 4 {
			t.Errorf("after step %d: %v, %v", steps, after, err)
		}
	}
}

// The old key goes only when the new certificate is there.
func TestInstallFailsBetween(t *testing.T) {
	t.Parallel()
	ca := newCA(t, clusterA)
	s, dir := newStore(t, ca)
	csr, err := s.Request(identity())
	if err != nil {
		t.Fatal(err)
	}
	der, err := ca.Sign(csr, identity(), today, 0)
	if err != nil {
		t.Fatal(err)
	}
	cert, key := filepath.Join(dir, fileCert), filepath.Join(dir, fileKey)
	before, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Rename(cert, cert+".away"), os.Mkdir(cert, 0o700)); err != nil { // no file can be put there
		t.Fatal(err)
	}
	if err := s.Install(der, nil); err == nil {
		t.Error("installed")
	}
	if after, err := os.ReadFile(key); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the old certificate has lost its key: %v", err)
	}
	if err := errors.Join(os.Remove(cert), os.Rename(cert+".away", cert)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{}); err != nil {
		t.Error(err)
	}
	if err := s.Install(der, nil); err != nil {
		t.Errorf("the second attempt: %v", err)
	}
}

func TestLoadRefuses(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(dir string) error{
		"no roots":   func(dir string) error { return os.Remove(filepath.Join(dir, fileRoots)) },
		"no key":     func(dir string) error { return os.Remove(filepath.Join(dir, fileKey)) },
		"torn key":   func(dir string) error { return os.Truncate(filepath.Join(dir, fileKey), 30) },
		"torn cert":  func(dir string) error { return os.Truncate(filepath.Join(dir, fileCert), 30) },
		"torn roots": func(dir string) error { return os.Truncate(filepath.Join(dir, fileRoots), 30) },
		"CA as node": func(dir string) error { return os.Rename(filepath.Join(dir, fileRoots), filepath.Join(dir, fileCert)) },
		"other's roots": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, fileRoots), newCA(t, clusterA).CertPEM(), 0o600)
		},
	} {
		_, dir := newStore(t, newCA(t, clusterA))
		if err := damage(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir, Options{}); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
}

// TestRenewal runs a year of virtual time.
func TestRenewal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ca, err := NewCA(clusterA, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		s, err := Open(filepath.Join(t.TempDir(), "tls"), Options{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var renewals, failures int
		var down atomic.Bool
		late := false
		last := time.Now()
		done := make(chan error)
		go func() {
			done <- s.RunRenewal(ctx, func(_ context.Context, csr []byte) ([]byte, error) {
				if down.Load() {
					failures++
					return nil, errors.New("no leader")
				}
				if at := time.Since(last); !late && (at < LeafLife/2-time.Second || at > LeafLife*6/10+time.Second) {
					t.Errorf("renewed after %s", at)
				}
				last = time.Now()
				renewals++
				return ca.Sign(csr, identity(), time.Now(), 0)
			})
		}()
		time.Sleep(time.Hour) // it waits for the first certificate
		last = time.Now()
		install(t, s, ca, identity(), time.Now(), 0)
		time.Sleep(365 * 24 * time.Hour)
		synctest.Wait() // also what orders the counters for the race detector
		if renewals < 365/18 || renewals > 365/15 {
			t.Errorf("%d renewals in a year", renewals)
		}
		down.Store(true)
		time.Sleep(20 * 24 * time.Hour)
		synctest.Wait()
		if failures < 100 || failures > 20*24*6 {
			t.Errorf("%d failures in up to 20 days", failures)
		}
		renewals, late = 0, true
		down.Store(false)
		time.Sleep(16 * time.Minute)
		synctest.Wait()
		if renewals != 1 {
			t.Errorf("%d renewals after the failure", renewals)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	})
}

func TestRenewalComplains(t *testing.T) {
	t.Parallel()
	ca := newCA(t, clusterA)
	for _, c := range []struct {
		at   time.Duration
		want string
	}{
		{LeafLife / 2, "level=WARN"}, {LeafLife - 6*24*time.Hour, "about to expire"}, {LeafLife + time.Hour, "has expired"},
	} {
		var log bytes.Buffer
		s, _ := newStore(t, ca)
		s.now = func() time.Time { return today.Add(c.at) }
		s.log = slog.New(slog.NewTextHandler(&log, nil))
		s.complain(s.current.Load(), errors.New("no leader"))
		if !strings.Contains(log.String(), c.want) {
			t.Errorf("at %s: %s", c.at, &log)
		}
	}
}

// A clock that was a year ahead makes renewals fail; when it has been put right the
// node does not wait for a year.
func TestRenewalAfterAWrongClock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ca, err := NewCA(clusterA, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		var ahead atomic.Int64
		s, err := Open(filepath.Join(t.TempDir(), "tls"), Options{Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }})
		if err != nil {
			t.Fatal(err)
		}
		install(t, s, ca, identity(), time.Now(), 0)
		if err := s.Check(); err != nil {
			t.Error(err)
		}
		ahead.Store(int64(365 * 24 * time.Hour))
		if err := s.Check(); !errors.Is(err, ErrExpired) || !strings.Contains(err.Error(), "check both clocks") {
			t.Errorf("a year ahead: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var failures, renewals atomic.Int64
		done := make(chan error)
		go func() {
			done <- s.RunRenewal(ctx, func(_ context.Context, csr []byte) ([]byte, error) {
				if ahead.Load() > 0 {
					failures.Add(1)
					return nil, errors.New("nobody believes us")
				}
				renewals.Add(1)
				return ca.Sign(csr, identity(), time.Now(), 0)
			})
		}()
		time.Sleep(time.Hour)
		if n := failures.Load(); n < 5 || n > 61 {
			t.Errorf("%d failures in an hour", n)
		}
		ahead.Store(0)
		time.Sleep(time.Hour)
		if renewals.Load() != 1 {
			t.Errorf("%d renewals", renewals.Load())
		}
		cancel()
		<-done
	})
}
