package peerapi

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/reflect/protoreflect"

	"stellar.io/stellar/api"
	peerv1 "stellar.io/stellar/api/stellar/peer/v1"
	stellarv1 "stellar.io/stellar/api/stellar/v1"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore"
)

var update = flag.Bool("update", false, "write docs/authorization.md anew")

// procedures are those of all services that exist.
func procedures() []string {
	var out []string
	for _, f := range []protoreflect.FileDescriptor{
		peerv1.File_stellar_peer_v1_join_proto, peerv1.File_stellar_peer_v1_peer_proto,
		stellarv1.File_stellar_v1_agent_proto, stellarv1.File_stellar_v1_check_proto, stellarv1.File_stellar_v1_cluster_proto, stellarv1.File_stellar_v1_endpoints_proto,
		stellarv1.File_stellar_v1_ipam_proto, stellarv1.File_stellar_v1_nodes_proto, stellarv1.File_stellar_v1_raft_proto,
		stellarv1.File_stellar_v1_routes_proto, stellarv1.File_stellar_v1_attachments_proto, stellarv1.File_stellar_v1_trace_proto,
		stellarv1.File_stellar_v1_debug_proto,
		stellarv1.File_stellar_v1_connectivity_proto,
	} {
		for i := range f.Services().Len() {
			s := f.Services().Get(i)
			for j := range s.Methods().Len() {
				out = append(out, fmt.Sprintf("/%s/%s", s.FullName(), s.Methods().Get(j).Name()))
			}
		}
	}
	return out
}

// A new procedure is denied until somebody has thought about it; this makes sure
// that somebody has, and that no rule outlives its procedure.
func TestEveryProcedureHasARule(t *testing.T) {
	t.Parallel()
	have := map[string]int{}
	for _, r := range rules {
		have[r.Procedure]++
	}
	all := append(procedures(), RaftProtocol, FollowProtocol)
	for _, p := range all {
		if have[p] != 1 {
			t.Errorf("%s has %d rules, want 1", p, have[p])
		}
		delete(have, p)
	}
	for p := range have {
		t.Errorf("%s has a rule and does not exist", p)
	}
	if len(all) < 40 {
		t.Errorf("only %d procedures found", len(all))
	}
}

// certificate is one column of the table.
type certificate struct {
	title, role string
	raft        bool
	of          func(Rule) Grant
}

var certificates = []certificate{
	{"server, Raft", api.RoleServer, true, func(r Rule) Grant { return r.ServerRaft }},
	{"server", api.RoleServer, false, func(r Rule) Grant { return r.Server }},
	{"node, Raft", api.RoleNode, true, func(r Rule) Grant { return r.NodeRaft }},
	{"node", api.RoleNode, false, func(r Rule) Grant { return r.Node }},
	{"none", "", false, func(r Rule) Grant { return r.Nobody }},
}

func TestAllowedIsTheTable(t *testing.T) {
	t.Parallel()
	for _, r := range rules {
		for _, c := range certificates {
			if got := GrantOf(c.role, c.raft, r.Procedure); got != c.of(r) || Allowed(c.role, c.raft, r.Procedure) != (got != Deny) {
				t.Errorf("%s with certificate %q: %s, the table says %s", r.Procedure, c.title, got, c.of(r))
			}
		}
		if r.Node > r.NodeRaft || r.NodeRaft > r.ServerRaft || r.Node > r.Server || r.Server > r.ServerRaft {
			t.Errorf("%s: a lesser certificate may do more: %+v", r.Procedure, r)
		}
	}
	for _, c := range []struct {
		role string
		raft bool
		proc string
	}{
		{"king", true, RaftProtocol}, {"", true, RaftProtocol}, {"SERVER", true, "/stellar.v1.Agent/Status"},
		{api.RoleServer, true, "/stellar.v1.Agent/New"}, {api.RoleServer, true, ""}, {api.RoleServer, true, "/stellar.v1.Agent/Status/"},
		{api.RoleServer, true, "/stellar.v1.agent/status"},
	} {
		if Allowed(c.role, c.raft, c.proc) {
			t.Errorf("%q (raft %t) may call %q", c.role, c.raft, c.proc)
		}
	}
}

