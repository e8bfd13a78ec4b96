package netsetup

import "errors"

var (
	// ErrInvalid is returned when a Spec or Config cannot be right whatever the kernel holds.
	ErrInvalid = errors.New("invalid network setup")
	// ErrNoSubnet is returned by Ensure, Run and Attach of a Network that was
	// made without a subnet; opening namespaces, List, Detach and Cleanup work.
	ErrNoSubnet = errors.New("no subnet configured")
	// ErrHostNamespace is returned when a namespace is the host's, the agent's,
	// containerd's or that of PID 1. It is never touched.
	ErrHostNamespace = errors.New("host network namespace")
	// ErrProcessGone is returned when the process has exited.
	ErrProcessGone = errors.New("process is gone")
	// ErrPIDReused is returned when the process started after the task it is said to be.
	ErrPIDReused = errors.New("process id belongs to a younger process")
	// ErrNotNamespace is returned when what was named is no network namespace; pid 0 is none.
	ErrNotNamespace = errors.New("not a network namespace")
	// ErrInterfaceExists is returned when the container has an interface of the
	// wanted name that is not ours.
	ErrInterfaceExists = errors.New("interface exists in the container")
	// ErrDefaultRouteExists is returned when a default route is wanted and the
	// container has one that is not ours. Nothing of the attachment stays.
	ErrDefaultRouteExists = errors.New("container has a default route")
	// ErrRouteExists is returned when the container has a route of its own to the
	// cluster network. Nothing of the attachment stays.
	ErrRouteExists = errors.New("container has a route to the network")
	// ErrFull is returned when the node has as many endpoints as its mode and subnet carry.
	ErrFull = errors.New("node is full")
	// ErrHostRoute is returned when the host has a route to the address that is not the
	// endpoint's own. Nothing of the attachment stays.
	ErrHostRoute = errors.New("host has another route to the address")
	// ErrOtherMode is returned when the kernel has endpoints of the other mode: they
	// have to be detached first.
	ErrOtherMode = errors.New("endpoints of the other mode are attached")
	// ErrNotRunning is returned when a pair is up but the kernel finds no carrier.
	ErrNotRunning = errors.New("link is not running")
	// ErrForeignBridge is returned when an interface with the bridge's name
	// exists that is not a bridge of ours.
	ErrForeignBridge = errors.New("interface is not our bridge")
	// ErrNotGone is returned when a link could not be confirmed to be deleted;
	// its address must not be reused.
	ErrNotGone = errors.New("link is not confirmed gone")
)
