package peerapi

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"stellar.io/stellar/api"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/ipam/ipampb"
	"stellar.io/stellar/raftstore"
)

const (
	alpha = ipam.NodeID("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")
	beta  = ipam.NodeID("bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb")
)

// commands returns one of each kind that an envelope can hold, by name.
func commands(t *testing.T) []ipam.Command {
	t.Helper()
	fields := (&ipampb.Command{}).ProtoReflect().Descriptor().Oneofs().ByName("kind").Fields()
	var out []ipam.Command
	for i := range fields.Len() {
		m := &ipampb.Command{}
		m.ProtoReflect().Set(fields.Get(i), m.ProtoReflect().NewField(fields.Get(i)))
		body, err := proto.Marshal(&ipampb.Envelope{Commands: []*ipampb.Command{m}})
		if err != nil {
			t.Fatal(err)
		}
		e, err := ipam.DecodeEnvelope(append([]byte{1}, body...))
		if err != nil {
			t.Fatalf("%s: %v", fields.Get(i).Name(), err)
		}
		out = append(out, e.Commands[0])
	}
	slices.SortFunc(out, func(a, b ipam.Command) int { return strings.Compare(commandName(a), commandName(b)) })
	if len(out) < 20 {
		t.Fatalf("only %d commands found", len(out))
	}
	return out
}

// naming returns cmd with its node set, wherever it has one.
func naming(cmd ipam.Command, node ipam.NodeID) ipam.Command {
	v := reflect.New(reflect.TypeOf(cmd)).Elem()
	v.Set(reflect.ValueOf(cmd))
	if f := v.FieldByName("Node"); f.IsValid() && f.Type() == reflect.TypeFor[ipam.NodeID]() {
		f.Set(reflect.ValueOf(node))
	}
	return v.Interface().(ipam.Command)
}

// No certificate proposes in the name of another node what only that node may:
// each command of each kind, with the sender's and with a forged node.
func TestForgedNodeInEveryCommand(t *testing.T) {
	t.Parallel()
	cluster := map[string]bool{
		"JoinNode": true, "RegisterNode": true, "ReleaseSubnet": true, "CreateToken": true, "RevokeToken": true, "EndReclaim": true,
		"RemoveNode": true, "DrainNode": true,
	}
	leaders := map[string]bool{"InitCluster": true, "Tick": true, "RaiseGeneration": true}
	never := map[string]bool{"JoinNode": true, "RegisterNode": true}
	for _, cmd := range commands(t) {
		name := commandName(cmd)
		hasNode := !reflect.DeepEqual(naming(cmd, alpha), naming(cmd, beta))
		for _, c := range []Caller{
			{Node: beta, Name: "beta", Role: api.RoleServer, Raft: true}, {Node: beta, Name: "beta", Role: api.RoleNode, Raft: true},
			{Node: beta, Name: "beta", Role: api.RoleNode}, {Node: beta, Name: "beta", Role: "king", Raft: true}, {Node: beta, Name: "beta"},
		} {
			check := func(node ipam.NodeID) error {
				return CheckForward(c, raftstore.Forwarded{
					Kind: raftstore.ForwardPropose, Node: beta, Envelope: ipam.Envelope{Commands: []ipam.Command{naming(cmd, node)}},
				})
			}
			known, server := c.Role == api.RoleServer || c.Role == api.RoleNode, c.Role == api.RoleServer
			wantOwn := known && !leaders[name] && (server || hasNode && !never[name])
			wantForged := known && server && cluster[name]
			if err := check(beta); (err == nil) != wantOwn || err != nil && api.CodeOf(err) != api.CodeDenied {
				t.Errorf("%s by %q for itself: %v, want allowed: %t", name, c.Role, err, wantOwn)
			}
			if err := check(alpha); hasNode && (err == nil) != wantForged {
				t.Errorf("%s by %q for another: %v, want allowed: %t", name, c.Role, err, wantForged)
			}
		}
	}
}

