package wire

import (
	"stellar.io/stellar/api"
	stellarv1 "stellar.io/stellar/api/stellar/v1"
)

var checkStates = map[api.CheckState]stellarv1.CheckState{
	api.OK:   stellarv1.CheckState_CHECK_STATE_OK,
	api.Warn: stellarv1.CheckState_CHECK_STATE_WARN,
	api.Err:  stellarv1.CheckState_CHECK_STATE_ERR,
}

// FromStatus makes the message of a report.
func FromStatus(r api.StatusReport) *stellarv1.StatusResponse {
	return &stellarv1.StatusResponse{Node: r.Node, Cluster: r.Cluster, Checks: Each(r.Checks, func(c api.Check) *stellarv1.Check {
		return &stellarv1.Check{Name: c.Name, State: checkStates[c.State], Reason: text(c.Reason)}
	})}
}

// ToStatus reads a report. A state that this side does not know counts as an error.
func ToStatus(m *stellarv1.StatusResponse) api.StatusReport {
	return api.StatusReport{Node: m.GetNode(), Cluster: m.GetCluster(), Checks: Each(m.GetChecks(), func(c *stellarv1.Check) api.Check {
		return api.Check{Name: c.GetName(), State: toCheckState(c.GetState()), Reason: c.GetReason()}
	})}
}

func toCheckState(s stellarv1.CheckState) api.CheckState {
	switch s {
	case stellarv1.CheckState_CHECK_STATE_OK:
		return api.OK
	case stellarv1.CheckState_CHECK_STATE_WARN:
		return api.Warn
	}
	return api.Err
}

// FromVersion makes the message of a version.
func FromVersion(v api.VersionInfo) *stellarv1.VersionResponse {
	return &stellarv1.VersionResponse{Version: v.Version, Commit: v.Commit, GoVersion: v.GoVersion, Platform: v.Platform}
}

// ToVersion reads a version.
func ToVersion(m *stellarv1.VersionResponse) api.VersionInfo {
	return api.VersionInfo{Version: m.GetVersion(), Commit: m.GetCommit(), GoVersion: m.GetGoVersion(), Platform: m.GetPlatform()}
}

// FromEvent makes the message of an event.
func FromEvent(e api.Event) *stellarv1.EventsResponse {
	return &stellarv1.EventsResponse{Time: stamp(e.Time), Type: e.Type, Node: e.Node, Subject: text(e.Subject), Message: text(e.Message)}
}

// ToEvent reads an event.
func ToEvent(m *stellarv1.EventsResponse) api.Event {
	return api.Event{Time: moment(m.GetTime()), Type: m.GetType(), Node: m.GetNode(), Subject: m.GetSubject(), Message: m.GetMessage()}
}

// FromEventQuery makes the message of a query.
func FromEventQuery(q api.EventQuery) *stellarv1.EventsRequest {
	return &stellarv1.EventsRequest{
		Follow: q.Follow, Since: stamp(q.Since), Tail: int32(q.Tail), Types: q.Types, Subject: text(q.Subject),
		Nodes: q.Nodes, AllNodes: q.AllNodes, Mark: q.Mark,
	}
}

// ToEventQuery reads a query.
func ToEventQuery(m *stellarv1.EventsRequest) api.EventQuery {
	return api.EventQuery{
		Follow: m.GetFollow(), Since: moment(m.GetSince()), Tail: int(m.GetTail()), Types: m.GetTypes(), Subject: m.GetSubject(),
		Nodes: m.GetNodes(), AllNodes: m.GetAllNodes(), Mark: m.GetMark(),
	}
}

// FromCluster makes the message of a cluster.
func FromCluster(c api.Cluster) *stellarv1.ClusterInitResponse {
	return &stellarv1.ClusterInitResponse{Cluster: c.Cluster, Node: c.Node, Network: prefixText(c.Network), Subnet: prefixText(c.Subnet)}
}

// ToCluster reads a cluster.
func ToCluster(m *stellarv1.ClusterInitResponse) api.Cluster {
	return api.Cluster{Cluster: m.GetCluster(), Node: m.GetNode(), Network: prefix(m.GetNetwork()), Subnet: prefix(m.GetSubnet())}
}
