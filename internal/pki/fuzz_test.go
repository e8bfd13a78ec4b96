package pki

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net/url"
	"strings"
	"testing"
)

// FuzzIdentityOf: whatever stands in a certificate, an identity comes out only if
// it is valid, and it stands there as we would have written it.
func FuzzIdentityOf(f *testing.F) {
	base := "stellar://" + clusterA
	f.Add("alpha", base+"/node/"+string(node1), base+"/role/server", base+"/raft")
	f.Add("alpha", base+"/node/"+string(node1), base+"/role/node", "")
	f.Add("", "stellar:", "stellar://", "://")
	f.Add("a", base+"/n%6fde/"+string(node1), base+"/role/server?", base+"/raft/")
	f.Fuzz(func(t *testing.T, name, a, b, c string) {
		cert := &x509.Certificate{Subject: pkix.Name{CommonName: name}}
		for _, s := range []string{a, b, c} {
			if u, err := url.Parse(s); err == nil && s != "" {
				cert.URIs = append(cert.URIs, u)
			}
		}
		id, err := IdentityOf(cert)
		if err != nil {
			if !errors.Is(err, ErrNoIdentity) {
				t.Fatalf("%v", err)
			}
			return
		}
		if err := id.Validate(); err != nil {
			t.Fatal(err)
		}
		all := strings.Join([]string{a, b, c}, "\n")
		for _, u := range id.uris() {
			if !strings.Contains(strings.ToLower(all), u.String()) {
				t.Fatalf("%s came from %q", u, all)
			}
		}
	})
}

// FuzzIdentityOfDER feeds whole certificates.
func FuzzIdentityOfDER(f *testing.F) {
	ca := newCA(f, clusterA)
	f.Add(sign(f, ca, identity(), today, 0).Raw)
	f.Add(ca.cert.Raw)
	f.Fuzz(func(t *testing.T, der []byte) {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		if id, err := IdentityOf(cert); err == nil && id.Validate() != nil {
			t.Fatalf("%+v", id)
		}
	})
}

// FuzzParseRequest: bytes of a stranger.
func FuzzParseRequest(f *testing.F) {
	_, csr, err := NewKeyAndCSR(identity())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(csr)
	f.Fuzz(func(t *testing.T, der []byte) {
		r, err := ParseRequest(der)
		if err != nil {
			if !errors.Is(err, ErrBadRequest) {
				t.Fatalf("%v", err)
			}
			return
		}
		if r.Identity.Validate() != nil {
			t.Fatalf("%+v", r)
		}
	})
}
