package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
)

const redacted = "[redacted]"

// Key is a private key, ECDSA on P-256. However it is printed, it prints nothing
// of itself; MarshalPEM alone gives it away.
type Key struct{ signer *ecdsa.PrivateKey }

// NewKey makes a key.
func NewKey() (Key, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	return Key{k}, err
}

// Public returns the public half.
func (k Key) Public() crypto.PublicKey { return k.signer.Public() }

// MarshalPEM returns the key itself, for a file that only root may read.
func (k Key) MarshalPEM() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k.signer)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// ParseKey reads what MarshalPEM wrote. Its errors do not quote the input.
func ParseKey(data []byte) (Key, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "PRIVATE KEY" {
		return Key{}, fmt.Errorf("private key: no PEM block of that type")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return Key{}, fmt.Errorf("private key: %w", err)
	}
	k, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || k.Curve != elliptic.P256() {
		return Key{}, fmt.Errorf("private key: not ECDSA on P-256")
	}
	return Key{k}, nil
}

// matches reports whether cert is about this key.
func (k Key) matches(cert *x509.Certificate) bool {
	return k.signer != nil && k.signer.PublicKey.Equal(cert.PublicKey)
}

func (k Key) Format(f fmt.State, _ rune)   { fmt.Fprint(f, redacted) }
func (k Key) LogValue() slog.Value         { return slog.StringValue(redacted) }
func (k Key) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// NewKeyAndCSR makes a key and the request for a certificate of it.
func NewKeyAndCSR(id Identity) (Key, []byte, error) {
	k, err := NewKey()
	if err != nil {
		return Key{}, nil, err
	}
	der, err := k.csr(id)
	return k, der, err
}

// csr returns a certificate request, signed as proof of possession of the key.
func (k Key) csr(id Identity) ([]byte, error) {
	if err := id.Validate(); err != nil {
		return nil, err
	}
	return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: id.Name},
		URIs:    id.uris(),
	}, k.signer)
}

// Request is a certificate request whose signature has been checked.
type Request struct {
	Identity Identity // what it asks for; not what it may have
	KeyHash  [32]byte // SHA-256 of its public key: tells a repeated request from another's
	csr      *x509.CertificateRequest
}

// ParseRequest reads a request and checks its proof of possession. The error
// wraps ErrBadRequest.
func ParseRequest(der []byte) (Request, error) {
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return Request{}, fmt.Errorf("%w: %w", ErrBadRequest, err)
	}
	switch k := csr.PublicKey.(type) {
	case ed25519.PublicKey:
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() {
			return Request{}, fmt.Errorf("%w: curve %s", ErrBadRequest, k.Params().Name)
		}
	default:
		return Request{}, fmt.Errorf("%w: key of kind %s", ErrBadRequest, csr.PublicKeyAlgorithm)
	}
	if err := csr.CheckSignature(); err != nil {
		return Request{}, fmt.Errorf("%w: proof of possession: %w", ErrBadRequest, err)
	}
	id, err := IdentityOf(&x509.Certificate{Subject: csr.Subject, URIs: csr.URIs})
	if err != nil {
		return Request{}, fmt.Errorf("%w: %w", ErrBadRequest, err)
	}
	return Request{Identity: id, KeyHash: sha256.Sum256(csr.RawSubjectPublicKeyInfo), csr: csr}, nil
}

// EncodeCerts returns certificates as PEM.
func EncodeCerts(certs ...*x509.Certificate) []byte {
	var b bytes.Buffer
	for _, c := range certs {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	return b.Bytes()
}

// ParseCerts reads one or more certificates from PEM, and nothing else.
func ParseCerts(data []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("a block of type %q among the certificates", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs, data = append(certs, c), rest
	}
	if len(certs) == 0 || len(bytes.TrimSpace(data)) > 0 {
		return nil, fmt.Errorf("not certificates in PEM")
	}
	return certs, nil
}
