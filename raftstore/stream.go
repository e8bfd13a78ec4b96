package raftstore

import (
	"net"
	"time"

	"github.com/hashicorp/raft"
)

// streams lets the library use a StreamLayer.
type streams struct{ StreamLayer }

// Dial implements raft.StreamLayer.
func (s streams) Dial(a raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return s.StreamLayer.Dial(string(a), timeout)
}

func newNetworkTransport(cfg Config) *raft.NetworkTransport {
	return raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: streams{cfg.Streams}, Logger: newHCLog(cfg.Logger),
		MaxPool: 3, Timeout: 10 * time.Second, MsgpackUseNewTimeFormat: true,
	})
}
