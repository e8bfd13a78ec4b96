package peerapi

import (
	"fmt"

	"stellar.io/stellar/api"
	"stellar.io/stellar/ipam"
)

// CheckEnvelope decides whether c may have the leader propose e. The request id
// must be the caller's: results are remembered under it. What is about a subnet,
// its leases or a node itself must name the caller, whatever its role; only a
// server proposes for the cluster as a whole. Everything else is the leader's own.
func CheckEnvelope(c Caller, e ipam.Envelope) error {
	if e.Request != (ipam.RequestID{}) && e.Request.Node != c.Node {
		return denied(c, "node %s used the request id of %s", c.Name, e.Request.Node.Short())
	}
	for _, cmd := range e.Commands {
		grant, node := commandGrant(c.Role, cmd)
		switch {
		case grant == Allow, grant == Own && node == c.Node && node != "":
		case grant == Own:
			return denied(c, "node %s named %s in %s", c.Name, node.Short(), commandName(cmd))
		default:
			return denied(c, "node %s may not propose %s", c.Name, commandName(cmd))
		}
	}
	return nil
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
	// Servers'.
	case ipam.JoinNode, ipam.RegisterNode, ipam.ReleaseSubnet, ipam.CreateToken, ipam.RevokeToken, ipam.EndReclaim:
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
