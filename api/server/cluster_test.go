package server

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/apitest"
	"stellar.io/stellar/api/client"
	"stellar.io/stellar/api/peerapi"
	stellarv1 "stellar.io/stellar/api/stellar/v1"
)

func TestClusterCalls(t *testing.T) {
	b, c, _ := fixture(t)
	ctx := t.Context()
	spec := api.JoinSpec{Address: apitest.RemoteAddress, Token: apitest.GoodToken}
	for name, bad := range map[string]api.JoinSpec{
		"no address": {Token: spec.Token}, "no port": {Address: "h", Token: spec.Token}, "no token": {Address: spec.Address},
		"endless token": {Address: spec.Address, Token: api.Secret(strings.Repeat("S", 2000))},
		"endless name":  {Address: spec.Address, Token: spec.Token, Replace: strings.Repeat("n", 300)},
	} {
		_, err := c.JoinCluster(ctx, bad)
		if api.CodeOf(err) != api.CodeInvalid || len(err.Error()) > 300 || strings.Contains(err.Error(), "SSS") {
			t.Errorf("%s: %v", name, err)
		}
	}
	j, err := c.JoinCluster(ctx, spec)
	if err != nil || j.Subnet != netip.MustParsePrefix("172.16.8.0/22") || len(j.Warnings) != 1 {
		t.Fatalf("JoinCluster = %+v, %v", j, err)
	}
	tok, err := c.CreateToken(ctx, api.TokenSpec{Role: api.RoleNode, TTL: time.Hour})
	if err != nil || tok.Role != api.RoleNode || !strings.HasPrefix(tok.Secret.Reveal(), "STELLAR1-") {
		t.Fatalf("CreateToken = %+v, %v", tok, err)
	}
	for _, bad := range []api.TokenSpec{{Role: "king", TTL: time.Hour}, {Role: api.RoleNode}, {Role: api.RoleNode, TTL: time.Hour * 10000}} {
		if _, err := c.CreateToken(ctx, bad); api.CodeOf(err) != api.CodeInvalid {
			t.Errorf("CreateToken(%+v): %v", bad, err)
		}
	}
	if all, err := c.Tokens(ctx); err != nil || len(all) != 5 || all[0].State != api.TokenExpired {
		t.Errorf("Tokens = %+v, %v", all, err)
	}
	if r, err := c.RevokeToken(ctx, tok.ID); err != nil || r.State != api.TokenRevoked {
		t.Errorf("RevokeToken = %+v, %v", r, err)
	}
	if _, err := c.RevokeToken(ctx, tok.Secret.Reveal()); api.CodeOf(err) != api.CodeInvalid || strings.Contains(err.Error(), tok.Secret.Reveal()) {
		t.Errorf("RevokeToken of the token itself: %v", err)
	}
	if n, err := c.DrainNode(ctx, "beta", true); err != nil || n.Status != api.NodeDraining {
		t.Errorf("DrainNode = %+v, %v", n, err)
	}
	if _, err := c.RemoveNode(ctx, api.NodeRemoval{Node: "beta", Dead: true}); api.CodeOf(err) != api.CodeInvalid {
		t.Errorf("RemoveNode dead without force: %v", err)
	}
	if r, err := c.RemoveNode(ctx, api.NodeRemoval{Node: "beta", Force: true}); err != nil || r.SubnetState != api.SubnetQuarantined || r.Node != "beta" {
		t.Errorf("RemoveNode = %+v, %v", r, err)
	}
	if g, err := c.EndReclaim(ctx); err != nil || g != 1 {
		t.Errorf("EndReclaim = %d, %v", g, err)
	}
	b.Fail("Linearize", api.Errorf(api.CodeNoLeader, "no leader"))
	if _, err := c.Linearizable().Nodes(ctx); api.CodeOf(err) != api.CodeNoLeader {
		t.Errorf("a linearizable read without a leader: %v", err)
	}
	if ns, err := c.Nodes(ctx); err != nil || len(ns) != 3 {
		t.Errorf("Nodes = %+v, %v", ns, err)
	}
	if r, err := c.LeaveCluster(ctx, true); err != nil || r.Node != apitest.NodeName {
		t.Errorf("LeaveCluster = %+v, %v", r, err)
	}
}

