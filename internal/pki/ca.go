package pki

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net/url"
	"time"
)

const (
	// Backdate is how far before its making a certificate begins to be valid, so
	// that nodes with slow clocks accept it.
	Backdate = time.Hour
	// CALife is how long a CA is valid.
	CALife = 20 * 365 * 24 * time.Hour
	// LeafLife is how long a node's certificate is valid if nobody says otherwise.
	LeafLife = 30 * 24 * time.Hour
)

// CA signs the certificates of one cluster's members. It is safe for concurrent
// use and prints nothing of its key.
type CA struct {
	cert *x509.Certificate
	key  Key
}

// NewCA makes the CA of a new cluster.
func NewCA(cluster string, now time.Time) (*CA, error) {
	if !validCluster(cluster) {
		return nil, fmt.Errorf("cluster id %q is not 32 hexadecimal digits", cluster)
	}
	key, err := NewKey()
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "stellar CA " + cluster[:8]},
		URIs:                  []*url.URL{clusterURI(cluster, "")},
		NotBefore:             now.Add(-Backdate),
		NotAfter:              now.Add(CALife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true, // it signs leaves only
		KeyUsage:              x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key.signer)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &CA{cert, key}, nil
}

// LoadCA reads a CA. Of several certificates the first is the signing one.
func LoadCA(certPEM, keyPEM []byte) (*CA, error) {
	certs, err := ParseCerts(certPEM)
	if err != nil {
		return nil, fmt.Errorf("CA: %w", err)
	}
	key, err := ParseKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("CA: %w", err)
	}
	if !key.matches(certs[0]) {
		return nil, fmt.Errorf("CA: %w its key", ErrMismatch)
	}
	if _, err := clusterOf(certs[0]); err != nil {
		return nil, err
	}
	return &CA{certs[0], key}, nil
}

// Cluster returns the id of the cluster that the CA is for.
func (ca *CA) Cluster() string { return ca.cert.URIs[0].Host }

// CertPEM returns the certificate, which is public.
func (ca *CA) CertPEM() []byte { return EncodeCerts(ca.cert) }

// KeyPEM returns the private key. It goes to other servers, over a connection
// whose far end is known, and into files that only root may read.
func (ca *CA) KeyPEM() ([]byte, error) { return ca.key.MarshalPEM() }

// SPKIHash returns the SHA-256 of the public key, by which tokens name the CA.
func (ca *CA) SPKIHash() [32]byte { return spkiHash(ca.cert) }

// Sign makes the certificate that a request asks for, valid from now - Backdate
// to now + life (zero: LeafLife). id is what the caller grants, and stands in
// the certificate; the request must be for the same cluster, node and name. The
// error wraps ErrBadRequest when the request is to blame.
func (ca *CA) Sign(csrDER []byte, id Identity, now time.Time, life time.Duration) ([]byte, error) {
	if err := id.Validate(); err != nil {
		return nil, err
	}
	if id.Cluster != ca.Cluster() {
		return nil, fmt.Errorf("%w: %s, this is the CA of %s", ErrOtherCluster, id.Cluster, ca.Cluster())
	}
	req, err := ParseRequest(csrDER)
	if err != nil {
		return nil, err
	}
	if a := req.Identity; a.Cluster != id.Cluster || a.Node != id.Node || a.Name != id.Name {
		return nil, fmt.Errorf("%w: it is for %s of cluster %s, not for %s of cluster %s", ErrBadRequest, a, a.Cluster, id, id.Cluster)
	}
	if life == 0 {
		life = LeafLife
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: id.Name},
		URIs:                  id.uris(),
		NotBefore:             latest(now.Add(-Backdate), ca.cert.NotBefore),
		NotAfter:              earliest(now.Add(life), ca.cert.NotAfter),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if !template.NotAfter.After(now) {
		return nil, fmt.Errorf("sign: the CA is valid until %s, life %s", ca.cert.NotAfter.Format(time.RFC3339), life)
	}
	return x509.CreateCertificate(rand.Reader, template, ca.cert, req.csr.PublicKey, ca.key.signer)
}

// clusterOf returns whose CA a certificate is.
func clusterOf(ca *x509.Certificate) (string, error) {
	if !ca.IsCA || len(ca.URIs) != 1 || ca.URIs[0].Scheme != scheme || !validCluster(ca.URIs[0].Host) {
		return "", fmt.Errorf("%w: not the certificate of a cluster's CA", ErrMismatch)
	}
	return ca.URIs[0].Host, nil
}

func spkiHash(cert *x509.Certificate) [32]byte { return sha256.Sum256(cert.RawSubjectPublicKeyInfo) }

// newSerial returns 127 random bits: RFC 5280 wants a positive number of at most 20 bytes.
func newSerial() (*big.Int, error) {
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
