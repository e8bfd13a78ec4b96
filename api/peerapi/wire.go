package peerapi

import (
	"net/netip"

	"google.golang.org/protobuf/types/known/timestamppb"

	"stellar.io/stellar/api"
	peerv1 "stellar.io/stellar/api/stellar/peer/v1"
	"stellar.io/stellar/ipam"
)

var memberships = map[Membership]peerv1.Membership{
	Member:  peerv1.Membership_MEMBERSHIP_MEMBER,
	Removed: peerv1.Membership_MEMBERSHIP_REMOVED,
	Unknown: peerv1.Membership_MEMBERSHIP_UNKNOWN,
}

func standingToPB(s Standing) *peerv1.WhoAmIResponse {
	return &peerv1.WhoAmIResponse{
		Membership: memberships[s.Membership], Generation: s.Generation, Subnet: prefixText(s.Subnet),
		EpochGeneration: s.Epoch.Generation, EpochCounter: s.Epoch.Counter, Draining: s.Draining, Index: s.Index, Life: s.Life,
	}
}

// standingFromPB takes a membership that this version does not know for Unknown.
func standingFromPB(m *peerv1.WhoAmIResponse) Standing {
	s := Standing{
		Membership: Unknown, Generation: m.GetGeneration(), Epoch: ipam.Epoch{Generation: m.GetEpochGeneration(), Counter: m.GetEpochCounter()},
		Draining: m.GetDraining(), Index: m.GetIndex(), Life: m.GetLife(),
	}
	s.Subnet, _ = netip.ParsePrefix(m.GetSubnet())
	for k, v := range memberships {
		if v == m.GetMembership() {
			s.Membership = k
		}
	}
	return s
}

func claimToPB(c Claim) *peerv1.ClaimRequest {
	return &peerv1.ClaimRequest{
		Name: c.Name, MachineId: c.MachineID, Address: c.Address, Version: c.Version, Mode: c.Mode.String(),
		Subnet: prefixText(c.Subnet), EpochGeneration: c.Epoch.Generation, EpochCounter: c.Epoch.Counter, Empty: c.Empty,
	}
}

func claimFromPB(m *peerv1.ClaimRequest) (c Claim, err error) {
	c = Claim{
		Name: m.GetName(), MachineID: m.GetMachineId(), Address: m.GetAddress(), Version: m.GetVersion(),
		Epoch: ipam.Epoch{Generation: m.GetEpochGeneration(), Counter: m.GetEpochCounter()}, Empty: m.GetEmpty(),
	}
	if c.Mode, err = parseMode(m.GetMode()); err != nil || m.GetSubnet() == "" {
		return c, err
	}
	if c.Subnet, err = netip.ParsePrefix(m.GetSubnet()); err != nil {
		return c, api.Errorf(api.CodeInvalid, "%q is not a subnet", m.GetSubnet())
	}
	return c, nil
}

func claimAnswerToPB(a ClaimAnswer) *peerv1.ClaimResponse {
	return &peerv1.ClaimResponse{
		Generation: a.Generation, Life: a.Life, Accepted: a.Accepted, Leader: string(a.Leader), LeaderAddress: a.LeaderAddress,
	}
}

func claimAnswerFromPB(m *peerv1.ClaimResponse) ClaimAnswer {
	return ClaimAnswer{
		Generation: m.GetGeneration(), Life: m.GetLife(), Accepted: m.GetAccepted(),
		Leader: ipam.NodeID(m.GetLeader()), LeaderAddress: m.GetLeaderAddress(),
	}
}

func parseMode(text string) (ipam.Mode, error) {
	for _, m := range []ipam.Mode{ipam.ModeBridge, ipam.ModeRouted} {
		if text == m.String() {
			return m, nil
		}
	}
	return 0, api.Errorf(api.CodeInvalid, "mode %q is not known here", text).WithHint("update this cluster first")
}

func joinToPB(r JoinRequest) *peerv1.JoinRequest {
	m := &peerv1.JoinRequest{
		TokenId: r.TokenID, Secret: r.Secret[:], Csr: r.CSR, Replace: r.Replace, Follow: r.Follow,
		Node: &peerv1.NodeFacts{
			Id: string(r.Node), Name: r.Name, MachineId: r.MachineID, Address: r.Address, Version: r.Version, Mode: r.Mode.String(), ModeImplied: r.ModeImplied,
		},
	}
	if !r.Time.IsZero() {
		m.Time = timestamppb.New(r.Time)
	}
	for _, p := range r.HostRanges {
		m.Node.HostRanges = append(m.Node.HostRanges, p.String())
	}
	return m
}

