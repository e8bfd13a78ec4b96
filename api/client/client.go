// Package client calls an agent over its local socket. Every error it returns
// is, or wraps, an *api.Error: with the agent's code and hint, with
// api.CodeUnreachable when no agent answers, api.CodeDenied when the kernel or
// the agent refuses the caller, api.CodeTimeout when the context's deadline has
// passed. context.Canceled is passed through.
package client

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"connectrpc.com/connect"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/internal/rpc"
	"stellar.io/stellar/api/internal/wire"
	stellarv1 "stellar.io/stellar/api/stellar/v1"
	"stellar.io/stellar/api/stellar/v1/stellarv1connect"
)

const (
	dialTimeout = 3 * time.Second
	maxResponse = 64 << 20 // bytes; thousands of endpoints stay far below
)

// Client calls one agent. It is safe for concurrent use and connects with the
// first call.
type Client struct {
	name, hint string // of the agent, for errors
	close      func()
	// linearizable: reads of the replicated state ask for everything that was
	// committed before.
	linearizable bool

	agent        stellarv1connect.AgentClient
	cluster      stellarv1connect.ClusterClient
	endpoints    stellarv1connect.EndpointsClient
	attachments  stellarv1connect.AttachmentsClient
	nodes        stellarv1connect.NodesClient
	ipam         stellarv1connect.IpamClient
	check        stellarv1connect.CheckerClient
	routes       stellarv1connect.RoutesClient
	raft         stellarv1connect.RaftClient
	debug        stellarv1connect.DebugClient
	connectivity stellarv1connect.ConnectivityClient
	trace        stellarv1connect.TraceClient
}

// New returns a client for the agent at address. It does not connect yet.
func New(address string) (*Client, error) {
	path, err := api.SocketPath(address)
	if err != nil {
		return nil, err
	}
	dialer := net.Dialer{Timeout: dialTimeout}
	t := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			c, err := dialer.DialContext(ctx, "unix", path)
			if err != nil {
				return nil, &dialError{path: path, err: err}
			}
			return c, nil
		},
		DisableCompression: true,
	}
	const base = "http://stellar" // the host means nothing on a socket
	c := newClient(&http.Client{Transport: t}, base)
	c.name, c.hint, c.close = "the agent", hintRunning, t.CloseIdleConnections
	return c, nil
}

func newClient(hc connect.HTTPClient, base string) *Client {
	opts := []connect.ClientOption{connect.WithReadMaxBytes(maxResponse)}
	return &Client{
		close:        func() {},
		agent:        stellarv1connect.NewAgentClient(hc, base, opts...),
		cluster:      stellarv1connect.NewClusterClient(hc, base, opts...),
		endpoints:    stellarv1connect.NewEndpointsClient(hc, base, opts...),
		attachments:  stellarv1connect.NewAttachmentsClient(hc, base, opts...),
		nodes:        stellarv1connect.NewNodesClient(hc, base, opts...),
		ipam:         stellarv1connect.NewIpamClient(hc, base, opts...),
		check:        stellarv1connect.NewCheckerClient(hc, base, opts...),
		routes:       stellarv1connect.NewRoutesClient(hc, base, opts...),
		raft:         stellarv1connect.NewRaftClient(hc, base, opts...),
		debug:        stellarv1connect.NewDebugClient(hc, base, opts...),
		connectivity: stellarv1connect.NewConnectivityClient(hc, base, opts...),
		trace:        stellarv1connect.NewTraceClient(hc, base, opts...),
	}
}

// Linearizable returns a client, for the same connections, whose reads of nodes,
// subnets and addresses have everything that was committed before they were
// asked; without a leader they fail with api.CodeNoLeader.
func (c *Client) Linearizable() *Client {
	l := *c
	l.linearizable = true
	return &l
}

// Relay is how a node passes a request of its operator on to another node.
type Relay struct {
	HTTP *http.Client // of the node-to-node port
	Base string       // URL that HTTP reaches the node at
	Name string       // of the node, for errors
	For  string       // who asked (server.Origin), for that node's audit log
}

// NewRelay returns a client for another node. Its Close does nothing.
func NewRelay(r Relay) *Client {
	c := newClient(relayDoer(r), r.Base)
	c.name, c.hint = "node "+r.Name, "`stellar node ls` shows which nodes answer"
	return c
}

type relayDoer Relay

// Do sends a request that says for whom it is.
func (r relayDoer) Do(req *http.Request) (*http.Response, error) {
	req.Header.Set(rpc.RelayHeader, r.For)
	return r.HTTP.Do(req)
}

// Close drops idle connections.
func (c *Client) Close() { c.close() }

// Status judges the node.
func (c *Client) Status(ctx context.Context) (api.StatusReport, error) {
	m, err := c.agent.Status(ctx, &stellarv1.StatusRequest{})
	return wire.ToStatus(m), c.fail(ctx, err)
}

// Version returns what the agent was built from.
func (c *Client) Version(ctx context.Context) (api.VersionInfo, error) {
	m, err := c.agent.Version(ctx, &stellarv1.VersionRequest{})
	return wire.ToVersion(m), c.fail(ctx, err)
}

