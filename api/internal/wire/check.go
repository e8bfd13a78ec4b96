package wire

import (
	"stellar.io/stellar/api"
	stellarv1 "stellar.io/stellar/api/stellar/v1"
)

// FromCheck makes the message of a report.
func FromCheck(r api.CheckReport) *stellarv1.CheckResponse {
	return &stellarv1.CheckResponse{
		Node: r.Node, Time: stamp(r.Time),
		Findings: Each(r.Items, func(f api.CheckFinding) *stellarv1.CheckFinding {
			return &stellarv1.CheckFinding{Node: f.Node, Code: f.Code, Severity: f.Severity, Subject: text(f.Subject), Message: text(f.Message), Mend: text(f.Mend)}
		}),
		Nodes: Each(r.Nodes, func(n api.CheckedNode) *stellarv1.CheckedNode {
			return &stellarv1.CheckedNode{Node: n.Node, Error: text(n.Error)}
		}),
		Notes: Each(r.Notes, text),
	}
}

// ToCheck reads a report.
func ToCheck(m *stellarv1.CheckResponse) api.CheckReport {
	return api.CheckReport{
		Node: m.GetNode(), Time: moment(m.GetTime()),
		Items: Each(m.GetFindings(), func(f *stellarv1.CheckFinding) api.CheckFinding {
			return api.CheckFinding{Node: f.GetNode(), Code: f.GetCode(), Severity: f.GetSeverity(), Subject: f.GetSubject(), Message: f.GetMessage(), Mend: f.GetMend()}
		}),
		Nodes: Each(m.GetNodes(), func(n *stellarv1.CheckedNode) api.CheckedNode {
			return api.CheckedNode{Node: n.GetNode(), Error: n.GetError()}
		}),
		Notes: m.GetNotes(),
	}
}
