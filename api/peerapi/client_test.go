package peerapi

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"

	"stellar.io/stellar/api"
	"stellar.io/stellar/ipam"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var equate = cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.EquateEmpty()}

var server = Caller{Node: beta, Name: "beta", Role: api.RoleServer, Raft: true}

// fixture is a client of a served fake, over HTTP/2 as between nodes.
func fixture(t *testing.T, c Caller, log *slog.Logger) (*fakeBackend, *Client) {
	t.Helper()
	b := &fakeBackend{}
	h := Handler(Config{Backend: b, Caller: func(context.Context) (Caller, bool) { return c, true }, Logger: log})
	return b, serve(t, h)
}

func serve(t *testing.T, h http.Handler) *Client {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return NewClient(srv.Client(), srv.URL, "node alpha")
}

// request is one of raftstore: a linearizable read by node.
func request(node ipam.NodeID) []byte {
	id, err := hex.DecodeString(string(node))
	if err != nil {
		panic(err)
	}
	return append([]byte{1, 2}, id...)
}

func TestEveryCall(t *testing.T) {
	t.Parallel()
	b, c := fixture(t, server, nil)
	ctx := t.Context()
	if got, err := c.Forward(ctx, request(beta)); err != nil || !bytes.HasPrefix(got, []byte("answer to \x01\x02")) {
		t.Errorf("Forward = %q, %v", got, err)
	}
	if _, err := c.Forward(ctx, request(alpha)); api.CodeOf(err) != api.CodeDenied || Sent(err) {
		t.Errorf("Forward for another node: %v", err)
	}
	if _, err := c.Forward(ctx, []byte("nonsense")); api.CodeOf(err) != api.CodeInvalid || Sent(err) {
		t.Errorf("Forward of nonsense: %v", err)
	}
	if err := c.Announce(ctx, Announcement{Address: "192.0.2.2:9640", Version: "v1"}); err != nil {
		t.Error(err)
	}
	s, err := c.WhoAmI(ctx)
	if diff := cmp.Diff(fullStanding, s, equate); err != nil || diff != "" {
		t.Errorf("WhoAmI: %v\n%s", err, diff)
	}
	claim := Claim{
		Name: "beta", MachineID: "m", Address: "192.0.2.2:9640", Version: "1", Mode: ipam.ModeRouted,
		Subnet: netip.MustParsePrefix("172.16.4.0/22"), Epoch: ipam.Epoch{Generation: 1, Counter: 2}, Empty: true,
	}
	if a, err := c.Claim(ctx, claim); err != nil || a != fullClaimAnswer || b.claim != claim {
		t.Errorf("Claim = %+v, %v, asked with %+v", a, err, b.claim)
	}
	claim.Mode = 0
	if _, err := c.Claim(ctx, claim); api.CodeOf(err) != api.CodeInvalid {
		t.Errorf("Claim without a mode: %v", err)
	}
	if chain, err := c.RenewCertificate(ctx, []byte("csr")); err != nil || len(chain) != 2 || string(chain[0]) != "csr" {
		t.Errorf("RenewCertificate = %q, %v", chain, err)
	}
	if _, err := c.RenewCertificate(ctx, nil); api.CodeOf(err) != api.CodeInvalid {
		t.Errorf("RenewCertificate without a request: %v", err)
	}
	if _, err := c.RenewCertificate(ctx, make([]byte, maxCSR+1)); api.CodeOf(err) != api.CodeInvalid {
		t.Errorf("RenewCertificate with an endless request: %v", err)
	}
	if key, err := c.CAKey(ctx); err != nil || string(key) != "key" {
		t.Errorf("CAKey = %q, %v", key, err)
	}
	want := []string{"Forward", "Announce beta 192.0.2.2:9640 v1", "WhoAmI beta", "Claim beta", "RenewCertificate beta", "CAKey beta"}
	if diff := cmp.Diff(want, b.calls); diff != "" || b.caller != server {
		t.Errorf("calls by %+v:\n%s", b.caller, diff)
	}
	b.err = api.Errorf(api.CodeNoLeader, "no leader").WithHint("wait")
	_, err = c.WhoAmI(ctx)
	if e, ok := errors.AsType[*api.Error](err); !ok || e.Code != api.CodeNoLeader || e.Hint != "wait" || e.Error() != "no leader" {
		t.Errorf("a refusal arrived as %#v", err)
	}
}

