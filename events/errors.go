package events

import "errors"

var (
	// ErrNotFound is returned when a connected containerd has no record for
	// exactly the key that was asked for.
	ErrNotFound = errors.New("container not found")
	// ErrNotConnected is returned when containerd cannot be reached, or answered
	// while its event stream was not proven. It says nothing about the container.
	ErrNotConnected = errors.New("not connected to containerd")
	// ErrStreamSilent is reported when containerd stopped sending our own probe events back.
	ErrStreamSilent = errors.New("containerd's event stream is silent")
)
