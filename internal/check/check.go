// Package check finds what keeps packets from containers on one host: facts are
// collected in one place (Collect), and judged by functions that see nothing else
// (Judge). It changes nothing.
//
// Two rules make its word worth something. It names causes and not their
// consequences: a link that is down explains the routes that are missing. And it
// names nothing that it is not sure of: a rule of a firewall that may concern some
// packets, by what is not known of them, is no finding.
//
// testdata/broken lists the set-ups that it is measured by, and all codes.
package check

import (
	"cmp"
	"slices"

	"stellar.io/stellar/api"
)

// Codes of findings; testdata/broken/README.md says what each means.
const (
	AgentDown         = "agent-down"
	NoLeader          = "no-leader"
	ContainerdDown    = "containerd-down"
	ContainerdVersion = "containerd-version"
	NoRuntime         = "runtime"
	Ptrace            = "ptrace"
	Kernel            = "kernel"
	Clock             = "clock"
	DiskFull          = "disk-full"
	DataDir           = "data-dir"
	PortTaken         = "port-taken"
	PortFiltered      = "port-filtered"
	Networkd          = "networkd"
	NetworkManager    = "network-manager"
	Forwarding        = "forwarding"
	ForwardDrop       = "forward-drop"
	IngressDrop       = "ingress-drop"
	BridgeDrop        = "bridge-drop"
	BrNetfilter       = "br-netfilter"
	TCDrop            = "tc-drop"
	XfrmDrop          = "xfrm-drop"
	RPFilter          = "rp-filter"
	RouteMissing      = "route-missing"
	RouteForeign      = "route-foreign"
	RouteRule         = "route-rule"
	NotAdjacent       = "not-adjacent"
	RangeOverlap      = "range-overlap"
	Neighbour         = "neighbour"
	AddressDuplicate  = "address-duplicate"
	PeerUnreachable   = "peer-unreachable"
	UplinkDown        = "uplink-down"
	PathMTU           = "path-mtu"
	Masquerade        = "masquerade"
	Guard             = "guard"
	BridgeMissing     = "bridge-missing"
	BridgeDown        = "bridge-down"
	HostLinkDown      = "host-link-down"
	HostLinkBridge    = "host-link-bridge"
	GatewayMissing    = "gateway-missing"
	HostRoute         = "host-route"
	FDB               = "fdb"
	ContainerLinkDown = "container-link-down"
	NodeAddress       = "node-address"
	SubnetFull        = "subnet-full"
	NeighbourTable    = "neighbour-table"
)

// order has what causes before what it leads to; a code that is missing comes last.
var order = []string{
	Kernel, UplinkDown, NodeAddress, AddressDuplicate, BridgeMissing, BridgeDown, GatewayMissing, Forwarding, HostLinkDown, HostLinkBridge, ContainerLinkDown, HostRoute,
	Neighbour, NotAdjacent, PeerUnreachable, RangeOverlap, RouteRule, RouteForeign, RouteMissing, RPFilter, XfrmDrop, IngressDrop, TCDrop, BridgeDrop,
	BrNetfilter, ForwardDrop, PortFiltered, FDB, Masquerade, Guard, PathMTU, PortTaken, DiskFull, DataDir, Clock,
	"store", "raft", "membership", "certificate", SubnetFull, NoLeader, ContainerdDown, NoRuntime, AgentDown,
}

// Judge returns the findings, the root causes first. Pure.
func Judge(f Facts) []api.CheckFinding {
	j := &judgement{f: f}
	j.links()
	j.endpoints()
	j.forwarding()
	j.routes()
	j.overlaps()
	j.rules()
	j.filters()
	j.guard()
	j.peers()
	j.machine()
	j.daemons()
	j.agent()
	found := explain(j.found)
	for i := range found {
		found[i].Node = f.Node
	}
	slices.SortStableFunc(found, func(a, b api.CheckFinding) int {
		return cmp.Or(cmp.Compare(a.Severity, b.Severity), cmp.Compare(place(a.Code), place(b.Code)), cmp.Compare(a.Subject, b.Subject))
	})
	return found
}

func place(code string) int {
	if i := slices.Index(order, code); i >= 0 {
		return i
	}
	return len(order)
}

// judgement collects findings.
type judgement struct {
	f     Facts
	found []api.CheckFinding
}

func (j *judgement) error(code, subject, message, mend string) {
	j.add(api.SeverityError, code, subject, message, mend)
}

func (j *judgement) warn(code, subject, message, mend string) {
	j.add(api.SeverityWarning, code, subject, message, mend)
}

func (j *judgement) add(severity, code, subject, message, mend string) {
	f := api.CheckFinding{Severity: severity, Code: code, Subject: subject, Message: message, Mend: mend}
	if !slices.Contains(j.found, f) {
		j.found = append(j.found, f)
	}
}

// explain takes away what another finding explains.
func explain(found []api.CheckFinding) []api.CheckFinding {
	has := func(code, subject string) bool {
		return slices.ContainsFunc(found, func(f api.CheckFinding) bool {
			return f.Code == code && (subject == "" || f.Subject == subject)
		})
	}
	return slices.DeleteFunc(slices.Clone(found), func(f api.CheckFinding) bool {
		switch f.Code {
		case NodeAddress, AddressDuplicate, Neighbour, NotAdjacent, PeerUnreachable, RouteMissing, RouteForeign, RouteRule, RPFilter, NoLeader, Clock:
			return has(UplinkDown, "")
		case AgentDown:
			return has(UplinkDown, "") && f.Severity == api.SeverityWarning ||
				has(AddressDuplicate, f.Subject) || has(Neighbour, f.Subject) || has(NotAdjacent, f.Subject) || has(PeerUnreachable, f.Subject)
		case HostLinkBridge, HostLinkDown, ContainerLinkDown, FDB, Forwarding, PathMTU:
			return has(BridgeMissing, "") || has(BridgeDown, "") && f.Code == ContainerLinkDown ||
				f.Code == ContainerLinkDown && has(HostLinkDown, f.Subject)
		case HostRoute:
			return has(HostLinkDown, f.Subject) || has(GatewayMissing, "")
		}
		return false
	})
}
