package server

import (
	"context"
	"net/netip"

	"stellar.io/stellar/api"
)

// Backend answers what the services ask. Its methods are called from many
// goroutines at once, must end when ctx does, and must work in every state of
// the node; what needs a cluster returns api.CodeNotInitialized before there is
// one.
//
// Errors: a sentinel of package ipam gets its code here; what wraps an
// *api.Error keeps that code and hint; context.DeadlineExceeded is a timeout;
// anything else is internal. Results need no particular order, lists are sorted
// here.
type Backend interface {
	Agent
	Endpoints
	Attachments
	Cluster
	Ipam
}

// Agent is the node as a whole.
type Agent interface {
	// Version and Status answer from memory, without a cluster, too.
	Version(ctx context.Context) (api.VersionInfo, error)
	Status(ctx context.Context) (api.StatusReport, error)
	// Events calls send for each remembered event that q asks for, oldest first,
	// and with q.Follow for each new one until ctx ends, which is no error. Between
	// the two none is lost or repeated; q.Mark sends the zero Event there. A send
	// that is slow holds up nobody: what was forgotten meanwhile is told by an event
	// of api.EventLost. q.Nodes are ids. It returns the error of send.
	Events(ctx context.Context, q api.EventQuery, send func(api.Event) error) error
	// InitCluster makes a new one-node cluster and returns when the node holds
	// its subnet. ipam.ErrAlreadyInitialized when the node belongs to one.
	InitCluster(ctx context.Context, s api.ClusterSpec) (api.Cluster, error)
}

// Endpoints are this node's containers that asked for a network. The server
// resolves what the caller typed; a ref that arrives here is complete and was
// listed a moment ago.
type Endpoints interface {
	Endpoints(ctx context.Context) ([]api.Endpoint, error)
	// Endpoint returns all about one; api.CodeNotFound when it has just gone.
	Endpoint(ctx context.Context, ref api.EndpointRef) (api.EndpointDetail, error)
	// RepairEndpoint looks at the container now and converges; it returns when
	// that round is over. api.CodeNotFound as above.
	RepairEndpoint(ctx context.Context, ref api.EndpointRef) (api.Repair, error)
}

// Cluster is what the replicated state and the kernel say.
type Cluster interface {
	Nodes(ctx context.Context) ([]api.Node, error)
	// Routes are the routes of this node that bear our mark, and those that
	// should be there.
	Routes(ctx context.Context) ([]api.Route, error)
}

// Ipam is addresses and subnets.
type Ipam interface {
	Subnets(ctx context.Context) ([]api.Subnet, error)
	// Address tells about one address; ipam.ErrSubnetNotFound when no network
	// contains it.
	Address(ctx context.Context, a netip.Addr) (api.Address, error)
	// Reserve is idempotent; a conflict when an owner holds an address inside.
	Reserve(ctx context.Context, r api.Reservation) error
	// Release ends the reservation of exactly r.Prefix, the lease of that one
	// address, or the quarantine of that subnet, and says which: "reservation",
	// "lease" or "quarantine". It refuses, as a conflict, what the kernel still
	// carries and what is not r.Owner's.
	Release(ctx context.Context, r api.Release) (released string, err error)
	// Check compares what the nodes hold with what they run, and changes nothing. A
	// node that cannot be asked is named in the report.
	Check(ctx context.Context, thisNode bool) (api.IpamReport, error)
}
