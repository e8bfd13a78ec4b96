package web_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"stellar.io/stellar/api"
)

// fake is a source in memory.
type fake struct {
	mu        sync.Mutex // guards what follows
	status    api.StatusReport
	nodes     []api.Node
	subnets   []api.Subnet
	endpoints []api.Endpoint
	routes    []api.Route
	peers     []api.RaftPeer
	stats     api.RaftStats
	happened  []api.Event
	changed   chan struct{}
	fail      map[string]error // by method
	asked     map[string]int   // how often
}

func newFake() *fake {
	return &fake{changed: make(chan struct{}), fail: map[string]error{}, asked: map[string]int{}}
}

// ask counts a question and returns the error that it is to have.
func (f *fake) ask(method string) (unlock func(), err error) {
	f.mu.Lock()
	f.asked[method]++
	return f.mu.Unlock, f.fail[method]
}

func answerOf[T any](f *fake, method string, v func() T) (out T, err error) {
	unlock, err := f.ask(method)
	defer unlock()
	if err == nil {
		out = v()
	}
	return out, err
}

func (f *fake) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fake) Version(context.Context) (api.VersionInfo, error) {
	return answerOf(f, "Version", func() api.VersionInfo { return api.VersionInfo{Version: "v0.9.1"} })
}

func (f *fake) Status(context.Context) (api.StatusReport, error) {
	return answerOf(f, "Status", func() api.StatusReport { return f.status })
}

func (f *fake) Nodes(context.Context) ([]api.Node, error) {
	return answerOf(f, "Nodes", func() []api.Node { return slices.Clone(f.nodes) })
}

func (f *fake) Subnets(context.Context) ([]api.Subnet, error) {
	return answerOf(f, "Subnets", func() []api.Subnet { return slices.Clone(f.subnets) })
}

func (f *fake) ClusterEndpoints(context.Context) ([]api.Endpoint, error) {
	return answerOf(f, "ClusterEndpoints", func() []api.Endpoint { return slices.Clone(f.endpoints) })
}

func (f *fake) Routes(context.Context) ([]api.Route, error) {
	return answerOf(f, "Routes", func() []api.Route { return slices.Clone(f.routes) })
}

func (f *fake) RouteDrift(context.Context) ([]api.Route, error) {
	return answerOf(f, "RouteDrift", func() []api.Route {
		return slices.DeleteFunc(slices.Clone(f.routes), func(r api.Route) bool { return r.State == api.RouteOK })
	})
}

func (f *fake) RaftPeers(context.Context) ([]api.RaftPeer, error) {
	return answerOf(f, "RaftPeers", func() []api.RaftPeer { return slices.Clone(f.peers) })
}

func (f *fake) RaftStats(context.Context) (api.RaftStats, error) {
	return answerOf(f, "RaftStats", func() api.RaftStats { return f.stats })
}

func (f *fake) Endpoint(_ context.Context, ref api.EndpointRef) (api.EndpointDetail, error) {
	unlock, err := f.ask("Endpoint")
	defer unlock()
	for _, e := range f.endpoints {
		if err == nil && e.Ref() == ref {
			return api.EndpointDetail{
				Endpoint: e, Created: e.Since, PID: 4711, MTU: 1500, LeaseState: api.AddressAttached, Gateway: netip.MustParseAddr("172.16.0.1"),
				Phases: []api.Phase{{Name: "event", Duration: 400 * time.Microsecond}, {Name: "lease", Duration: 2 * time.Millisecond}, {Name: "link", Duration: 3 * time.Millisecond}},
			}, nil
		}
	}
	if err == nil {
		err = api.Errorf(api.CodeNotFound, "no endpoint of container %s", ref)
	}
	return api.EndpointDetail{}, err
}

func (f *fake) Events(ctx context.Context, q api.EventQuery, send func(api.Event) error) error {
	next, first := 0, true
	for {
		f.mu.Lock()
		if err := f.fail["Events"]; err != nil {
			f.mu.Unlock()
			return err
		}
		list, more := slices.Clone(f.happened[next:]), f.changed
		next = len(f.happened)
		f.mu.Unlock()
		list = q.Filter(list)
		if first {
			list, first = q.Newest(list), false
		}
		for _, e := range list {
			if err := send(e); err != nil {
				return err
			}
		}
		if !q.Follow {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-more:
		}
	}
}

func (f *fake) happen(typ, subject, message string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.happened = append(f.happened, api.Event{Time: time.Now(), Type: typ, Node: f.status.Node, Subject: subject, Message: message})
	close(f.changed)
	f.changed = make(chan struct{})
}

// crowd spreads 0 to 90 over 0 to 12: one gets 0, two get 1, and so on.
func crowd(i int) (k int) {
	for ; i > k; k++ {
		i -= k + 1
	}
	return k
}

