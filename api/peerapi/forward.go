package peerapi

import (
	"fmt"

	"stellar.io/stellar/api"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore"
)

// CheckForward decides whether c may have the leader do f. The sender that the
// request names and the request id of an envelope must be the caller's: results
// are remembered under it. What is about a subnet, its leases or a node itself must
// name the caller, whatever its role; only a server proposes for the cluster as a
// whole or changes Raft's members. Everything else is the leader's own.
//
// A server that passes on what a follower has asked it for answers for that: it has
// judged the request by the follower's certificate, and could itself ask for all that
// a server may. So the request is judged as a server's that the follower is.
func CheckForward(c Caller, f raftstore.Forwarded) error {
	if f.PassedOn {
		if c.Role != api.RoleServer || !c.Raft {
			return denied(c, "node %s passed a request on, which only servers do", c.Name)
		}
		c = Caller{Node: f.Node, Name: c.Name + " for " + f.Node.Short(), Role: api.RoleServer}
	}
	if f.Node != c.Node {
		return denied(c, "node %s sent a request of %s", c.Name, f.Node.Short())
	}
	switch f.Kind {
	case raftstore.ForwardRead:
		return nil
	case raftstore.ForwardChange:
		return checkGrant(c, changeGrant(c.Role, f.Change.Op), f.Change.Node, string(f.Change.Op))
	case raftstore.ForwardPropose:
		return checkEnvelope(c, f.Envelope)
	}
	return denied(c, "node %s sent a request of an unknown kind", c.Name)
}

func checkEnvelope(c Caller, e ipam.Envelope) error {
	if e.Request != (ipam.RequestID{}) && e.Request.Node != c.Node {
		return denied(c, "node %s used the request id of %s", c.Name, e.Request.Node.Short())
	}
	for _, cmd := range e.Commands {
		grant, node := commandGrant(c.Role, cmd)
		if err := checkGrant(c, grant, node, commandName(cmd)); err != nil {
			return err
		}
	}
	return nil
}

// checkGrant compares a grant with the node that a request is about.
func checkGrant(c Caller, g Grant, node ipam.NodeID, what string) error {
	switch {
	case g == Allow, g == Own && node == c.Node && node != "":
		return nil
	case g == Own:
		return denied(c, "node %s named %s in %s", c.Name, node.Short(), what)
	}
	return denied(c, "node %s may not ask for %s", c.Name, what)
}

// changeGrant returns how far a role may go with a change of Raft's members.
func changeGrant(role string, op raftstore.ChangeOp) Grant {
	leaves := op == raftstore.ChangeRemove || op == raftstore.ChangeDemote
	switch {
	case role == api.RoleServer:
		return Allow
	case role == api.RoleNode && leaves:
		return Own
	}
	return Deny
}

func commandName(cmd ipam.Command) string { return fmt.Sprintf("%T", cmd)[len("ipam."):] }

// commandGrant returns how far a role may go with a command, and which node the
// command names.
func commandGrant(role string, cmd ipam.Command) (Grant, ipam.NodeID) {
	admin := Deny
	switch role {
	case api.RoleServer:
		admin = Allow
	case api.RoleNode:
	default:
		return Deny, ""
	}
	switch cmd := cmd.(type) {
	// A holder's.
	case ipam.BindLease:
		return Own, cmd.Node
	case ipam.MarkLease:
		return Own, cmd.Node
	case ipam.ReleaseLease:
		return Own, cmd.Node
	case ipam.FreeLease:
		return Own, cmd.Node
	case ipam.ClaimHeld:
		return Own, cmd.Node
	case ipam.ClaimSubnet:
		return Own, cmd.Node
	case ipam.UpdateNode:
		return Own, cmd.Node
	case ipam.ReserveAddress:
		return reservationGrant(cmd.Node, admin), cmd.Node
	case ipam.UnreserveAddress:
		return reservationGrant(cmd.Node, admin), cmd.Node
	// Servers', and of a node about itself.
	case ipam.DrainNode:
		return max(Own, admin), cmd.Node
	case ipam.RemoveNode:
		return max(Own, admin), cmd.Node
	// Servers', and of a node about itself as long as it stays one: who registers
	// without a role may become a server.
	case ipam.RegisterNode:
		if cmd.Role == ipam.RoleNode {
			return max(Own, admin), cmd.Node
		}
		return admin, cmd.Node
	// Servers'.
	case ipam.JoinNode, ipam.ReleaseSubnet, ipam.CreateToken, ipam.RevokeToken, ipam.EndReclaim:
		return admin, ""
	}
	// InitCluster, Tick and RaiseGeneration are the leader's own.
	return Deny, ""
}

// reservationGrant is for an address inside a subnet its holder's, and for a block
// that belongs to no node the administrators'.
func reservationGrant(holder ipam.NodeID, admin Grant) Grant {
	if holder == "" {
		return admin
	}
	return Own
}
