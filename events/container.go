package events

import (
	"fmt"
	"time"
)

// NetNSKind is what a container's spec says about its network namespace.
type NetNSKind uint8

const (
	// NetNSUnknown: the record has no spec that could be read.
	NetNSUnknown NetNSKind = iota
	// NetNSNew: the runtime makes a new network namespace.
	NetNSNew
	// NetNSHost: no network namespace is asked for; the task shares the runtime's.
	NetNSHost
	// NetNSPath: the task joins the namespace at Container.NetNSPath.
	NetNSPath
)

func (k NetNSKind) String() string {
	switch k {
	case NetNSUnknown:
		return "unknown"
	case NetNSNew:
		return "new"
	case NetNSHost:
		return "host"
	case NetNSPath:
		return "path"
	}
	return fmt.Sprintf("NetNSKind(%d)", uint8(k))
}

// TaskStatus is a task's state as containerd reports it.
type TaskStatus uint8

const (
	// TaskUnknown: there is or may be a task, but its state could not be had. It proves nothing.
	TaskUnknown TaskStatus = iota
	// TaskCreated: the init process exists and is parked before its exec.
	TaskCreated
	// TaskRunning: the program was started.
	TaskRunning
	// TaskPaused: the task is paused or being paused; its processes exist.
	TaskPaused
	// TaskStopped: the init process has exited.
	TaskStopped
)

func (s TaskStatus) String() string {
	switch s {
	case TaskUnknown:
		return "unknown"
	case TaskCreated:
		return "created"
	case TaskRunning:
		return "running"
	case TaskPaused:
		return "paused"
	case TaskStopped:
		return "stopped"
	}
	return fmt.Sprintf("TaskStatus(%d)", uint8(s))
}

// Task is a container's task. PID is 0 when containerd does not know it: 0 is
// not a process.
type Task struct {
	PID    uint32
	Status TaskStatus
}

// Container is a container's record as containerd has it now. The maps are the
// caller's to read, not to change: image labels are shared between results.
type Container struct {
	Key
	Created time.Time
	Updated time.Time
	// Image is the image's name in containerd; empty with --rootfs.
	Image string
	// Labels is the whole label map, the image's labels merged in by the client.
	Labels map[string]string
	// Runtime is the runtime's name, such as io.containerd.runc.v2.
	Runtime string
	// CNI is true where the container has or will have a CNI network: its label
	// nerdctl/networks names one, or it bears ctr's CNI extension.
	CNI bool
	// Task is nil when there is no task.
	Task *Task

	// What follows is filled in by Look only, not in a Listing.

	// HasImage is false for a container without an image (--rootfs).
	HasImage bool
	// ImageLabels is what the image config itself brings; valid if ImageKnown.
	ImageLabels map[string]string
	// ImageKnown is false when there is no image or its config cannot be read now.
	ImageKnown bool
	// Annotations are the OCI annotations of the spec.
	Annotations map[string]string
	// Hostname is the spec's.
	Hostname string
	NetNS    NetNSKind
	// NetNSPath is set with NetNSPath alone.
	NetNSPath string
}

// Orphan is a task without a container record: containerd lets a record be
// deleted while its task runs.
type Orphan struct {
	Key
	Task Task
}

// Listing is everything that containerd has, the ignored namespaces left out.
// It is complete: a listing that could not be finished is never handed over.
// Tasks are read before containers, so a task that was created in between is
// not in it; its event is on its way.
type Listing struct {
	// Containers bear keys, times, labels, runtime, CNI and task; Look has the rest.
	Containers []Container
	Orphans    []Orphan
	// Namespaces are those that were listed.
	Namespaces []string
	// ServerID names this containerd's data directory. Another one means
	// another containerd: an empty listing from it proves nothing about containers
	// of the one before.
	ServerID string
	// ServerPID is the process that listens on containerd's socket.
	ServerPID int
	// At is when the listing began.
	At time.Time
	// First is true for the first listing of a connection.
	First bool
}
