package pki

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"
)

// verify checks that one of the roots signed the chain's first certificate for
// the use and that it is valid now, and returns whose it is. Who signed comes
// before all else, so that nothing unsigned is believed for a later reason.
func verify(chain, roots []*x509.Certificate, cluster string, use x509.ExtKeyUsage, now time.Time) (Identity, error) {
	if len(chain) == 0 {
		return Identity{}, ErrNoCertificate
	}
	leaf := chain[0]
	id, idErr := IdentityOf(leaf)
	pool := x509.NewCertPool()
	for _, r := range roots {
		pool.AddCert(r)
	}
	// Its own time is checked below, to tell too early from too late.
	at := earliest(latest(now, leaf.NotBefore), leaf.NotAfter)
	_, err := leaf.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{use}})
	if err != nil {
		if idErr == nil && id.Cluster != cluster {
			return Identity{}, fmt.Errorf("%w: %s, this is %s", ErrOtherCluster, id.Cluster, cluster)
		}
		return Identity{}, fmt.Errorf("%w: %w", ErrUntrusted, err)
	}
	if err := inTime(leaf, now); err != nil {
		return Identity{}, err
	}
	switch {
	case idErr != nil:
		return Identity{}, idErr
	case id.Cluster != cluster:
		return Identity{}, fmt.Errorf("%w: %s, this is %s", ErrOtherCluster, id.Cluster, cluster)
	}
	return id, nil
}

// inTime says whether a certificate is valid now. A wrong clock looks like a bad
// certificate, on either side: certificates are backdated, so that one that lags by
// less than Backdate does no harm, and one that is ahead has half a life at least.
func inTime(cert *x509.Certificate, now time.Time) error {
	switch {
	case now.Before(cert.NotBefore):
		return fmt.Errorf("%w: it begins %s, here it is %s; check both clocks", ErrNotYetValid, stamp(cert.NotBefore), stamp(now))
	case now.After(cert.NotAfter):
		return fmt.Errorf("%w: it ended %s, here it is %s; check both clocks", ErrExpired, stamp(cert.NotAfter), stamp(now))
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// VerifyServer checks, for a machine that has nothing but a token, that the
// server on the other end is a member of the token's cluster: among its
// certificates is the CA that the token names, and that CA signed the first one.
// It returns the server's identity. The error wraps ErrWrongCA when the CA is
// another one.
func (t Token) VerifyServer(cs tls.ConnectionState, now time.Time) (Identity, error) {
	if len(cs.PeerCertificates) == 0 {
		return Identity{}, ErrNoCertificate
	}
	for _, c := range cs.PeerCertificates[1:] {
		if spkiHash(c) != t.CAHash {
			continue
		}
		if cluster, err := clusterOf(c); err != nil || cluster != t.Cluster {
			return Identity{}, fmt.Errorf("%w: its key is that of another cluster's", ErrWrongCA)
		}
		return verify(cs.PeerCertificates, []*x509.Certificate{c}, t.Cluster, x509.ExtKeyUsageServerAuth, now)
	}
	return Identity{}, ErrWrongCA
}