func TestSnapshotStreams(t *testing.T) {
	b, c, _ := fixture(t)
	ctx := t.Context()
	if _, err := c.InitCluster(ctx, api.ClusterSpec{}); err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte("snapshot"), 100_000)
	b.SetSnapshot(want)
	var got bytes.Buffer
	if info, err := c.SaveSnapshot(ctx, &got); err != nil || !bytes.Equal(got.Bytes(), want) || info.Cluster != apitest.ClusterID {
		t.Errorf("SaveSnapshot = %+v, %v; %d bytes of %d", info, err, got.Len(), len(want))
	}
	b.Fail("SnapshotEnd", api.Errorf(api.CodeInternal, "disk on fire"))
	if _, err := c.SaveSnapshot(ctx, io.Discard); err == nil || err.Error() != "disk on fire" {
		t.Errorf("a save that broke off: %v", err)
	}
	full := errors.New("disk full")
	if _, err := c.SaveSnapshot(ctx, failWriter{full}); !errors.Is(err, full) {
		t.Errorf("a save to a full disk: %v", err)
	}
	if _, err := c.RestoreSnapshot(ctx, bytes.NewReader(want)); api.CodeOf(err) != api.CodeInvalid {
		t.Errorf("a restore of something else: %v", err)
	}
	b.Fail("RestoreSnapshot", api.Errorf(api.CodeNoLeader, "not the leader"))
	if _, err := c.RestoreSnapshot(ctx, bytes.NewReader(bytes.Repeat(want, 20))); api.CodeOf(err) != api.CodeNoLeader {
		t.Errorf("a restore that is refused before it is read: %v", err)
	}
}

// reader reads a snapshot to its end and says how that went.
type reader struct {
	*apitest.Backend
	ended chan error
}

func (r reader) RestoreSnapshot(_ context.Context, in io.Reader) (api.Restored, error) {
	_, err := io.Copy(io.Discard, in)
	r.ended <- err
	return api.Restored{}, err
}

