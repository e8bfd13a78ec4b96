package wire

import (
	"google.golang.org/protobuf/types/known/durationpb"

	"stellar.io/stellar/api"
	stellarv1 "stellar.io/stellar/api/stellar/v1"
)

// FromJoinSpec makes the message of a wish to join.
func FromJoinSpec(s api.JoinSpec) *stellarv1.ClusterJoinRequest {
	return &stellarv1.ClusterJoinRequest{Address: s.Address, Token: s.Token.Reveal(), Replace: s.Replace, Follow: s.Follow}
}

// ToJoinSpec reads a wish to join.
func ToJoinSpec(m *stellarv1.ClusterJoinRequest) api.JoinSpec {
	return api.JoinSpec{Address: m.GetAddress(), Token: api.Secret(m.GetToken()), Replace: m.GetReplace(), Follow: m.GetFollow()}
}

// FromJoined makes the message of a membership.
func FromJoined(j api.Joined) *stellarv1.ClusterJoinResponse {
	return &stellarv1.ClusterJoinResponse{
		Cluster: j.Cluster, Node: j.Node, Network: prefixText(j.Network), Subnet: prefixText(j.Subnet), Role: j.Role,
		Warnings: Each(j.Warnings, text),
	}
}

// ToJoined reads a membership.
func ToJoined(m *stellarv1.ClusterJoinResponse) api.Joined {
	return api.Joined{
		Cluster: m.GetCluster(), Node: m.GetNode(), Network: prefix(m.GetNetwork()), Subnet: prefix(m.GetSubnet()), Role: m.GetRole(),
		Warnings: m.GetWarnings(),
	}
}

// FromRemoval makes the message of what became of a node.
func FromRemoval(r api.Removal) *stellarv1.Removal {
	return &stellarv1.Removal{Node: r.Node, Id: r.ID, Subnet: prefixText(r.Subnet), SubnetState: r.SubnetState}
}

// ToRemoval reads what became of a node.
func ToRemoval(m *stellarv1.Removal) api.Removal {
	return api.Removal{Node: m.GetNode(), ID: m.GetId(), Subnet: prefix(m.GetSubnet()), SubnetState: m.GetSubnetState()}
}

// FromNodeRemoval makes the message of a wish to remove a node.
func FromNodeRemoval(r api.NodeRemoval) *stellarv1.NodesRemoveRequest {
	return &stellarv1.NodesRemoveRequest{Node: r.Node, Force: r.Force, Dead: r.Dead}
}

// ToNodeRemoval reads a wish to remove a node.
func ToNodeRemoval(m *stellarv1.NodesRemoveRequest) api.NodeRemoval {
	return api.NodeRemoval{Node: m.GetNode(), Force: m.GetForce(), Dead: m.GetDead()}
}

// FromTokenSpec makes the message of a wish for a token.
func FromTokenSpec(s api.TokenSpec) *stellarv1.ClusterCreateTokenRequest {
	return &stellarv1.ClusterCreateTokenRequest{Role: s.Role, Ttl: durationpb.New(s.TTL)}
}

// ToTokenSpec reads a wish for a token.
func ToTokenSpec(m *stellarv1.ClusterCreateTokenRequest) api.TokenSpec {
	return api.TokenSpec{Role: m.GetRole(), TTL: m.GetTtl().AsDuration()}
}

// FromToken makes the message of a token.
func FromToken(t api.Token) *stellarv1.Token {
	return &stellarv1.Token{Id: t.ID, Role: t.Role, Expires: stamp(t.Expires), Uses: int32(t.Uses), State: t.State, Node: t.Node}
}

// ToToken reads a token.
func ToToken(m *stellarv1.Token) api.Token {
	return api.Token{ID: m.GetId(), Role: m.GetRole(), Expires: moment(m.GetExpires()), Uses: int(m.GetUses()), State: m.GetState(), Node: m.GetNode()}
}

// FromNewToken makes the message of a new token.
func FromNewToken(t api.NewToken) *stellarv1.ClusterCreateTokenResponse {
	return &stellarv1.ClusterCreateTokenResponse{Token: FromToken(t.Token), Secret: t.Secret.Reveal()}
}

// ToNewToken reads a new token.
func ToNewToken(m *stellarv1.ClusterCreateTokenResponse) api.NewToken {
	return api.NewToken{Token: ToToken(m.GetToken()), Secret: api.Secret(m.GetSecret())}
}
