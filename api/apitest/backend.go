// Package apitest has a Backend in memory, for tests of what calls or serves the
// API. It keeps state: addresses and subnets are a real ipam.State that real
// commands change, so that refusals are the real ones.
package apitest

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"stellar.io/stellar/api"
	"stellar.io/stellar/ipam"
)

// What the backend calls itself and its cluster.
const (
	NodeName  = "alpha"
	NodeID    = ipam.NodeID("00112233445566778899aabbccddeeff")
	ClusterID = "c0ffee00c0ffee00c0ffee00c0ffee00"
)

// Backend is a server.Backend. Make it with New. It is safe for concurrent use.
type Backend struct {
	now func() time.Time

	mu        sync.Mutex // guards what follows
	state     *ipam.State
	endpoints []api.EndpointDetail
	broken    map[string][]string // container → what RepairEndpoint will find
	events    []api.Event
	changed   chan struct{} // closed at the next event
	checks    []api.Check   // reported besides cluster and leader
	fail      map[string]error

	leader    ipam.NodeID
	voters    map[ipam.NodeID]bool
	lost      map[ipam.NodeID]bool
	outOfRaft map[ipam.NodeID]bool
	followers api.RaftFollowers
	following *api.RaftFollowing // nil: a member of Raft
	findings  []api.CheckFinding
	routes    []api.Route // besides the two that Routes always has
	snapshot  []byte
	trace     *api.Trace

	containers  map[api.ContainerRef]api.Asked
	attachments map[string]attachment
	handedOut   int

	logLevel string
	report   []api.ReportFile
	paths    connectivity
}

// New returns a backend without a cluster. now nil means time.Now.
func New(now func() time.Time) *Backend {
	if now == nil {
		now = time.Now
	}
	return &Backend{
		now: now, state: ipam.New(), changed: make(chan struct{}), broken: map[string][]string{}, fail: map[string]error{},
		leader: NodeID, voters: map[ipam.NodeID]bool{NodeID: true}, lost: map[ipam.NodeID]bool{}, outOfRaft: map[ipam.NodeID]bool{},
		containers: map[api.ContainerRef]api.Asked{}, attachments: map[string]attachment{}, logLevel: "info",
	}
}

// Fail makes a method return err from now on; nil makes it work again. A method
// is named as in server.Backend.
func (b *Backend) Fail(method string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fail[method] = err
}

// SetCheck makes Status report a check, in place of one with the same name.
func (b *Backend) SetCheck(c api.Check) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.checks = append(slices.DeleteFunc(b.checks, func(o api.Check) bool { return o.Name == c.Name }), c)
}

// AddEvent appends an event.
func (b *Backend) AddEvent(typ, subject, message string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.addEvent(typ, subject, message)
}

func (b *Backend) addEvent(typ, subject, message string) {
	b.events = append(b.events, api.Event{Time: b.now(), Type: typ, Node: NodeName, Subject: subject, Message: message})
	close(b.changed)
	b.changed = make(chan struct{})
}

// PutEndpoint adds an endpoint or replaces the one with its name; its address, if
// it has one, gets a lease when there is a cluster.
func (b *Backend) PutEndpoint(d api.EndpointDetail) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	d.Node = NodeName
	b.endpoints = append(slices.DeleteFunc(b.endpoints, func(o api.EndpointDetail) bool { return o.Ref() == d.Ref() }), d)
	if !d.Address.IsValid() || !d.Up() {
		return nil
	}
	return b.lease(d)
}

// RemoveEndpoint forgets the endpoint and leaves its lease behind: a leak.
func (b *Backend) RemoveEndpoint(container string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.endpoints = slices.DeleteFunc(b.endpoints, func(o api.EndpointDetail) bool { return o.Container == container })
}

// Break makes the next repair of the container find these.
func (b *Backend) Break(container string, what ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.broken[container] = what
}

// begin takes the lock and returns the error that Fail has set for the method.
func (b *Backend) begin(method string) (unlock func(), err error) {
	b.mu.Lock()
	return b.mu.Unlock, b.fail[method]
}

// apply executes commands on the real state and returns the first refusal.
func (b *Backend) apply(cmds ...ipam.Command) error { return applyTo(b.state, cmds...) }