func TestCheckForward(t *testing.T) {
	t.Parallel()
	server := Caller{Node: beta, Name: "beta", Role: api.RoleServer, Raft: true}
	node := Caller{Node: beta, Name: "beta", Role: api.RoleNode, Raft: true}
	own := ipam.ClaimSubnet{Node: beta, Network: "default"}
	propose := func(e ipam.Envelope) raftstore.Forwarded {
		return raftstore.Forwarded{Kind: raftstore.ForwardPropose, Node: beta, Envelope: e}
	}
	change := func(op raftstore.ChangeOp, n ipam.NodeID) raftstore.Forwarded {
		return raftstore.Forwarded{Kind: raftstore.ForwardChange, Node: beta, Change: raftstore.Change{Op: op, Node: n}}
	}
	passed := func(f raftstore.Forwarded) raftstore.Forwarded {
		f.Node, f.PassedOn = alpha, true
		return f
	}
	global := ipam.ReserveAddress{Network: "default", Prefix: netip.MustParsePrefix("172.17.0.0/16")}
	tests := []struct {
		name   string
		caller Caller
		in     raftstore.Forwarded
		want   bool
	}{
		{"own command", node, propose(ipam.Envelope{Request: ipam.RequestID{Node: beta, Seq: 1}, Commands: []ipam.Command{own}}), true},
		{"another's request id", server, propose(ipam.Envelope{Request: ipam.RequestID{Node: alpha, Seq: 1}, Commands: []ipam.Command{own}}), false},
		{"another sender", server, raftstore.Forwarded{Kind: raftstore.ForwardRead, Node: alpha}, false},
		{"read", node, raftstore.Forwarded{Kind: raftstore.ForwardRead, Node: beta}, true},
		{"unknown kind", server, raftstore.Forwarded{Kind: 77, Node: beta}, false},
		{"one forged among own ones", server, propose(ipam.Envelope{Commands: []ipam.Command{own, ipam.ClaimSubnet{Node: alpha}, own}}), false},
		{"a block of nobody by a server", server, propose(ipam.Envelope{Commands: []ipam.Command{global}}), true},
		{"a block of nobody by a node", node, propose(ipam.Envelope{Commands: []ipam.Command{global}}), false},
		{"a node's start", node, propose(ipam.Envelope{Commands: []ipam.Command{ipam.RegisterNode{Node: beta, Role: ipam.RoleNode}, own}}), true},
		{"a node as a server", node, propose(ipam.Envelope{Commands: []ipam.Command{ipam.RegisterNode{Node: beta, Role: ipam.RoleServer}}}), false},
		{"a node as what it may be", node, propose(ipam.Envelope{Commands: []ipam.Command{ipam.RegisterNode{Node: beta}}}), false},
		{"another node by a node", node, propose(ipam.Envelope{Commands: []ipam.Command{ipam.RegisterNode{Node: alpha, Role: ipam.RoleNode}}}), false},
		{"promote by a server", server, change(raftstore.ChangePromote, alpha), true},
		{"promote itself by a node", node, change(raftstore.ChangePromote, beta), false},
		{"add itself by a node", node, change(raftstore.ChangeAdd, beta), false},
		{"remove itself by a node", node, change(raftstore.ChangeRemove, beta), true},
		{"remove another by a node", node, change(raftstore.ChangeRemove, alpha), false},
		{"transfer by a node", node, change(raftstore.ChangeTransfer, ""), false},
		{"a follower's, passed on by its server", server, passed(propose(ipam.Envelope{Commands: []ipam.Command{ipam.ClaimSubnet{Node: alpha, Network: "default"}}})), true},
		{"passed on by a node", node, passed(propose(ipam.Envelope{Commands: []ipam.Command{ipam.ClaimSubnet{Node: alpha, Network: "default"}}})), false},
		{"passed on by a server without raft", Caller{Node: beta, Name: "beta", Role: api.RoleServer}, passed(propose(ipam.Envelope{})), false},
		{"of a follower with a server's certificate, passed on", server, passed(propose(ipam.Envelope{Commands: []ipam.Command{global}})), true},
		{"the leader's own, passed on", server, passed(propose(ipam.Envelope{Commands: []ipam.Command{ipam.Tick{}}})), false},
		{"of another node, passed on", server, passed(propose(ipam.Envelope{Commands: []ipam.Command{own}})), false},
		{"a promotion, passed on", server, passed(change(raftstore.ChangePromote, alpha)), true},
		{"unknown change by a node", node, change("crown", beta), false},
	}
	for _, tt := range tests {
		if err := CheckForward(tt.caller, tt.in); (err == nil) != tt.want || err != nil && api.CodeOf(err) != api.CodeDenied {
			t.Errorf("%s: %v, want allowed: %t", tt.name, err, tt.want)
		}
	}
}
