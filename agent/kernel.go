package agent

import (
	"context"
	"time"

	"stellar.io/stellar/ipam"
	"stellar.io/stellar/netsetup"
)

// Network is the kernel's side. All methods are idempotent.
type Network interface {
	// OpenPID opens a task's init process and its namespace, through the gate.
	OpenPID(pid int, startedBefore time.Time) (Process, error)
	// OpenPath opens a namespace without a process, through the gate.
	OpenPath(path string) (Process, error)
	// Detach removes the owner's endpoint and confirms that it is gone.
	Detach(ctx context.Context, o ipam.Owner) error
	List(ctx context.Context) ([]netsetup.Endpoint, error)
	// Inhabited reports whether a process lives in the namespace of the owner's endpoint.
	Inhabited(ctx context.Context, o ipam.Owner) (bool, error)
}

// Process is the init process of a task and, until CloseNS, its network
// namespace. See netsetup.Namespace, which it is.
type Process interface {
	PID() int
	ID() netsetup.NSID // of the namespace
	Exited() bool
	WaitExit(ctx context.Context) error
	Parked() bool
	// Attach makes the endpoint in the namespace, or finds it there; s.NS is filled in.
	Attach(ctx context.Context, s netsetup.Spec) (netsetup.Endpoint, netsetup.Timing, error)
	// Endpoint is the one that leads to the namespace, whoever owns it.
	Endpoint(ctx context.Context) (netsetup.Endpoint, bool, error)
	CloseNS() error
	Close() error
}

// Kernel makes the Network of an Agent from the real one.
func Kernel(n *netsetup.Network) Network { return kernel{n} }

type kernel struct{ *netsetup.Network }

func (k kernel) OpenPID(pid int, startedBefore time.Time) (Process, error) {
	ns, err := k.Network.OpenPID(pid, startedBefore)
	if err != nil {
		return nil, err
	}
	return process{ns, k.Network}, nil
}

func (k kernel) OpenPath(path string) (Process, error) {
	ns, err := k.Network.OpenPath(path)
	if err != nil {
		return nil, err
	}
	return process{ns, k.Network}, nil
}

type process struct {
	*netsetup.Namespace
	net *netsetup.Network
}

func (p process) Attach(ctx context.Context, s netsetup.Spec) (netsetup.Endpoint, netsetup.Timing, error) {
	s.NS = p.Namespace
	return p.net.Attach(ctx, s)
}

func (p process) Endpoint(ctx context.Context) (netsetup.Endpoint, bool, error) {
	return p.net.EndpointIn(ctx, p.Namespace)
}