func TestFetchState(t *testing.T) {
	t.Parallel()
	b, c := fixture(t, server, nil)
	for _, size := range []int{0, 1, 64 << 10, 64<<10 + 1, 1 << 20} {
		b.state = bytes.Repeat([]byte{7}, size)
		r, err := c.FetchState(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, b.state) {
			t.Errorf("%d bytes came as %d, %v", size, len(got), err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	// What breaks off in the middle never looks whole.
	b.stop = api.Errorf(api.CodeNoLeader, "stopping")
	r, err := c.FetchState(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(r); api.CodeOf(err) != api.CodeNoLeader {
		t.Errorf("a state that broke off: %v", err)
	}
	r.Close()
	if r, err = c.FetchState(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 10)); err != nil {
		t.Error(err)
	}
	r.Close() // in the middle
}

func TestJoin(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	b := &fakeBackend{}
	c := serve(t, JoinHandler(b, slog.New(slog.NewTextHandler(&log, nil))))
	want := JoinRequest{
		TokenID: "0000000000000001", Secret: [16]byte([]byte("0123456789abcdef")), CSR: []byte("csr"), Node: beta, Name: "beta", MachineID: "m",
		Address: "192.0.2.2:9640", Version: "v1", Mode: ipam.ModeRouted, HostRanges: []netip.Prefix{netip.MustParsePrefix("172.17.0.0/16")},
		Replace: "gamma", Time: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC),
	}
	got, err := c.Join(t.Context(), want)
	if diff := cmp.Diff(fullAnswer, got, equate); err != nil || diff != "" {
		t.Errorf("Join: %v\n%s", err, diff)
	}
	if diff := cmp.Diff(want, b.join, equate); diff != "" {
		t.Errorf("the request has changed on the wire:\n%s", diff)
	}
	if b.caller != (Caller{}) {
		t.Errorf("a joiner is known as %+v", b.caller)
	}
	for name, spoil := range map[string]func(*JoinRequest){
		"no id": func(r *JoinRequest) { r.Node = "" }, "no mode": func(r *JoinRequest) { r.Mode = 0 },
		"no csr": func(r *JoinRequest) { r.CSR = nil }, "endless csr": func(r *JoinRequest) { r.CSR = make([]byte, maxCSR+1) },
	} {
		r := want
		spoil(&r)
		if _, err := c.Join(t.Context(), r); api.CodeOf(err) != api.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	b.err = ipam.ErrTokenExpired
	if _, err := c.Join(t.Context(), want); api.CodeOf(err) != api.CodeDenied || !strings.Contains(err.Error(), "expired") {
		t.Errorf("an expired token: %v", err)
	}
	// Nothing else is there for those without a certificate.
	for _, call := range []func() error{
		func() error { _, err := c.WhoAmI(t.Context()); return err },
		func() error { _, err := c.CAKey(t.Context()); return err },
		func() error { _, err := c.Forward(t.Context(), request(beta)); return err },
	} {
		if err := call(); err == nil {
			t.Error("served without a certificate")
		}
	}
	if s := log.String(); strings.Contains(s, "0123456789abcdef") || strings.Contains(s, hex.EncodeToString([]byte("0123456789abcdef"))) {
		t.Errorf("the log has the secret: %s", s)
	}
}

// What an error means for a request that changes something: only Sent ones may
// have been executed.
func TestErrorsOnTheWay(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { // takes the request, and dies
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 4096))
			conn.Close()
		}
	}()
	hc := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	c := NewClient(hc, "http://"+l.Addr().String(), "node alpha")
	if _, err := c.Forward(t.Context(), request(beta)); api.CodeOf(err) != api.CodeUnknownOutcome || !Sent(err) {
		t.Errorf("a connection that broke: %v", err)
	}
	if _, err := c.WhoAmI(t.Context()); api.CodeOf(err) != api.CodeUnreachable {
		t.Errorf("a question over a connection that broke: %v", err)
	}
	l.Close()
	<-done
	_, err = c.Forward(t.Context(), request(beta))
	if api.CodeOf(err) != api.CodeUnreachable || Sent(err) || !strings.HasPrefix(err.Error(), "node alpha cannot be reached: ") {
		t.Errorf("nobody there: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Forward(ctx, request(beta)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	if _, err := c.Forward(ctx, request(beta)); api.CodeOf(err) != api.CodeTimeout || !Sent(err) {
		t.Errorf("after the deadline: %v", err)
	}
	refuse := &http.Client{Transport: refuser{}}
	_, err = NewClient(refuse, "https://x", "node alpha").Join(t.Context(), JoinRequest{})
	if e, ok := errors.AsType[*api.Error](err); !ok || e.Code != api.CodeDenied || e.Hint != "another token" {
		t.Errorf("the transport's own refusal arrived as %v", err)
	}
}

type refuser struct{}

func (refuser) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, api.Errorf(api.CodeDenied, "another CA").WithHint("another token")
}

func TestNewerMembershipIsUnknown(t *testing.T) {
	t.Parallel()
	m := standingToPB(Standing{Membership: "crowned"})
	if got := standingFromPB(m).Membership; got != Unknown {
		t.Errorf("membership = %q", got)
	}
}