func applyTo(st *ipam.State, cmds ...ipam.Command) error {
	data, err := ipam.Envelope{Commands: cmds}.Encode()
	if err != nil {
		return err
	}
	out, err := st.Apply(st.Index()+1, data)
	if err != nil {
		return err
	}
	for _, r := range out.Results {
		if r.Err != nil {
			return r.Err
		}
	}
	return nil
}

// subnet returns the subnet of this node.
func (b *Backend) subnet() (ipam.Subnet, error) {
	for s := range b.state.SubnetsOf(NodeID) {
		return s, nil
	}
	return ipam.Subnet{}, ipam.ErrNotInitialized
}

func ownerOf(d api.EndpointDetail) ipam.Owner {
	return ipam.Owner{Kind: ipam.OwnerContainer, Namespace: d.Namespace, ID: d.Container, Created: d.Created.UnixNano(), Interface: d.Ifname}
}

func (b *Backend) lease(d api.EndpointDetail) error {
	s, err := b.subnet()
	if err != nil {
		return err
	}
	return b.apply(
		ipam.BindLease{Fence: s.Fence(), Addr: d.Address, Owner: ownerOf(d), Static: d.Static, Hostname: d.Hostname},
		ipam.MarkLease{Fence: s.Fence(), Addr: d.Address, Owner: ownerOf(d), State: ipam.Attached})
}

// Version implements server.Agent.
func (b *Backend) Version(context.Context) (api.VersionInfo, error) {
	unlock, err := b.begin("Version")
	defer unlock()
	return api.VersionInfo{Version: "v9.9.9", Commit: "abcdef0123456789", GoVersion: "go1.26", Platform: "linux/amd64"}, err
}

// Status implements server.Agent.
func (b *Backend) Status(context.Context) (api.StatusReport, error) {
	unlock, err := b.begin("Status")
	defer unlock()
	if err != nil {
		return api.StatusReport{}, err
	}
	r := api.StatusReport{Node: NodeName}
	has := func(name string) bool {
		return slices.ContainsFunc(b.checks, func(c api.Check) bool { return c.Name == name })
	}
	if c, ok := b.state.Cluster(); ok {
		r.Cluster = c.ID
		for _, name := range []string{api.CheckReady, api.CheckLeader} {
			if !has(name) {
				r.Checks = append(r.Checks, api.Check{Name: name, State: api.OK})
			}
		}
	} else {
		r.Checks = []api.Check{
			{Name: api.CheckReady, State: api.Warn, Reason: "no cluster"},
			{Name: api.CheckLeader, State: api.Warn, Reason: "no cluster"},
		}
	}
	r.Checks = append(r.Checks, b.checks...)
	return r, nil
}