// cluster is a fake of so many nodes and endpoints, the same each time. Some nodes and
// endpoints are in trouble, as in life.
func cluster(nodes, endpoints int) *fake {
	f := newFake()
	name := func(i int) string { return fmt.Sprintf("node-%04d", i+1) }
	if nodes < 10 {
		name = func(i int) string {
			return []string{"alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota"}[i]
		}
	}
	f.status = api.StatusReport{Node: name(0), Cluster: "c0ffee00c0ffee00c0ffee00c0ffee00", Checks: []api.Check{
		{Name: api.CheckReady, State: api.OK}, {Name: api.CheckLeader, State: api.OK}, {Name: "containerd", State: api.OK, Reason: "connected for 3h12m9s"},
		{Name: "raft", State: api.OK, Reason: "leader, term 7, index 48211"}, {Name: "certificate", State: api.OK, Reason: "until 2026-12-24 10:11:12"},
		{Name: "addresses", State: api.OK, Reason: "172.16.0.0/22: 93 used, 2 cooling, 926 free"},
		{Name: "endpoints", State: api.Warn, Reason: "91 attached, 1 without a task, 1 rejected, 0 retrying (stellar endpoint ls -o wide)"},
	}}
	used := make([]int, nodes)
	base := netip.MustParseAddr("172.16.0.0").As4()
	addr := func(node, host int) netip.Addr {
		n := uint32(base[0])<<24 | uint32(base[1])<<16 + uint32(node)<<10 + uint32(host)
		return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
	}
	words := []string{"web", "api", "db", "cache", "queue", "worker", "proxy", "cron"}
	since := time.Now().Add(-90 * time.Minute)
	for i := range endpoints {
		// Thirteen nodes are crowded, each more than the one before, most are not; never
		// more than a subnet holds.
		n := i % nodes
		if i%5 != 0 {
			n = crowd(i%91) * 61 % nodes
		}
		for used[n] >= 1000 {
			n = (n + 1) % nodes
		}
		used[n]++
		e := api.Endpoint{
			Namespace: "default", Container: fmt.Sprintf("%s-%05d", words[i%len(words)], i), Network: "default", Address: addr(n, used[n]+1), Node: name(n),
			Ifname: "eth0", State: api.StateAttached, Since: since.Add(-time.Duration(i) * 13 * time.Second),
		}
		if n == 0 {
			e.MAC, e.HostIfname, e.Ready, e.Source = fmt.Sprintf("02:9a:10:00:%02x:%02x", i/256%256, i%256), fmt.Sprintf("veth%08x", i*7919), "held", "label"
		} else {
			e.Since = time.Time{} // as of other nodes' endpoints
		}
		switch {
		case i%997 == 5:
			e.State, e.Address, e.Reason = api.StateRejected, netip.Addr{}, "label stellar.io/ip: 172.16.9.300 is not an IP address"
		case i%211 == 3:
			e.State = api.StateBound
		}
		f.endpoints = append(f.endpoints, e)
	}
	for i := range nodes {
		p := netip.PrefixFrom(addr(i, 0), 22)
		n := api.Node{
			Name: name(i), ID: fmt.Sprintf("%032x", i+1), Address: fmt.Sprintf("10.%d.%d.%d:9640", i/62500, i/250%250, i%250+1), Subnet: p, Epoch: fmt.Sprintf("1.%d", i+1),
			Status: api.NodeReady, Role: api.RoleNode, Endpoints: used[i], Version: "v0.9.1", Self: i == 0,
		}
		s := api.Subnet{Network: "default", Subnet: p, Node: n.Name, Epoch: n.Epoch, Used: used[i], Cooling: i % 4, Reserved: 3, State: api.SubnetHeld}
		s.Free = 1021 - s.Used - s.Cooling
		switch {
		case i == 0:
			n.Role = "leader"
		case i < 3 || nodes > 9 && i < 5:
			n.Role = "voter"
		case i%173 == 9:
			n.Status = api.NodeLost
		case i%211 == 8:
			n.Status = api.NodeDraining
		case i%401 == 37:
			n.Status, n.Role, s.State = api.NodeRemoved, "-", api.SubnetQuarantined
		}
		f.nodes, f.subnets = append(f.nodes, n), append(f.subnets, s)
		if i == 0 {
			f.routes = append(f.routes, api.Route{Destination: p, Dev: "stellar0", Node: n.Name, State: api.RouteOK})
			continue
		}
		r := api.Route{Destination: p, Via: netip.MustParseAddrPort(n.Address).Addr(), Dev: "enp1s0", Node: n.Name, State: api.RouteOK}
		switch {
		case i%401 == 2:
			r.State, r.Reason = api.RouteMissing, "deleted by somebody; it is being restored"
		case i%509 == 4:
			r.State, r.Reason = api.RouteConflict, "172.16.0.0/16 dev docker0 proto kernel is in its place"
		}
		f.routes = append(f.routes, r)
		if n.Role == "voter" {
			f.peers = append(f.peers, api.RaftPeer{Node: n.Name, ID: n.ID, Address: n.Address, State: api.RaftFollower, Voter: true, CommitIndex: 48210, TrailsLeaderBy: int64(i)})
		}
	}
	f.peers = append(f.peers, api.RaftPeer{Node: name(0), ID: f.nodes[0].ID, Address: f.nodes[0].Address, State: api.RaftLeader, Voter: true, CommitIndex: 48211})
	f.stats = api.RaftStats{
		Node: name(0), State: "leader", Term: 7, Leader: name(0), LastIndex: 48211, CommitIndex: 48211, AppliedIndex: 48211, SnapshotIndex: 40960,
		Voters: len(f.peers), Servers: len(f.peers), LogBytes: 7 << 20, Generation: 1, Tolerates: (len(f.peers) - 1) / 2,
	}
	for i, e := range f.endpoints[max(0, len(f.endpoints)-40):] {
		typ, msg := "attach", fmt.Sprintf("%s on eth0, held, 5.8ms", e.Address)
		switch i % 9 {
		case 3:
			typ, msg = "detach", "address cooling"
		case 7:
			typ, msg = "reject", "label stellar.io/ip: 172.16.9.300 is not an IP address"
		case 8:
			typ, msg = "repair", "route restored"
		}
		f.happened = append(f.happened, api.Event{Time: time.Now().Add(time.Duration(i-41) * 7 * time.Second), Type: typ, Node: name(0), Subject: "default/" + e.Container, Message: msg})
	}
	return f
}
