package node

import (
	"fmt"
	"sync/atomic"
	"time"

	"stellar.io/stellar/agent"
	"stellar.io/stellar/events"
	"stellar.io/stellar/internal/failpoint"
	"stellar.io/stellar/internal/hold"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/netsetup"
	"stellar.io/stellar/raftstore"
)

// storeConfig says where the replicated state is and who this node is in it.
func (n *Node) storeConfig() raftstore.Config {
	c := raftstore.DefaultConfig()
	c.Dir, c.NodeID, c.Logger = n.raftDir(), n.id.ID, n.log
	if failpoint.Enabled { // the suite is to see snapshots
		c.SnapshotThreshold, c.SnapshotInterval, c.TrailingLogs = 16, time.Second, 16
	}
	c.OnPropose = n.meters.proposed
	return c
}

// netConfig says what the kernel is to have. Repairs and losses go to the
// agent, once there is one.
func (n *Node) netConfig(p *parts) netsetup.Config {
	var uplinks []string
	if u := n.uplink(); u != "" {
		uplinks = []string{u}
	}
	return netsetup.Config{
		Uplinks: uplinks,
		Node:    n.id.ID, Network: p.network.Prefix, Subnet: p.subnet.Prefix, Gateway: p.subnet.Gateway(),
		Mode: p.subnet.Mode, MTU: n.opts.Config.MTU, Bridge: n.opts.Config.Bridge, Masquerade: n.opts.Config.Masquerade,
		AgentPorts:    n.agentPorts(),
		Logger:        n.log,
		ForbiddenPIDs: n.containerdPID.list,
		OnRepair: func(what, subject string) {
			n.meters.repairs.WithLabelValues(what).Inc()
			if p, _ := n.current(); p != nil {
				p.agent.Record("repair", subject, what+" restored")
			}
		},
		OnLost: func(e netsetup.Endpoint) {
			if p, _ := n.current(); p != nil {
				p.agent.Lost(e.Owner, e.HostIfname+" has disappeared")
			}
		},
	}
}

// containerd returns the client of containerd's API.
func (n *Node) containerd() (*events.Client, error) {
	c := events.DefaultConfig()
	c.Address = n.opts.Config.Containerd.Address
	c.IgnoreNamespaces = n.opts.Config.Containerd.IgnoreNamespaces
	c.Logger = n.log
	if c.IgnoreNamespaces == nil {
		c.IgnoreNamespaces = []string{}
	}
	client, err := events.New(c)
	if err != nil {
		return nil, fmt.Errorf("containerd: %w", err)
	}
	return client, nil
}

// pid is a process that others read: containerd's, whose namespace is refused.
type pid struct{ v atomic.Int64 }

func (p *pid) list() []int {
	if v := int(p.v.Load()); v > 0 {
		return []int{v}
	}
	return nil
}

// containerdSink is the agent, told by the way which process containerd is.
type containerdSink struct {
	*agent.Agent
	pid  *pid
	hold *hold.Holder
}

// Synced implements events.Sink.
func (s containerdSink) Synced(l events.Listing) {
	s.pid.v.Store(int64(l.ServerPID))
	s.Agent.Synced(l)
}

// member is how this node presents itself to the cluster, but for its mode.
func (n *Node) member() ipam.RegisterNode {
	address := ""
	if a := n.advertised(); a.IsValid() {
		address = a.String()
	}
	return ipam.RegisterNode{
		Node: n.id.ID, Name: n.id.Name, MachineID: n.id.Machine, Address: address,
		Version: n.opts.Version.Version,
	}
}