// Events implements server.Agent. All events are this node's.
func (b *Backend) Events(ctx context.Context, q api.EventQuery, send func(api.Event) error) error {
	for next, first := 0, true; ; first = false {
		unlock, err := b.begin("Events")
		fresh, changed := q.Filter(b.events[next:]), b.changed
		end := len(b.events)
		unlock()
		if err != nil {
			return err
		}
		if first {
			fresh = q.Newest(fresh)
			if q.Mark {
				fresh = append(fresh, api.Event{})
			}
		}
		for _, e := range fresh {
			if err := send(e); err != nil {
				return err
			}
		}
		next = end
		if !q.Follow {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// InitCluster implements server.Agent.
func (b *Backend) InitCluster(_ context.Context, s api.ClusterSpec) (api.Cluster, error) {
	unlock, err := b.begin("InitCluster")
	defer unlock()
	if err != nil {
		return api.Cluster{}, err
	}
	if _, ok := b.state.Cluster(); ok {
		return api.Cluster{}, ipam.ErrAlreadyInitialized
	}
	if !s.Network.IsValid() {
		s.Network = netip.MustParsePrefix("172.16.0.0/12")
	}
	if s.SubnetPrefix == 0 {
		s.SubnetPrefix = 22
	}
	err = b.apply(
		ipam.InitCluster{ClusterID: ClusterID, Network: ipam.DefaultNetwork, Prefix: s.Network, SubnetBits: s.SubnetPrefix},
		ipam.RegisterNode{Node: NodeID, Name: NodeName, MachineID: "m", Address: "192.0.2.1:9640", Version: "v9.9.9", Mode: ipam.ModeBridge},
		ipam.ClaimSubnet{Node: NodeID, Network: ipam.DefaultNetwork})
	if err != nil {
		return api.Cluster{}, err
	}
	sub, err := b.subnet()
	b.addEvent("cluster", ClusterID, "initialised")
	return api.Cluster{Cluster: ClusterID, Node: NodeName, Network: s.Network, Subnet: sub.Prefix}, err
}

// Endpoints implements server.Endpoints.
func (b *Backend) Endpoints(context.Context) ([]api.Endpoint, error) {
	unlock, err := b.begin("Endpoints")
	defer unlock()
	var out []api.Endpoint
	for _, d := range b.endpoints {
		out = append(out, d.Endpoint)
	}
	return out, err
}

func (b *Backend) find(ref api.EndpointRef) (api.EndpointDetail, error) {
	for _, d := range b.endpoints {
		if d.Ref() == ref {
			return d, nil
		}
	}
	return api.EndpointDetail{}, api.Errorf(api.CodeNotFound, "endpoint %s has gone", ref)
}

// Endpoint implements server.Endpoints.
func (b *Backend) Endpoint(_ context.Context, ref api.EndpointRef) (api.EndpointDetail, error) {
	unlock, err := b.begin("Endpoint")
	defer unlock()
	if err != nil {
		return api.EndpointDetail{}, err
	}
	return b.find(ref)
}

// RepairEndpoint implements server.Endpoints.
func (b *Backend) RepairEndpoint(_ context.Context, ref api.EndpointRef) (api.Repair, error) {
	unlock, err := b.begin("RepairEndpoint")
	defer unlock()
	if err != nil {
		return api.Repair{}, err
	}
	d, err := b.find(ref)
	if err != nil {
		return api.Repair{}, err
	}
	did := b.broken[ref.Container]
	delete(b.broken, ref.Container)
	if len(did) > 0 {
		b.addEvent("repair", ref.String(), strings.Join(did, ", "))
	}
	return api.Repair{Endpoint: d.Endpoint, Repaired: did}, nil
}

// Nodes implements server.Cluster.
func (b *Backend) Nodes(context.Context) ([]api.Node, error) {
	unlock, err := b.begin("Nodes")
	defer unlock()
	if err != nil {
		return nil, err
	}
	if _, ok := b.state.Cluster(); !ok {
		return nil, ipam.ErrNotInitialized
	}
	var out []api.Node
	for n := range b.state.Nodes() {
		if a := b.node(n); a.Status != api.NodeRemoved || a.Subnet.IsValid() {
			out = append(out, a)
		}
	}
	return out, nil
}

// node returns a member, or a tombstone with what it left in quarantine.
func (b *Backend) node(n ipam.Node) api.Node {
	a := api.Node{Name: n.Name, ID: string(n.ID), Address: n.Address, Status: api.NodeReady, Role: "server", Version: n.Version, Mode: n.Mode.String(), Self: n.ID == NodeID}
	for s := range b.state.Subnets() {
		if s.Node == n.ID && s.State != ipam.SubnetFree {
			a.Subnet, a.Epoch = s.Prefix, s.Epoch.String()
			a.Endpoints += b.state.Usage(s.SubnetKey).Used
		}
	}
	switch {
	case n.Removed:
		a.Status, a.Role = api.NodeRemoved, ""
		return a
	case b.lost[n.ID]:
		a.Status = api.NodeLost
	case n.Draining:
		a.Status = api.NodeDraining
	}
	switch {
	case n.ID == b.leader:
		a.Role = "leader"
	case n.Role == ipam.RoleNode:
		a.Role = "node"
	case b.voters[n.ID]:
		a.Role = "voter"
	}
	return a
}

// Routes implements server.Cluster.
func (b *Backend) Routes(context.Context) ([]api.Route, error) {
	unlock, err := b.begin("Routes")
	defer unlock()
	if err != nil {
		return nil, err
	}
	s, err := b.subnet()
	if err != nil {
		return nil, err
	}
	n, _ := b.state.Network(ipam.DefaultNetwork)
	return append([]api.Route{
		{Destination: s.Prefix, Dev: "stellar0", Node: NodeName, State: api.RouteOK},
		{Destination: n.Prefix, Dev: "", Node: "", State: api.RouteUnreachable},
	}, b.routes...), nil
}
