package trace

import "stellar.io/stellar/api"

// Side judges what Collect has found: this node's part of the way. Pure.
func Side(f *Facts) *api.TraceSide {
	s := &api.TraceSide{
		Node: f.Node, Leave: Leave(f), Enter: Enter(f), MACs: f.Host.MACs,
		NextHopMAC: f.Host.Hop.MAC, Static: f.Host.Hop.Permanent, Answers: f.Host.Answers, Asked: f.Host.Asked,
	}
	if s.NextHopMAC == "" && len(s.Answers) == 1 {
		s.NextHopMAC = s.Answers[0]
	}
	return s
}
