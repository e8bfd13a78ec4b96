package events

import (
	"errors"
	"fmt"
	"time"

	eventtypes "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/typeurl/v2"
)

// Outcomes of decode that are no hint.
var (
	errUnknownTopic = errors.New("unknown topic")
	errExecEvent    = errors.New("event of an exec process")
)

// decode makes a hint of an envelope. It returns errUnknownTopic,
// errExecEvent, or another error for an envelope that is not what its topic
// says. It never panics, whatever the envelope holds.
func decode(env *types.Envelope, received time.Time) (Hint, error) {
	h := Hint{
		Key:      Key{Namespace: env.GetNamespace()},
		Topic:    Topic(env.GetTopic()),
		Time:     asTime(env.GetTimestamp()),
		Received: received,
	}
	if err := h.fill(env.GetEvent()); err != nil {
		return Hint{}, err
	}
	if !validIdentifier(h.Key.Namespace) {
		return Hint{}, fmt.Errorf("%s: bad namespace %.80q", h.Topic, h.Key.Namespace)
	}
	if h.Topic != NamespaceDelete && !validIdentifier(h.Key.ID) {
		return Hint{}, fmt.Errorf("%s: bad container id %.80q", h.Topic, h.Key.ID)
	}
	return h, nil
}

// fill reads the event that h.Topic promises.
func (h *Hint) fill(event typeurl.Any) error {
	switch h.Topic {
	case ContainerCreate:
		var e eventtypes.ContainerCreate
		return h.read(event, &e, func() { h.Key.ID = e.GetID() })
	case ContainerUpdate:
		var e eventtypes.ContainerUpdate
		return h.read(event, &e, func() { h.Key.ID = e.GetID() })
	case ContainerDelete:
		var e eventtypes.ContainerDelete
		return h.read(event, &e, func() { h.Key.ID = e.GetID() })
	case TaskCreate:
		var e eventtypes.TaskCreate
		return h.read(event, &e, func() {
			h.Key.ID, h.PID, h.Bundle, h.Checkpoint = e.GetContainerID(), e.GetPid(), e.GetBundle(), e.GetCheckpoint() != ""
		})
	case TaskStart:
		var e eventtypes.TaskStart
		return h.read(event, &e, func() { h.Key.ID, h.PID = e.GetContainerID(), e.GetPid() })
	case TaskExit:
		var e eventtypes.TaskExit
		if err := h.read(event, &e, func() { h.Key.ID, h.PID = e.GetContainerID(), e.GetPid() }); err != nil {
			return err
		}
		return ofInit(e.GetID(), e.GetContainerID(), false)
	case TaskDelete:
		var e eventtypes.TaskDelete
		if err := h.read(event, &e, func() { h.Key.ID, h.PID = e.GetContainerID(), e.GetPid() }); err != nil {
			return err
		}
		// The runc shim leaves the id out; others may fill it, for execs as well.
		return ofInit(e.GetID(), e.GetContainerID(), true)
	case NamespaceDelete:
		var e eventtypes.NamespaceDelete
		return h.read(event, &e, func() { h.Key.Namespace = e.GetName() })
	}
	return errUnknownTopic
}

func (h *Hint) read(event typeurl.Any, into any, use func()) error {
	if err := typeurl.UnmarshalTo(event, into); err != nil {
		return fmt.Errorf("%s: %w", h.Topic, err)
	}
	use()
	return nil
}

// ofInit returns errExecEvent unless id means the init process of container.
func ofInit(id, container string, emptyIsInit bool) error {
	if id == container || (emptyIsInit && id == "") {
		return nil
	}
	return errExecEvent
}
