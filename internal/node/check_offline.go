package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/api"
	"stellar.io/stellar/internal/check"
	"stellar.io/stellar/internal/config"
	"stellar.io/stellar/internal/hold"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore"
	"stellar.io/stellar/routes"
)

// CheckOffline checks the host that it is called on while the agent does not answer,
// because of why. It reads a copy of the store and changes nothing; the caller is root.
func CheckOffline(ctx context.Context, cfg config.Config, why error) (api.CheckReport, error) {
	n := &Node{opts: Options{Config: cfg}, log: slog.New(slog.DiscardHandler)}
	g := check.Given{
		Node: cfg.NodeName, AgentDown: why.Error(), Bridge: cfg.Bridge, Masquerade: cfg.Masquerade, DataDir: cfg.DataDir,
		Containerd: check.Containerd{Address: cfg.Containerd.Address}, HoldOff: !cfg.Hold.Enabled, Ptrace: hold.Permitted(),
		Routed: cfg.AttachMode() == ipam.ModeRouted,
	}
	n.askContainerd(ctx, &g)
	if _, err := os.Stat(filepath.Join(cfg.DataDir, identityFile)); err == nil {
		if n.id, err = LoadIdentity(cfg.DataDir, ""); err != nil {
			return api.CheckReport{}, err
		}
		g.Node = n.id.Name
		if err := n.remembered(ctx, &g); err != nil {
			g.Doubts = append(g.Doubts, "store: "+err.Error())
		}
	}
	switch pid, running := agentProcess(cfg.DataDir); {
	case running:
		g.AgentDown = fmt.Sprintf("its process %s runs and hangs (%v)", pid, why)
	default:
		g.Needs = n.needs()
	}
	f, err := check.Collect(ctx, g)
	if err != nil {
		return api.CheckReport{}, err
	}
	return report(f), nil
}

// remembered fills in what the data directory says of the cluster.
func (n *Node) remembered(ctx context.Context, g *check.Given) error {
	member, err := raftstore.Initialized(n.raftDir())
	if err != nil || !member {
		return err
	}
	g.Member = true
	if h, ok := n.rememberedSubnet(); ok {
		g.Gateway = h.Subnet.Gateway()
		g.Routed = h.Subnet.Mode == ipam.ModeRouted
		g.Wants = routes.Wants{Network: h.Network.Prefix, Subnet: h.Subnet.Prefix, Device: device(h.Subnet.Mode, n.opts.Config.Bridge), Node: n.id.Name}
		g.Address, _ = netip.ParseAddrPort(h.Address)
		g.Wants.Address = g.Address.Addr()
	}
	if err := n.fence.load(n.opts.Config.DataDir); err == nil && n.fence.get() != nil {
		g.Status = append(g.Status, api.Check{Name: membershipCheck, State: api.Err, Reason: n.fence.get().Error()})
	}
	st, err := raftstore.Peek(n.storeConfig())
	if err != nil {
		return err
	}
	if !g.Wants.Network.IsValid() {
		return nil
	}
	addPeers(st, n.id.ID, &g.Wants)
	g.Wants.Complete = true
	for m := range st.Nodes() {
		if m.ID == n.id.ID || m.Removed {
			continue
		}
		q := peerOf(m.Name, m.Address, g.Wants)
		if q.Address.IsValid() {
			q.Asked, q.Silent = true, knock(ctx, q.Address)
		}
		g.Peers = append(g.Peers, q)
	}
	return nil
}

// addPeers adds what the state says of the other nodes' subnets.
func addPeers(s *ipam.State, self ipam.NodeID, w *routes.Wants) {
	for sub := range s.Subnets() {
		m, ok := s.Node(sub.Node)
		if !ok || sub.Node == self || sub.Network != ipam.DefaultNetwork || sub.State == ipam.SubnetFree {
			continue
		}
		// A peer without a good address is shown as not adjacent.
		address, _ := netip.ParseAddrPort(m.Address)
		w.Peers = append(w.Peers, routes.Peer{Node: m.Name, Subnet: sub.Prefix, Address: address.Addr(), Quarantined: sub.State == ipam.Quarantined})
	}
}

// knock says why nobody answers at a node-to-node port, "" if somebody does.
func knock(ctx context.Context, a netip.AddrPort) string {
	d := net.Dialer{Timeout: nowTimeout}
	c, err := d.DialContext(ctx, "tcp", a.String())
	if err != nil {
		return err.Error()
	}
	c.Close()
	return ""
}

// needs are the ports that the agent would listen on.
func (n *Node) needs() []check.Port {
	var out []check.Port
	if a := n.listenAddress(); a.IsValid() {
		out = append(out, check.Port{Address: a, Use: "the other nodes"})
	}
	if a := n.opts.Config.MetricsListen; a.IsValid() {
		out = append(out, check.Port{Address: a, Use: "metrics and health"})
	}
	return out
}

// lockFile is flocked, with its pid in it, by an agent that runs.
const lockFile = "lock"

// agentProcess reports whether a process has the data directory, and which.
func agentProcess(dir string) (pid string, running bool) {
	f, err := os.Open(filepath.Join(dir, lockFile))
	if err != nil {
		return "", false
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
		return "", false // closing drops the lock at once
	}
	data, err := os.ReadFile(f.Name())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "?", true
	}
	return strings.TrimSpace(string(data)), true
}