// Events calls each for every event that q asks for. With q.Follow it returns
// when ctx ends (its error), when the agent stops (api.CodeUnreachable) or with
// the error of each.
func (c *Client) Events(ctx context.Context, q api.EventQuery, each func(api.Event) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.agent.Events(ctx, wire.FromEventQuery(q))
	if err != nil {
		return c.fail(ctx, err)
	}
	for stream.Receive() {
		if err := each(wire.ToEvent(stream.Msg())); err != nil {
			cancel() // else Close would wait for the stream's end
			stream.Close()
			return err
		}
	}
	err = c.fail(ctx, stream.Err())
	stream.Close()
	return err
}

// InitCluster makes a new cluster.
func (c *Client) InitCluster(ctx context.Context, s api.ClusterSpec) (api.Cluster, error) {
	req := &stellarv1.ClusterInitRequest{SubnetPrefix: int32(s.SubnetPrefix)}
	if s.Network.IsValid() {
		req.Network = s.Network.String()
	}
	m, err := c.agent.ClusterInit(ctx, req)
	return wire.ToCluster(m), c.fail(ctx, err)
}

// Endpoints lists the endpoints of the node, of one containerd namespace or, if
// that is empty, of all.
func (c *Client) Endpoints(ctx context.Context, namespace string) ([]api.Endpoint, error) {
	m, err := c.endpoints.List(ctx, &stellarv1.EndpointsListRequest{Namespace: namespace})
	return wire.Each(m.GetEndpoints(), wire.ToEndpoint), c.fail(ctx, err)
}

// Endpoint returns all about one endpoint.
func (c *Client) Endpoint(ctx context.Context, ref api.EndpointRef) (api.EndpointDetail, error) {
	m, err := c.endpoints.Inspect(ctx, &stellarv1.EndpointsInspectRequest{Ref: wire.FromRef(ref)})
	return wire.ToDetail(m.GetEndpoint()), c.fail(ctx, err)
}

// RepairEndpoint makes the agent look at one endpoint now.
func (c *Client) RepairEndpoint(ctx context.Context, ref api.EndpointRef) (api.Repair, error) {
	m, err := c.endpoints.Repair(ctx, &stellarv1.EndpointsRepairRequest{Ref: wire.FromRef(ref)})
	return wire.ToRepair(m), c.fail(ctx, err)
}

// Nodes lists the members of the cluster.
func (c *Client) Nodes(ctx context.Context) ([]api.Node, error) {
	m, err := c.nodes.List(ctx, &stellarv1.NodesListRequest{Linearizable: c.linearizable})
	return wire.Each(m.GetNodes(), wire.ToNode), c.fail(ctx, err)
}

// Node returns one member by name, id or beginning of its id.
func (c *Client) Node(ctx context.Context, name string) (api.Node, error) {
	m, err := c.nodes.Inspect(ctx, &stellarv1.NodesInspectRequest{Node: name, Linearizable: c.linearizable})
	return wire.ToNode(m.GetNode()), c.fail(ctx, err)
}

// Routes lists the routes that Stellar keeps on the node.
func (c *Client) Routes(ctx context.Context) ([]api.Route, error) {
	m, err := c.routes.List(ctx, &stellarv1.RoutesListRequest{})
	return wire.Each(m.GetRoutes(), wire.ToRoute), c.fail(ctx, err)
}

// Subnets lists the subnets of all networks.
func (c *Client) Subnets(ctx context.Context) ([]api.Subnet, error) {
	m, err := c.ipam.ListSubnets(ctx, &stellarv1.IpamListSubnetsRequest{Linearizable: c.linearizable})
	return wire.Each(m.GetSubnets(), wire.ToSubnet), c.fail(ctx, err)
}

// Address returns everything about one address.
func (c *Client) Address(ctx context.Context, a netip.Addr) (api.Address, error) {
	m, err := c.ipam.Show(ctx, &stellarv1.IpamShowRequest{Address: a.String(), Linearizable: c.linearizable})
	return wire.ToAddress(m.GetAddress()), c.fail(ctx, err)
}

// Reserve keeps a block from being handed out.
func (c *Client) Reserve(ctx context.Context, r api.Reservation) error {
	_, err := c.ipam.Reserve(ctx, &stellarv1.IpamReserveRequest{Target: r.Prefix.String(), Reason: r.Reason})
	return c.fail(ctx, err)
}

// Release lets go of a reservation or a lease and says which it was.
func (c *Client) Release(ctx context.Context, r api.Release) (string, error) {
	m, err := c.ipam.Release(ctx, &stellarv1.IpamReleaseRequest{Target: r.Prefix.String(), Owner: wire.FromOwner(r.Owner)})
	return m.GetReleased(), c.fail(ctx, err)
}

// CheckIpam compares leases, journal, kernel and containerd: of the answering node
// alone, or of every node of its cluster.
func (c *Client) CheckIpam(ctx context.Context, thisNode bool) (api.IpamReport, error) {
	m, err := c.ipam.Check(ctx, &stellarv1.IpamCheckRequest{ThisNode: thisNode})
	return wire.ToReport(m), c.fail(ctx, err)
}

// dialError tells a failed connection from a failed call.
type dialError struct {
	path string
	err  error
}

func (e *dialError) Error() string { return fmt.Sprintf("connect to %s: %v", e.path, e.err) }
func (e *dialError) Unwrap() error { return e.err }
