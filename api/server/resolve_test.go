package server

import (
	"strings"
	"testing"

	"stellar.io/stellar/api"
)

func TestResolveEndpoint(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ab", 32)
	other := "ab" + strings.Repeat("cd", 31)
	all := []api.Endpoint{
		{Namespace: "default", Container: "web", Ifname: "eth0"},
		{Namespace: "default", Container: "web2", Ifname: "eth0"},
		{Namespace: "prod", Container: "web2", Ifname: "eth0"},
		{Namespace: "default", Container: "two", Ifname: "eth0"},
		{Namespace: "default", Container: "two", Ifname: "eth1"},
		{Namespace: "default", Container: long, Ifname: "eth0"},
		{Namespace: "default", Container: other, Ifname: "eth0"},
	}
	tests := []struct {
		name string
		ref  api.EndpointRef
		want string // "" when code is set
		code api.Code
	}{
		{"exact", api.EndpointRef{Container: "web"}, "default/web:eth0", ""},
		{"a chosen name is not shortened", api.EndpointRef{Container: "we"}, "", api.CodeNotFound},
		{"two namespaces", api.EndpointRef{Container: "web2"}, "", api.CodeConflict},
		{"one of two namespaces", api.EndpointRef{Namespace: "prod", Container: "web2"}, "prod/web2:eth0", ""},
		{"wrong namespace", api.EndpointRef{Namespace: "prod", Container: "web"}, "", api.CodeNotFound},
		{"two interfaces", api.EndpointRef{Container: "two"}, "", api.CodeConflict},
		{"one of two interfaces", api.EndpointRef{Container: "two", Ifname: "eth1"}, "default/two:eth1", ""},
		{"beginning of a long id", api.EndpointRef{Container: long[:12]}, "default/" + long + ":eth0", ""},
		{"beginning of two long ids", api.EndpointRef{Container: "ab"}, "", api.CodeConflict},
		{"nothing", api.EndpointRef{}, "", api.CodeInvalid},
		{"not there", api.EndpointRef{Container: "db\x1b[2J" + strings.Repeat("x", 500)}, "", api.CodeNotFound},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e, err := resolveEndpoint(all, tt.ref)
			if tt.code != "" {
				if api.CodeOf(err) != tt.code {
					t.Fatalf("error = %v, want code %s", err, tt.code)
				}
				if strings.Contains(err.Error(), "\x1b") || len(err.Error()) > 400 {
					t.Errorf("message repeats what it was given: %q", err)
				}
				return
			}
			if got := e.Ref().String() + ":" + e.Ifname; err != nil || got != tt.want {
				t.Errorf("resolved %s, %v; want %s", got, err, tt.want)
			}
		})
	}
}

func TestResolveNode(t *testing.T) {
	t.Parallel()
	all := []api.Node{
		{Name: "alpha", ID: "00aa0000aa"}, {Name: "beta", ID: "00bb0000bb"}, {Name: "other", ID: "00bb0000cc"}, {Name: "00bb0000", ID: "ffff"},
		{Name: "gone", ID: "1100", Status: api.NodeRemoved}, {Name: "again", ID: "2200", Status: api.NodeRemoved}, {Name: "again", ID: "2201"},
		{Name: "twice", ID: "3300", Status: api.NodeRemoved}, {Name: "twice", ID: "3301", Status: api.NodeRemoved},
	}
	tests := []struct {
		in, want string
		code     api.Code
	}{
		{"alpha", "alpha", ""},
		{"00aa0000", "alpha", ""},
		{"00bb0000b", "beta", ""},
		{"00bb0000bb", "beta", ""},
		{"00bb0000", "00bb0000", ""},   // a name goes before the beginning of an id
		{"00aa", "", api.CodeNotFound}, // too short for an id: it may be the name of a node that is no more
		{"0", "", api.CodeNotFound},
		{"gamma", "", api.CodeNotFound},
		{"gone", "gone", ""},
		{"again", "again", ""},
		{"2200", "again", ""},
		{"twice", "", api.CodeConflict}, // tombstones: only an id tells
		{"", "", api.CodeInvalid},
	}
	for _, tt := range tests {
		n, err := resolveNode(all, tt.in)
		if tt.in == "again" && n.ID != "2201" {
			t.Errorf("resolveNode(again) is the tombstone")
		}
		if n.Name != tt.want || tt.code != "" && api.CodeOf(err) != tt.code || tt.code == "" && err != nil {
			t.Errorf("resolveNode(%q) = %q, %v; want %q, code %q", tt.in, n.Name, err, tt.want, tt.code)
		}
	}
}
