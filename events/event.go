// Package events turns containerd into this project's own words. It is the
// only importer of containerd's modules, and of those only of the thin gRPC
// API, which every containerd from 1.6 to 2.x serves.
//
// Its two promises:
//
//   - An event is a hint. A [Hint] names a container that something happened
//     to and decides nothing; hints may be missing, doubled or out of order.
//     What is true is what [Client.Look] and a [Listing] say.
//   - Nothing is missed for longer than one relist. A listing is taken only
//     after the subscription was proven to be in place (by an event of our own
//     that came back through it), and again every Config.RelistEvery and after
//     every reconnect.
//
// Absence is only reported as a fact ([ErrNotFound]) when a server with a
// proven event stream says so for exactly the key that was asked for.
package events

import (
	"time"
)

// Key names a container: ids are unique inside one containerd namespace only,
// and may be used again after a delete. Container.Created tells such twins apart.
type Key struct {
	Namespace string
	ID        string
}

func (k Key) String() string { return k.Namespace + "/" + k.ID }

// Topic is what a hint is about. The values are containerd's own topics.
type Topic string

// The topics that are subscribed to.
const (
	ContainerCreate Topic = "/containers/create"
	ContainerUpdate Topic = "/containers/update"
	ContainerDelete Topic = "/containers/delete"
	TaskCreate      Topic = "/tasks/create"
	TaskStart       Topic = "/tasks/start"
	TaskExit        Topic = "/tasks/exit"
	TaskDelete      Topic = "/tasks/delete"
	// NamespaceDelete hints carry the namespace alone; Key.ID is empty.
	NamespaceDelete Topic = "/namespaces/delete"
)

// Topics lists every topic that a Hint can have.
func Topics() []Topic {
	return []Topic{
		ContainerCreate, ContainerUpdate, ContainerDelete,
		TaskCreate, TaskStart, TaskExit, TaskDelete, NamespaceDelete,
	}
}

// Hint says that something happened to Key. Exits and deletes of exec
// processes never become hints.
type Hint struct {
	Key   Key
	Topic Topic
	// PID is the init process of the task topics; 0 where the event has none.
	// A restored checkpoint announces 0 in TaskCreate.
	PID uint32
	// Bundle is the OCI bundle directory that TaskCreate names; else empty.
	Bundle string
	// Checkpoint is set on the TaskCreate of a restored checkpoint.
	Checkpoint bool
	// Time is when containerd (or the shim) stamped the event; zero if it did not.
	Time time.Time
	// Received is when this process had read it.
	Received time.Time
}

// Sink takes what a Client finds. Its methods are called from the goroutines
// of Client.Run, Hint from the one that reads the stream, so none may block:
// containerd queues without limit for a subscriber that does not read.
// Hint is called concurrently with the other two. Connected(true) comes before
// the first Synced of a connection.
type Sink interface {
	Hint(Hint)
	// Synced hands over a full listing.
	Synced(Listing)
	// Connected reports each change of the connection's state, and the first
	// failure to connect. The error is nil exactly when connected is true.
	Connected(connected bool, err error)
}
