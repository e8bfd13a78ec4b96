package peerapi

import (
	"slices"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/stellar/peer/v1/peerv1connect"
	v1 "stellar.io/stellar/api/stellar/v1/stellarv1connect"
)

// Grant says how far a caller may go.
type Grant uint8

const (
	// Deny: not at all.
	Deny Grant = iota
	// Own: only about the node of the certificate itself.
	Own
	// Allow: about any node.
	Allow
)

func (g Grant) String() string { return [...]string{"no", "own", "yes"}[g] }

// RaftProtocol stands for Raft's own connections among the procedures.
const RaftProtocol = "stellar-raft/1"

// FollowProtocol stands for the streams to followers.
const FollowProtocol = "stellar-follow/1"

// Rule says who may call one procedure. A certificate has a role, and may have
// the Raft capability; a caller without a certificate has neither.
type Rule struct {
	Procedure  string
	ServerRaft Grant // role server, with Raft
	Server     Grant // role server, without
	NodeRaft   Grant // role node, with Raft
	Node       Grant // role node, without
	Nobody     Grant // no certificate
}

// members, servers, … are the five columns of a rule.
func members(p string) Rule { return Rule{p, Allow, Allow, Allow, Allow, Deny} }
func servers(p string) Rule { return Rule{p, Allow, Allow, Deny, Deny, Deny} }
func owners(p string) Rule  { return Rule{p, Allow, Allow, Own, Own, Deny} }
func nobody(p string) Rule  { return Rule{p, Deny, Deny, Deny, Deny, Deny} }

// rules has one rule for every procedure that the node-to-node port could be
// asked for, in the order of the documentation. What is not in it is denied.
//
// A server's certificate is that of an administrator: it can come to have the
// CA's key. One of role node reads, and acts for its own node only, so that a
// node that was taken over cannot take the others.
var rules = []Rule{
	{RaftProtocol, Allow, Deny, Deny, Deny, Deny}, // to call; who never votes is called and answers
	members(FollowProtocol),                       // what FetchState shows, as it changes

	{peerv1connect.JoinJoinProcedure, Allow, Allow, Allow, Allow, Allow}, // the token is the right; members pass it on

	{peerv1connect.PeerForwardProcedure, Own, Own, Own, Own, Deny}, // as CheckForward says
	members(peerv1connect.PeerFetchStateProcedure),
	members(peerv1connect.PeerFollowersProcedure),
	{peerv1connect.PeerAnnounceProcedure, Own, Own, Own, Own, Deny},
	{peerv1connect.PeerWhoAmIProcedure, Own, Own, Own, Own, Deny},
	{peerv1connect.PeerClaimProcedure, Own, Own, Own, Own, Deny},
	{peerv1connect.PeerRenewCertificateProcedure, Own, Own, Own, Own, Deny},
	{peerv1connect.PeerCAKeyProcedure, Allow, Deny, Deny, Deny, Deny},

	members(v1.AgentStatusProcedure),
	members(v1.AgentVersionProcedure),
	servers(v1.AgentEventsProcedure),
	nobody(v1.AgentClusterInitProcedure),

	nobody(v1.ClusterJoinProcedure),
	nobody(v1.ClusterLeaveProcedure), // a node leaves by Nodes.Remove of itself
	servers(v1.ClusterCreateTokenProcedure),
	servers(v1.ClusterListTokensProcedure),
	servers(v1.ClusterRevokeTokenProcedure),
	servers(v1.ClusterEndReclaimProcedure),

	members(v1.EndpointsListProcedure),
	members(v1.EndpointsInspectProcedure),
	servers(v1.EndpointsRepairProcedure),
	servers(v1.EndpointsAttachProcedure),
	servers(v1.EndpointsDetachProcedure),

	// What waits for a network is a process of this machine.
	nobody(v1.AttachmentsAddProcedure),
	nobody(v1.AttachmentsDelProcedure),
	nobody(v1.AttachmentsCheckProcedure),
	nobody(v1.AttachmentsReadyProcedure),
	nobody(v1.AttachmentsCollectProcedure),
	nobody(v1.AttachmentsAskedProcedure),
	nobody(v1.AttachmentsAwaitProcedure),

	members(v1.NodesListProcedure),
	members(v1.NodesInspectProcedure),
	owners(v1.NodesDrainProcedure),
	owners(v1.NodesRemoveProcedure),

	members(v1.IpamListSubnetsProcedure),
	members(v1.IpamShowProcedure),
	servers(v1.IpamReserveProcedure),
	servers(v1.IpamReleaseProcedure),
	members(v1.IpamCheckProcedure),

	members(v1.CheckerCheckProcedure),
	members(v1.CheckerNowProcedure),

	members(v1.RoutesListProcedure),
	members(v1.RoutesDriftProcedure),
	servers(v1.RoutesSyncProcedure),

	members(v1.RaftPeersProcedure),
	members(v1.RaftStatsProcedure),
	servers(v1.RaftTransferLeaderProcedure),
	servers(v1.RaftPromoteProcedure),
	servers(v1.RaftDemoteProcedure),
	servers(v1.RaftRemoveProcedure),
	members(v1.RaftHashProcedure),
	servers(v1.RaftSnapshotSaveProcedure),
	servers(v1.RaftSnapshotRestoreProcedure),

	// Who may send packets out of other nodes' containers could attach to them, too.
	servers(v1.ConnectivityPingProcedure),
	nobody(v1.ConnectivityTestProcedure), // the node that was asked asks the others, once
	servers(v1.ConnectivityLendProcedure),
	servers(v1.ConnectivityGiveBackProcedure),
	servers(v1.ConnectivityProbeProcedure),

	// Who looks for a fault of an agent is on its machine.
	nobody(v1.DebugLogLevelProcedure),
	nobody(v1.DebugBugreportProcedure),

	nobody(v1.TracePathProcedure), // a node asks the others for their sides itself
	members(v1.TraceSideProcedure),
	servers(v1.TraceProbeProcedure), // sends packets in the name of a container
}

// Known reports whether a procedure is one of the rules.
func Known(procedure string) bool {
	return slices.ContainsFunc(rules, func(r Rule) bool { return r.Procedure == procedure })
}

// GrantOf returns how far a certificate may go with a procedure; role is
// api.RoleServer, api.RoleNode, or empty for a caller without a certificate.
func GrantOf(role string, raft bool, procedure string) Grant {
	for _, r := range rules {
		if r.Procedure == procedure {
			return r.grant(role, raft)
		}
	}
	return Deny
}

func (r Rule) grant(role string, raft bool) Grant {
	switch {
	case role == api.RoleServer && raft:
		return r.ServerRaft
	case role == api.RoleServer:
		return r.Server
	case role == api.RoleNode && raft:
		return r.NodeRaft
	case role == api.RoleNode:
		return r.Node
	case role == "" && !raft:
		return r.Nobody
	}
	return Deny
}

// Allowed reports whether a certificate may call a procedure at all.
func Allowed(role string, raft bool, procedure string) bool {
	return GrantOf(role, raft, procedure) != Deny
}

// CheckOwn refuses a caller that may call procedure for its own node only when
// the request is about another one. A request that no node sent passes.
func CheckOwn(c Caller, procedure, node string) error {
	switch g := GrantOf(c.Role, c.Raft, procedure); {
	case g == Allow, g == Own && string(c.Node) == node:
		return nil
	}
	return denied(c, "node %s may not do that to another node", c.Name)
}
