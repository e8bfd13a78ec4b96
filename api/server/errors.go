package server

import "errors"

// ErrInUse is returned by Listen when another process serves the socket.
var ErrInUse = errors.New("another agent is listening there")

const hintEndpoint = "`stellar endpoint ls` shows the endpoints of this node"