// joinFromPB refuses what cannot be read; no error repeats the secret.
func joinFromPB(m *peerv1.JoinRequest) (JoinRequest, error) {
	n := m.GetNode()
	r := JoinRequest{
		TokenID: m.GetTokenId(), CSR: m.GetCsr(), Node: ipam.NodeID(n.GetId()), Name: n.GetName(), MachineID: n.GetMachineId(),
		Address: n.GetAddress(), Version: n.GetVersion(), ModeImplied: n.GetModeImplied(), Replace: m.GetReplace(), Follow: m.GetFollow(),
	}
	if len(m.GetSecret()) != len(r.Secret) {
		return JoinRequest{}, api.Errorf(api.CodeInvalid, "the token's secret has %d bytes, not %d", len(m.GetSecret()), len(r.Secret))
	}
	copy(r.Secret[:], m.GetSecret())
	if !r.Node.Valid() {
		return JoinRequest{}, api.Errorf(api.CodeInvalid, "%q is not the id of a node", n.GetId())
	}
	var err error
	if r.Mode, err = parseMode(n.GetMode()); err != nil {
		return JoinRequest{}, err
	}
	if m.GetTime() != nil {
		r.Time = m.GetTime().AsTime()
	}
	for _, s := range n.GetHostRanges() {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return JoinRequest{}, api.Errorf(api.CodeInvalid, "host range %q is not a block", s)
		}
		r.HostRanges = append(r.HostRanges, p)
	}
	return r, nil
}

func joinAnswerToPB(a JoinAnswer) *peerv1.JoinResponse {
	m := &peerv1.JoinResponse{
		Chain: a.Chain, Ca: a.CA, Cluster: a.Cluster, Generation: a.Generation, Network: a.Network, NetworkPrefix: prefixText(a.NetworkPrefix),
		Subnet: prefixText(a.Subnet), EpochGeneration: a.Epoch.Generation, EpochCounter: a.Epoch.Counter,
		Role: a.Role, Leader: string(a.Leader), Index: a.Index,
	}
	for _, n := range a.Members {
		m.Members = append(m.Members, &peerv1.Member{Id: string(n.ID), Name: n.Name, Address: n.Address, Role: n.Role})
	}
	for _, p := range a.Reserved {
		m.Reserved = append(m.Reserved, p.String())
	}
	return m
}

func joinAnswerFromPB(m *peerv1.JoinResponse) (JoinAnswer, error) {
	a := JoinAnswer{
		Chain: m.GetChain(), CA: m.GetCa(), Cluster: m.GetCluster(), Generation: m.GetGeneration(), Network: m.GetNetwork(),
		Epoch: ipam.Epoch{Generation: m.GetEpochGeneration(), Counter: m.GetEpochCounter()},
		Role:  m.GetRole(), Leader: ipam.NodeID(m.GetLeader()), Index: m.GetIndex(),
	}
	var err error
	if a.NetworkPrefix, err = netip.ParsePrefix(m.GetNetworkPrefix()); err != nil {
		return JoinAnswer{}, api.Errorf(api.CodeInternal, "the answer has no network: %w", err)
	}
	if a.Subnet, err = netip.ParsePrefix(m.GetSubnet()); err != nil {
		return JoinAnswer{}, api.Errorf(api.CodeInternal, "the answer has no subnet: %w", err)
	}
	for _, n := range m.GetMembers() {
		a.Members = append(a.Members, MemberInfo{ID: ipam.NodeID(n.GetId()), Name: n.GetName(), Address: n.GetAddress(), Role: n.GetRole()})
	}
	for _, s := range m.GetReserved() {
		if p, err := netip.ParsePrefix(s); err == nil {
			a.Reserved = append(a.Reserved, p)
		}
	}
	return a, nil
}

func prefixText(p netip.Prefix) string {
	if !p.IsValid() {
		return ""
	}
	return p.String()
}