// Each pair of certificate and procedure, asked of the handler itself.
func TestHandlerWalksTheTable(t *testing.T) {
	t.Parallel()
	for _, c := range certificates {
		var relayed []string
		h := Handler(Config{
			Backend: &fakeBackend{},
			Caller: func(context.Context) (Caller, bool) {
				return Caller{Node: beta, Name: "beta", Role: c.role, Raft: c.raft}, c.role != ""
			},
			Relay: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { relayed = append(relayed, r.URL.Path) }),
		})
		for _, r := range rules {
			if r.Procedure == RaftProtocol || r.Procedure == FollowProtocol {
				continue // not HTTP
			}
			relayed = nil
			req := httptest.NewRequest(http.MethodPost, r.Procedure, strings.NewReader("{}"))
			req.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			h.ServeHTTP(w, req)
			// Without a certificate there is no way to Handler; JoinHandler has its own test.
			want := c.of(r) != Deny && c.role != ""
			if got := w.Code != http.StatusForbidden; got != want {
				t.Errorf("%s with certificate %q: HTTP %d %s, want let in: %t", r.Procedure, c.title, w.Code, w.Body, want)
			}
			if local := strings.HasPrefix(r.Procedure, "/stellar.v1."); (len(relayed) > 0) != (want && local) {
				t.Errorf("%s with certificate %q: relayed %q", r.Procedure, c.title, relayed)
			}
		}
		relayed = nil
		for _, path := range []string{"/", "/stellar.v1.Nodes/Remove/", "/stellar.v1.Nodes/../stellar.v1.Nodes/Remove", "//stellar.v1.Nodes/Remove", "/metrics"} {
			w := httptest.NewRecorder()
			req := httptest.NewRequest(http.MethodPost, "/", nil)
			req.URL.Path = path
			if h.ServeHTTP(w, req); w.Code != http.StatusForbidden || len(relayed) > 0 {
				t.Errorf("path %s with certificate %q: HTTP %d", path, c.title, w.Code)
			}
		}
	}
}

// docs/authorization.md shows the same tables.
func TestDocumentation(t *testing.T) {
	t.Parallel()
	file := filepath.Join("..", "..", "docs", "authorization.md")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got := string(text)
	for name, table := range map[string]string{"procedures": procedureTable(), "changes": changeTable(), "commands": commandTable(t)} {
		begin, end := "<!-- "+name+" -->\n", "<!-- end -->"
		head, rest, ok := strings.Cut(got, begin)
		old, tail, ok2 := strings.Cut(rest, end)
		if !ok || !ok2 {
			t.Fatalf("no table %q in %s", name, file)
		}
		if diff := cmp.Diff(table, old); diff != "" && !*update {
			t.Errorf("table %q is not that of the code (run with -update if that is meant):\n%s", name, diff)
		}
		got = head + begin + table + end + tail
	}
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func procedureTable() string {
	var b bytes.Buffer
	row(&b, "asked for", titles()...)
	row(&b, "---", slices.Repeat([]string{"---"}, len(certificates))...)
	for _, r := range rules {
		var cells []string
		for _, c := range certificates {
			cells = append(cells, c.of(r).String())
		}
		row(&b, "`"+strings.TrimPrefix(strings.TrimPrefix(r.Procedure, "/"), "stellar.")+"`", cells...)
	}
	return b.String()
}

func titles() []string {
	var out []string
	for _, c := range certificates {
		out = append(out, c.title)
	}
	return out
}

func changeTable() string {
	var b bytes.Buffer
	row(&b, "change of Raft", "server", "node")
	row(&b, "---", "---", "---")
	for _, op := range changeOps {
		row(&b, string(op), changeGrant(api.RoleServer, op).String(), changeGrant(api.RoleNode, op).String())
	}
	return b.String()
}

var changeOps = []raftstore.ChangeOp{
	raftstore.ChangeAdd, raftstore.ChangePromote, raftstore.ChangeDemote, raftstore.ChangeRemove, raftstore.ChangeTransfer,
}

func commandTable(t *testing.T) string {
	var b bytes.Buffer
	row(&b, "command", "server", "node")
	row(&b, "---", "---", "---")
	line := func(title string, cmd ipam.Command) {
		server, _ := commandGrant(api.RoleServer, cmd)
		node, _ := commandGrant(api.RoleNode, cmd)
		row(&b, title, server.String(), node.String())
	}
	for _, cmd := range commands(t) {
		switch name := commandName(cmd); cmd.(type) {
		case ipam.ReserveAddress:
			line(name+" of no node's block", ipam.ReserveAddress{})
			line(name+" in a node's subnet", ipam.ReserveAddress{Node: beta})
		case ipam.RegisterNode:
			line(name+" as a server", ipam.RegisterNode{Role: ipam.RoleServer})
			line(name+" as a node", ipam.RegisterNode{Role: ipam.RoleNode})
		case ipam.UnreserveAddress:
			line(name+" of no node's block", ipam.UnreserveAddress{})
			line(name+" in a node's subnet", ipam.UnreserveAddress{Node: beta})
		default:
			line(name, cmd)
		}
	}
	return b.String()
}

func row(b *bytes.Buffer, first string, cells ...string) {
	fmt.Fprintf(b, "| %s | %s |\n", first, strings.Join(cells, " | "))
}