// A sender that breaks off never looks like the end of its snapshot.
func TestRestoreThatBreaksOff(t *testing.T) {
	b := reader{apitest.New(nil), make(chan error, 1)}
	path := filepath.Join(socketDir(t), "s")
	defer serve(t, b, path, "")()
	c, err := client.New(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	broken := errors.New("broken disk")
	half := bytes.NewReader(make([]byte, 300_000))
	if _, err := c.RestoreSnapshot(t.Context(), io.MultiReader(half, iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("the sender: %v", err)
	}
	if err := <-b.ended; err == nil {
		t.Error("the agent took a part for the whole")
	}
	if _, err := c.RestoreSnapshot(t.Context(), bytes.NewReader(make([]byte, 300_000))); err != nil {
		t.Errorf("the sender of a whole one: %v", err)
	}
	if err := <-b.ended; err != nil {
		t.Errorf("the agent, of a whole one: %v", err)
	}
}

type failWriter struct{ err error }

func (w failWriter) Write([]byte) (int, error) { return 0, w.err }

// narrow is a backend of the one-node version.
type narrow struct{ Backend }

func TestBackendWithoutAPart(t *testing.T) {
	path := filepath.Join(socketDir(t), "s")
	b := apitest.New(nil)
	if _, err := b.InitCluster(t.Context(), api.ClusterSpec{}); err != nil {
		t.Fatal(err)
	}
	stop := serve(t, narrow{b}, path, "")
	defer stop()
	c, err := client.New(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx := t.Context()
	for name, call := range map[string]func() error{
		"JoinCluster": func() error {
			_, err := c.JoinCluster(ctx, api.JoinSpec{Address: "h:1", Token: "t"})
			return err
		},
		"LeaveCluster": func() error { _, err := c.LeaveCluster(ctx, false); return err },
		"EndReclaim":   func() error { _, err := c.EndReclaim(ctx); return err },
		"CreateToken": func() error {
			_, err := c.CreateToken(ctx, api.TokenSpec{Role: api.RoleNode, TTL: time.Hour})
			return err
		},
		"Tokens":          func() error { _, err := c.Tokens(ctx); return err },
		"RevokeToken":     func() error { _, err := c.RevokeToken(ctx, "x"); return err },
		"DrainNode":       func() error { _, err := c.DrainNode(ctx, "alpha", true); return err },
		"RemoveNode":      func() error { _, err := c.RemoveNode(ctx, api.NodeRemoval{Node: "alpha"}); return err },
		"RouteDrift":      func() error { _, err := c.RouteDrift(ctx); return err },
		"SyncRoutes":      func() error { _, err := c.SyncRoutes(ctx, true); return err },
		"RaftPeers":       func() error { _, err := c.RaftPeers(ctx); return err },
		"RaftStats":       func() error { _, err := c.RaftStats(ctx); return err },
		"RaftHash":        func() error { _, err := c.RaftHash(ctx, 0); return err },
		"TransferLeader":  func() error { _, err := c.TransferLeader(ctx, ""); return err },
		"PromotePeer":     func() error { _, err := c.PromotePeer(ctx, api.RaftChange{Node: "alpha"}); return err },
		"SaveSnapshot":    func() error { _, err := c.SaveSnapshot(ctx, io.Discard); return err },
		"RestoreSnapshot": func() error { _, err := c.RestoreSnapshot(ctx, strings.NewReader("x")); return err },
		"Linearize":       func() error { _, err := c.Linearizable().Nodes(ctx); return err },
	} {
		if err := call(); api.CodeOf(err) != api.CodeInternal || err.Error() != "not served by this agent" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := c.Nodes(ctx); err != nil {
		t.Errorf("what it has: %v", err)
	}
}

// relayed is a client that another node uses for its operator.
func relayed(t *testing.T, b Backend, c peerapi.Caller, log *slog.Logger) *client.Client {
	t.Helper()
	srv := httptest.NewUnstartedServer(peerapi.Handler(peerapi.Config{
		Caller: func(context.Context) (peerapi.Caller, bool) { return c, true }, Relay: New(b, log).Relay(), Logger: log,
	}))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return client.NewRelay(client.Relay{HTTP: srv.Client(), Base: srv.URL, Name: "alpha", For: "uid 1000 pid 7"})
}

// forwards records what a backend is told about where a request comes from.
type forwards struct {
	*apitest.Backend
	from []string
}

func (f *forwards) DrainNode(ctx context.Context, id string, drain bool) (api.Node, error) {
	if c, ok := Forwarded(ctx); ok {
		f.from = append(f.from, c.Name)
	}
	return f.Backend.DrainNode(ctx, id, drain)
}

func TestRelay(t *testing.T) {
	b := &forwards{Backend: apitest.New(nil)}
	if _, err := b.InitCluster(t.Context(), api.ClusterSpec{}); err != nil {
		t.Fatal(err)
	}
	for name, role := range map[string]string{"beta": api.RoleServer, "gamma": api.RoleNode} {
		if err := b.AddNode(name, role); err != nil {
			t.Fatal(err)
		}
	}
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	server := relayed(t, b, peerapi.Caller{Node: apitest.IDOf("beta"), Name: "beta", Role: api.RoleServer, Raft: true}, logger)
	node := relayed(t, b, peerapi.Caller{Node: apitest.IDOf("gamma"), Name: "gamma", Role: api.RoleNode, Raft: true}, logger)
	ctx := t.Context()

	if _, err := server.DrainNode(ctx, "alpha", true); err != nil || strings.Join(b.from, " ") != "beta" {
		t.Errorf("DrainNode by a server: %v, forwarded by %q", err, b.from)
	}
	if s := log.String(); !strings.Contains(s, `from=beta`) || !strings.Contains(s, `uid 1000 pid 7`) {
		t.Errorf("the audit log does not say who asked: %s", s)
	}
	if _, err := node.Nodes(ctx); err != nil {
		t.Errorf("a read by a node: %v", err)
	}
	if _, err := node.DrainNode(ctx, "gamma", true); err != nil {
		t.Errorf("a node drains itself: %v", err)
	}
	for name, call := range map[string]func() error{
		"drain another":       func() error { _, err := node.DrainNode(ctx, "alpha", false); return err },
		"drain another by id": func() error { _, err := node.DrainNode(ctx, string(apitest.NodeID), false); return err },
		"remove another":      func() error { _, err := node.RemoveNode(ctx, api.NodeRemoval{Node: "beta"}); return err },
		"make a token": func() error {
			_, err := node.CreateToken(ctx, api.TokenSpec{Role: "server", TTL: time.Hour})
			return err
		},
		"see the tokens":       func() error { _, err := node.Tokens(ctx); return err },
		"make itself a voter":  func() error { _, err := node.PromotePeer(ctx, api.RaftChange{Node: "gamma"}); return err },
		"save the state":       func() error { _, err := node.SaveSnapshot(ctx, io.Discard); return err },
		"restore another":      func() error { _, err := node.RestoreSnapshot(ctx, strings.NewReader("x")); return err },
		"server: init another": func() error { _, err := server.InitCluster(ctx, api.ClusterSpec{}); return err },
		"server: make another join": func() error {
			_, err := server.JoinCluster(ctx, api.JoinSpec{Address: "h:1", Token: "t"})
			return err
		},
		"server: make another leave": func() error { _, err := server.LeaveCluster(ctx, true); return err },
	} {
		if err := call(); api.CodeOf(err) != api.CodeDenied {
			t.Errorf("%s: %v, want it denied", name, err)
		}
	}
	if r, err := node.RemoveNode(ctx, api.NodeRemoval{Node: "gamma"}); err != nil || r.Node != "gamma" {
		t.Errorf("a node leaves: %+v, %v", r, err)
	}
	// Behind no gate there is no relay.
	w := httptest.NewRecorder()
	New(b, nil).Relay().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/stellar.v1.Agent/Version", strings.NewReader("{}")))
	if w.Code != http.StatusForbidden {
		t.Errorf("without a caller: HTTP %d", w.Code)
	}
}

// Whatever happens, the log of the agent never has a token.
func TestLogKeepsTokensOut(t *testing.T) {
	b := apitest.New(nil)
	var log bytes.Buffer
	srv := New(b, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	h := clusterHandler{srv}
	join := func(token string) {
		j, err := h.Join(t.Context(), joinRequest(apitest.RemoteAddress, token))
		for _, s := range []string{j.String(), errText(err)} {
			if strings.Contains(s, token) {
				t.Errorf("the answer repeats the token: %s", s)
			}
		}
	}
	for _, token := range []string{"nonsense-token", "STELLAR1-WRONG", apitest.ExpiredToken, apitest.UsedToken, apitest.GoodToken, apitest.GoodToken} {
		join(token)
		if strings.Contains(log.String(), token) {
			t.Errorf("the log has the token: %s", &log)
		}
	}
	m, err := h.CreateToken(t.Context(), tokenRequest(api.RoleServer, time.Hour))
	if err != nil || strings.Contains(log.String(), m.GetSecret()) || !strings.Contains(log.String(), m.GetToken().GetId()) {
		t.Errorf("%v; the log has the new token, or not its id: %s", err, &log)
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func joinRequest(address, token string) *stellarv1.ClusterJoinRequest {
	return &stellarv1.ClusterJoinRequest{Address: address, Token: token}
}

func tokenRequest(role string, ttl time.Duration) *stellarv1.ClusterCreateTokenRequest {
	return &stellarv1.ClusterCreateTokenRequest{Role: role, Ttl: durationpb.New(ttl)}
}
