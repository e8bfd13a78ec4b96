package api

import (
	"encoding/json"
	"net/netip"
	"strings"
	"time"
)

// States of an endpoint. A backend may report others while it works.
const (
	// StatePending: seen, not looked at yet.
	StatePending = "pending"
	// StateBound: has an address, and no task that could carry it.
	StateBound = "bound"
	// StateAttached: the interface is up and the lease committed.
	StateAttached = "attached"
	// StateProvisional: the interface is up, the cluster has not committed the lease yet.
	StateProvisional = "provisional"
	// StateShared: served by the endpoint of another container in the same namespace.
	StateShared = "shared"
	// StateRetrying: an attempt failed; Reason says why.
	StateRetrying = "retrying"
	// StateRejected: never attached as the container is; Reason says why.
	StateRejected = "rejected"
)

// EndpointRef names an endpoint. Namespace may be empty when one namespace only
// has the container, Ifname when the container has one endpoint only.
type EndpointRef struct {
	Namespace string
	Container string
	Ifname    string
}

// ParseEndpointRef reads CONTAINER or NAMESPACE/CONTAINER.
func ParseEndpointRef(s string) EndpointRef {
	if ns, id, ok := strings.Cut(s, "/"); ok {
		return EndpointRef{Namespace: ns, Container: id}
	}
	return EndpointRef{Container: s}
}

func (r EndpointRef) String() string {
	if r.Namespace == "" {
		return r.Container
	}
	return r.Namespace + "/" + r.Container
}

// Endpoint is a container of this node that asked for a network.
type Endpoint struct {
	Namespace  string     `json:"namespace"`
	Container  string     `json:"container"`
	Network    string     `json:"network"`
	Address    netip.Addr `json:"address"` // zero: none
	MAC        string     `json:"mac"`
	Node       string     `json:"node"`
	Ifname     string     `json:"ifname"`
	HostIfname string     `json:"hostIfname"`
	State      string     `json:"state"`
	// Ready is the grade: sync, held, early, late or adopted; empty before the attach.
	Ready string `json:"ready"`
	// Source is where the wish came from: label, annotation, cni or manual.
	Source string    `json:"source"`
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"` // when State was reached
}

// Ref returns the full name of e.
func (e Endpoint) Ref() EndpointRef {
	return EndpointRef{Namespace: e.Namespace, Container: e.Container, Ifname: e.Ifname}
}

// Up reports whether the container has its network.
func (e Endpoint) Up() bool {
	return e.State == StateAttached || e.State == StateProvisional || e.State == StateShared
}

// EndpointDetail is all that is known of one endpoint. Zero values mean unknown
// or none.
type EndpointDetail struct {
	Endpoint
	Created      time.Time    `json:"created,omitzero"` // when containerd created the container
	PID          int          `json:"pid,omitempty"`
	NetNS        uint64       `json:"netns,omitempty"` // inode
	Subnet       netip.Prefix `json:"subnet,omitzero"`
	Gateway      netip.Addr   `json:"gateway,omitzero"`
	DefaultRoute bool         `json:"defaultRoute"`
	MTU          int          `json:"mtu,omitempty"`
	Hostname     string       `json:"hostname,omitempty"`
	Static       bool         `json:"static"` // the address was asked for
	Strict       bool         `json:"strict"`
	Provisional  bool         `json:"provisional"`
	LeaseState   string       `json:"leaseState,omitempty"`
	Warnings     []string     `json:"warnings,omitempty"`
	// Phases says how long each phase of the last attach took, in order.
	Phases []Phase `json:"phases,omitempty"`
}

// Phase is one step of an attach.
type Phase struct {
	Name     string
	Duration time.Duration
}

// MarshalJSON writes {"name": …, "ms": …}, milliseconds with microsecond precision.
func (p Phase) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Name string  `json:"name"`
		MS   float64 `json:"ms"`
	}{p.Name, float64(p.Duration.Microseconds()) / 1000})
}

// Repair is the answer to repairing one endpoint.
type Repair struct {
	Endpoint Endpoint `json:"endpoint"`
	// Repaired says what had to be done; empty when all was right.
	Repaired []string `json:"repaired"`
}
