package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"stellar.io/stellar/ipam"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	clusterA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	clusterB = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	node1    = ipam.NodeID("11111111111111111111111111111111")
	node2    = ipam.NodeID("22222222222222222222222222222222")
)

var today = time.Date(2026, 11, 5, 12, 0, 0, 0, time.UTC)

func identity() Identity {
	return Identity{Cluster: clusterA, Node: node1, Name: "alpha", Role: RoleServer, Raft: true}
}

func newCA(t testing.TB, cluster string) *CA {
	t.Helper()
	ca, err := NewCA(cluster, today)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func sign(t testing.TB, ca *CA, id Identity, now time.Time, life time.Duration) *x509.Certificate {
	t.Helper()
	_, csr, err := NewKeyAndCSR(id)
	if err != nil {
		t.Fatal(err)
	}
	der, err := ca.Sign(csr, id, now, life)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestSignedCertificate(t *testing.T) {
	t.Parallel()
	ca := newCA(t, clusterA)
	for _, id := range []Identity{
		identity(),
		{Cluster: clusterA, Node: node2, Name: "b-2.example_x", Role: RoleNode},
	} {
		cert := sign(t, ca, id, today, 0)
		got, err := IdentityOf(cert)
		if err != nil || got != id {
			t.Errorf("identity %+v, %v; want %+v", got, err, id)
		}
		if want := today.Add(-Backdate); !cert.NotBefore.Equal(want) {
			t.Errorf("begins %s, want %s", cert.NotBefore, want)
		}
		if want := today.Add(LeafLife); !cert.NotAfter.Equal(want) {
			t.Errorf("ends %s, want %s", cert.NotAfter, want)
		}
		if cert.IsCA || cert.KeyUsage != x509.KeyUsageDigitalSignature {
			t.Errorf("CA %t, key usage %d", cert.IsCA, cert.KeyUsage)
		}
	}
	if got := ca.cert.NotAfter.Sub(ca.cert.NotBefore); got != CALife+Backdate {
		t.Errorf("the CA lives %s", got)
	}
}

// A certificate does not outlive its CA, nor begin before it.
func TestSignWithinTheCA(t *testing.T) {
	t.Parallel()
	ca := newCA(t, clusterA)
	cert := sign(t, ca, identity(), today.Add(CALife-time.Hour), 24*time.Hour)
	if !cert.NotAfter.Equal(ca.cert.NotAfter) {
		t.Errorf("ends %s, the CA %s", cert.NotAfter, ca.cert.NotAfter)
	}
	_, csr, err := NewKeyAndCSR(identity())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ca.Sign(csr, identity(), today.Add(CALife), 0); err == nil {
		t.Error("signed by a CA that has expired")
	}
	if _, err := ca.Sign(csr, identity(), today, -time.Second); err == nil {
		t.Error("signed for a negative life")
	}
}

func TestSignRefuses(t *testing.T) {
	t.Parallel()
	ca := newCA(t, clusterA)
	request := func(id Identity) []byte {
		_, csr, err := NewKeyAndCSR(id)
		if err != nil {
			t.Fatal(err)
		}
		return csr
	}
	change := func(f func(*Identity)) Identity {
		id := identity()
		f(&id)
		return id
	}
	forged := request(identity())
	forged[len(forged)-5] ^= 1 // in the signature
	ecKey := func(c elliptic.Curve) any {
		k, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	with := func(key any) []byte {
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
			Subject: pkix.Name{CommonName: "alpha"}, URIs: identity().uris(),
		}, key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	for _, c := range []struct {
		name string
		csr  []byte
		id   Identity
		want error
	}{
		{"garbage", []byte("garbage"), identity(), ErrBadRequest},
		{"empty", nil, identity(), ErrBadRequest},
		{"no proof of possession", forged, identity(), ErrBadRequest},
		{"another node's request", request(change(func(id *Identity) { id.Node = node2 })), identity(), ErrBadRequest},
		{"another name's request", request(change(func(id *Identity) { id.Name = "beta" })), identity(), ErrBadRequest},
		{"another cluster's request", request(change(func(id *Identity) { id.Cluster = clusterB })), identity(), ErrBadRequest},
		{"RSA", with(rsaKey), identity(), ErrBadRequest},
		{"P-384", with(ecKey(elliptic.P384())), identity(), ErrBadRequest},
		{"another cluster's identity", request(identity()), change(func(id *Identity) { id.Cluster = clusterB }), ErrOtherCluster},
		{"no name", request(identity()), change(func(id *Identity) { id.Name = "" }), ErrNoIdentity},
		{"no role", request(identity()), change(func(id *Identity) { id.Role = 0 }), ErrNoIdentity},
	} {
		if _, err := ca.Sign(c.csr, c.id, today, 0); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	// What is granted is the CA's to say, not the request's.
	granted := change(func(id *Identity) { id.Role, id.Raft = RoleNode, false })
	der, err := ca.Sign(request(identity()), granted, today, 0)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := IdentityOf(cert); err != nil || got != granted {
		t.Errorf("%+v, %v; want %+v", got, err, granted)
	}
}

func TestIdentityOfRefuses(t *testing.T) {
	t.Parallel()
	base := "stellar://" + clusterA
	good := []string{base + "/node/" + string(node1), base + "/role/server", base + "/raft"}
	for _, c := range []struct {
		name, cn string
		uris     []string
	}{
		{"no URI", "a", nil},
		{"no node", "a", good[1:]},
		{"no role", "a", []string{good[0], good[2]}},
		{"no name", "", good},
		{"name of a terminal", "a\x1b[2J", good},
		{"name too long", strings.Repeat("a", 65), good},
		{"name begins with a dash", "-a", good},
		{"two nodes", "a", append([]string{base + "/node/" + string(node2)}, good...)},
		{"two roles", "a", append([]string{base + "/role/node"}, good...)},
		{"raft twice", "a", append([]string{base + "/raft"}, good...)},
		{"two clusters", "a", append([]string{"stellar://" + clusterB + "/raft"}, good[:2]...)},
		{"unknown role", "a", []string{good[0], base + "/role/admin"}},
		{"short node", "a", []string{base + "/node/11", good[1]}},
		{"upper case node", "a", []string{base + "/node/" + strings.Repeat("A", 32), good[1]}},
		{"node with a tail", "a", []string{good[0] + "/x", good[1]}},
		{"raft with a tail", "a", []string{good[0], good[1], base + "/raft/x"}},
		{"short cluster", "a", []string{"stellar://aa/node/" + string(node1), "stellar://aa/role/server"}},
		{"foreign scheme", "a", append([]string{"spiffe://x/y"}, good...)},
		{"query", "a", append([]string{base + "/raft?x"}, good[:2]...)},
		{"fragment", "a", append([]string{base + "/raft#x"}, good[:2]...)},
		{"user", "a", append([]string{"stellar://u@" + clusterA + "/raft"}, good[:2]...)},
		{"port", "a", append([]string{"stellar://" + clusterA + ":1/raft"}, good[:2]...)},
		{"escape", "a", []string{base + "/n%6fde/" + string(node1), good[1]}},
		{"opaque", "a", append([]string{"stellar:x"}, good...)},
	} {
		cert := &x509.Certificate{Subject: pkix.Name{CommonName: c.cn}}
		for _, s := range c.uris {
			u, err := url.Parse(s)
			if err != nil {
				t.Fatal(err)
			}
			cert.URIs = append(cert.URIs, u)
		}
		if id, err := IdentityOf(cert); !errors.Is(err, ErrNoIdentity) {
			t.Errorf("%s: %+v, %v", c.name, id, err)
		}
	}
	// A capability of a later version does not hinder this one.
	later, err := url.Parse(base + "/watch")
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{Subject: pkix.Name{CommonName: "alpha"}, URIs: append(identity().uris(), later)}
	if id, err := IdentityOf(cert); err != nil || id != identity() {
		t.Errorf("%+v, %v", id, err)
	}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	ca, twin, other := newCA(t, clusterA), newCA(t, clusterA), newCA(t, clusterB)
	foreign := identity()
	foreign.Cluster = clusterB
	good := sign(t, ca, identity(), today, time.Hour)
	for _, c := range []struct {
		name  string
		chain []*x509.Certificate
		now   time.Time
		use   x509.ExtKeyUsage
		want  error
	}{
		{"good", []*x509.Certificate{good}, today, x509.ExtKeyUsageClientAuth, nil},
		{"good server", []*x509.Certificate{good}, today, x509.ExtKeyUsageServerAuth, nil},
		{"wrong use", []*x509.Certificate{good}, today, x509.ExtKeyUsageCodeSigning, ErrUntrusted},
		{"clock slow by an hour", []*x509.Certificate{good}, today.Add(-Backdate), x509.ExtKeyUsageClientAuth, nil},
		{"clock slow by more", []*x509.Certificate{good}, today.Add(-Backdate - time.Second), x509.ExtKeyUsageClientAuth, ErrNotYetValid},
		{"last second", []*x509.Certificate{good}, today.Add(time.Hour), x509.ExtKeyUsageClientAuth, nil},
		{"expired", []*x509.Certificate{good}, today.Add(time.Hour + time.Second), x509.ExtKeyUsageClientAuth, ErrExpired},
		{"none", nil, today, x509.ExtKeyUsageClientAuth, ErrNoCertificate},
		{"other CA of the same cluster id", []*x509.Certificate{sign(t, twin, identity(), today, 0)}, today, x509.ExtKeyUsageClientAuth, ErrUntrusted},
		{"with its CA beside it", []*x509.Certificate{sign(t, twin, identity(), today, 0), twin.cert}, today, x509.ExtKeyUsageClientAuth, ErrUntrusted},
		{"other cluster", []*x509.Certificate{sign(t, other, foreign, today, 0)}, today, x509.ExtKeyUsageClientAuth, ErrOtherCluster},
		{"other CA and expired", []*x509.Certificate{sign(t, twin, identity(), today, time.Hour)}, today.Add(24 * time.Hour), x509.ExtKeyUsageClientAuth, ErrUntrusted},
		{"the CA itself", []*x509.Certificate{ca.cert}, today, x509.ExtKeyUsageClientAuth, ErrNoIdentity},
		{"no identity", []*x509.Certificate{bare(t, ca)}, today, x509.ExtKeyUsageClientAuth, ErrNoIdentity},
	} {
		id, err := verify(c.chain, []*x509.Certificate{ca.cert}, clusterA, c.use, c.now)
		if !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if (err == nil) != (id == identity()) {
			t.Errorf("%s: identity %+v", c.name, id)
		}
	}
	_, err := verify([]*x509.Certificate{sign(t, other, foreign, today, 0)}, []*x509.Certificate{ca.cert}, clusterA, x509.ExtKeyUsageClientAuth, today)
	if err == nil || !strings.Contains(err.Error(), clusterA) || !strings.Contains(err.Error(), clusterB) {
		t.Errorf("the two ids are not in %v", err)
	}
}

// bare is signed by the CA, but names nobody.
func bare(t *testing.T, ca *CA) *x509.Certificate {
	t.Helper()
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: today, NotAfter: today.Add(time.Hour),
		Subject: pkix.Name{CommonName: "alpha"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, key.Public(), ca.key.signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestTokenVerifyServer(t *testing.T) {
	t.Parallel()
	ca, twin := newCA(t, clusterA), newCA(t, clusterA)
	other := newCA(t, clusterB)
	token, err := NewToken(ca, RoleServer, today)
	if err != nil {
		t.Fatal(err)
	}
	// A token of cluster A that names the CA of B was put together by somebody.
	mixed, err := NewTokenFor(clusterA, other.SPKIHash(), RoleServer, today)
	if err != nil {
		t.Fatal(err)
	}
	foreign := identity()
	foreign.Cluster = clusterB
	leaf, forged := sign(t, ca, identity(), today, 0), sign(t, twin, identity(), today, 0)
	for _, c := range []struct {
		name  string
		token Token
		chain []*x509.Certificate
		now   time.Time
		want  error
	}{
		{"good", token, []*x509.Certificate{leaf, ca.cert}, today, nil},
		{"nothing", token, nil, today, ErrNoCertificate},
		{"no CA shown", token, []*x509.Certificate{leaf}, today, ErrWrongCA},
		{"other CA", token, []*x509.Certificate{forged, twin.cert}, today, ErrWrongCA},
		{"our CA beside a forged leaf", token, []*x509.Certificate{forged, ca.cert}, today, ErrUntrusted},
		{"our CA and the forger's beside a forged leaf", token, []*x509.Certificate{forged, ca.cert, twin.cert}, today, ErrUntrusted},
		{"our CA as the leaf", token, []*x509.Certificate{ca.cert, ca.cert}, today, ErrUntrusted},
		{"expired", token, []*x509.Certificate{leaf, ca.cert}, today.Add(2 * LeafLife), ErrExpired},
		{"clock slow by two hours", token, []*x509.Certificate{leaf, ca.cert}, today.Add(-2 * time.Hour), ErrNotYetValid},
		{"other cluster's", mixed, []*x509.Certificate{sign(t, other, foreign, today, 0), other.cert}, today, ErrWrongCA},
	} {
		_, err := c.token.VerifyServer(tls.ConnectionState{PeerCertificates: c.chain}, c.now)
		if c.name == "our CA as the leaf" {
			if err == nil {
				t.Error("the CA passed for a server")
			}
			continue
		}
		if !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func TestLoadCA(t *testing.T) {
	t.Parallel()
	ca, other := newCA(t, clusterA), newCA(t, clusterB)
	key, err := ca.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	otherKey, err := other.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	got, err := LoadCA(ca.CertPEM(), key)
	if err != nil {
		t.Fatal(err)
	}
	if got.SPKIHash() != ca.SPKIHash() || got.Cluster() != clusterA {
		t.Error("another CA came back")
	}
	if _, err := LoadCA(ca.CertPEM(), otherKey); !errors.Is(err, ErrMismatch) {
		t.Errorf("foreign key: %v", err)
	}
	leafKey, csr, err := NewKeyAndCSR(identity())
	if err != nil {
		t.Fatal(err)
	}
	der, err := ca.Sign(csr, identity(), today, 0)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	leafPEM, err := leafKey.MarshalPEM()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := LoadCA(EncodeCerts(leaf), leafPEM); !errors.Is(err, ErrMismatch) {
		t.Errorf("a node's pair: %v", err)
	}
	for _, bad := range []struct{ cert, key []byte }{{nil, key}, {ca.CertPEM(), nil}, {key, key}, {ca.CertPEM(), ca.CertPEM()}} {
		if _, err := LoadCA(bad.cert, bad.key); err == nil {
			t.Errorf("loaded %q", bad)
		}
	}
	if _, err := NewCA("short", today); err == nil {
		t.Error("a CA without a cluster")
	}
}

func TestParseRequestKeyHash(t *testing.T) {
	t.Parallel()
	key, csr, err := NewKeyAndCSR(identity())
	if err != nil {
		t.Fatal(err)
	}
	again, err := key.csr(identity())
	if err != nil {
		t.Fatal(err)
	}
	_, other, err := NewKeyAndCSR(identity())
	if err != nil {
		t.Fatal(err)
	}
	var got [3]Request
	for i, der := range [][]byte{csr, again, other} {
		if got[i], err = ParseRequest(der); err != nil {
			t.Fatal(err)
		}
	}
	if got[0].KeyHash != got[1].KeyHash || got[0].KeyHash == got[2].KeyHash {
		t.Error("key hashes do not tell keys apart")
	}
	if diff := cmp.Diff(identity(), got[0].Identity); diff != "" {
		t.Error(diff)
	}
}
