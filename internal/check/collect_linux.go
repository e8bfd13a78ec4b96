package check

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/api"
	"stellar.io/stellar/internal/nlx"
	"stellar.io/stellar/netsetup"
	"stellar.io/stellar/routes"
)

// Given is what the caller of Collect knows of the node: the kernel does not say it.
type Given struct {
	Node       string
	Member     bool
	AgentDown  string      // as Facts.AgentDown
	Status     []api.Check // as Facts.Status
	Bridge     string
	Routed     bool // the node's mode
	Masquerade bool
	Wants      routes.Wants // zero Network: the node belongs to no cluster yet
	Gateway    netip.Addr
	Address    netip.AddrPort
	Peers      []Peer
	MACs       map[netip.Addr]string // as Facts.MACs
	Containerd Containerd
	Ptrace     string
	HoldOff    bool
	DataDir    string
	// Needs are the ports that the agent would listen on; nil while it runs.
	Needs  []Port
	Doubts []string
}

const (
	// settle is how long a link that has just been made may take to come up.
	settle = 500 * time.Millisecond
	// rootEnv names a directory that stands for / where network managers and containerd's
	// configuration are looked for.
	rootEnv = "STELLAR_CHECK_ROOT"
)

// Collect gathers the facts of the network namespace it is called in. It goes on past
// what it cannot learn, names that in Doubts, and changes nothing; it sends a few ARP
// requests.
func Collect(ctx context.Context, g Given) (Facts, error) {
	f := Facts{
		Node: g.Node, Member: g.Member, AgentDown: g.AgentDown, Status: g.Status, Bridge: g.Bridge, Routed: g.Routed, MACs: g.MACs, Masquerade: g.Masquerade,
		Network: g.Wants.Network, Subnet: g.Wants.Subnet, Gateway: g.Gateway, Address: g.Address, Peers: g.Peers, Doubts: g.Doubts,
	}
	c := &collector{f: &f, g: g}
	conn, err := nlx.Dial(-1, unix.NETLINK_ROUTE)
	if err != nil {
		return f, err
	}
	defer conn.Close()
	c.conn = conn
	if err := c.host(ctx); err != nil {
		return f, err
	}
	c.doubt("routes", c.routes())
	c.uplinks()
	c.doubt("rules", c.rules())
	c.ways()
	c.sysctls()
	c.doubt("neighbours", c.neighbours())
	c.doubt("filters", c.filters(ctx))
	c.doubt("guard", c.guard(ctx))
	c.doubt("tc", c.traffic())
	c.doubt("ipsec", c.ipsec())
	c.doubt("arp", c.answers(ctx))
	c.doubt("containers' neighbours", c.residents(ctx))
	c.doubt("runtime", c.runtimes(ctx))
	c.machine()
	return f, ctx.Err()
}

type collector struct {
	f    *Facts
	g    Given
	conn *nlx.Conn
}

func (c *collector) doubt(what string, err error) {
	if err != nil {
		c.f.Doubts = append(c.f.Doubts, fmt.Sprintf("%s: %v", what, err))
	}
}

// host reads links, addresses and endpoints. A link that is not quite up gets a moment:
// a container may be starting just now.
func (c *collector) host(ctx context.Context) (err error) {
	for try := range 2 {
		if c.f.Links, err = c.conn.Links(); err != nil {
			return err
		}
		if c.f.Addrs, err = c.conn.Addrs(0); err != nil {
			return err
		}
		if c.f.Endpoints, err = netsetup.Look(-1); err != nil {
			return err
		}
		starting := slices.ContainsFunc(c.f.Endpoints, func(e netsetup.Endpoint) bool {
			l, ok := c.f.link(e.HostIfname)
			return ok && (!l.Running || l.Master == 0 && !c.f.Routed)
		})
		if !starting || try > 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(settle):
		}
	}
	return nil
}

// routes asks package routes how things stand. What the agent is putting right just
// now gets a moment, too.
func (c *collector) routes() (err error) {
	w := c.g.Wants
	if !w.Network.IsValid() {
		return nil
	}
	for try := range 2 {
		if c.f.Routes, c.f.Conditions, err = routes.Look(-1, w); err != nil {
			return err
		}
		if try > 0 || !slices.ContainsFunc(c.f.Routes, func(s routes.Status) bool { return s.State == routes.Missing }) {
			break
		}
		time.Sleep(settle)
	}
	return nil
}

// uplinks are the interfaces with this node's own address, those that lead to peers
// and those of the default routes. Peers send to the first, answers from outside come
// by the last.
func (c *collector) uplinks() {
	add := func(name string, arrival bool) {
		if name == "" || name == c.f.Bridge || name == "lo" {
			return
		}
		if !slices.Contains(c.f.Uplinks, name) {
			c.f.Uplinks = append(c.f.Uplinks, name)
		}
		if arrival && !slices.Contains(c.f.Arrivals, name) {
			c.f.Arrivals = append(c.f.Arrivals, name)
		}
	}
	for _, a := range c.f.Addrs {
		if a.Prefix.Addr() == c.f.Address.Addr() {
			add(c.f.linkName(a.Index), true)
		}
	}
	for _, r := range c.f.Routes {
		if r.Kind == routes.Via {
			add(r.Device, false)
		}
	}
	if list, err := c.conn.Routes(0); err == nil {
		for _, r := range list {
			if r.Default() && r.Index != 0 {
				add(c.f.linkName(r.Index), true)
			}
		}
	}
}

func (c *collector) rules() (err error) {
	if c.f.Tables, err = c.conn.AllRoutes(); err != nil {
		return err
	}
	c.f.Rules, err = c.conn.PolicyRules()
	return err
}

// ways asks the kernel about packets of containers to each peer.
func (c *collector) ways() {
	if !c.f.Subnet.IsValid() {
		return
	}
	from := c.f.guests()[0]
	door, ok := c.f.link(c.f.door(from))
	if !ok {
		return
	}
	for _, p := range c.f.Peers {
		if !p.Subnet.IsValid() || len(c.f.Ways) == samples {
			continue
		}
		a, err := c.conn.LookupRoute(nlx.Query{Dst: p.Subnet.Addr().Next().Next(), Src: from.addr, In: door.Index})
		if err != nil {
			c.doubt("route to "+p.Subnet.String(), err)
			continue
		}
		c.f.Ways = append(c.f.Ways, Way{p, a.Lookup, a.Table})
	}
}

// sysctls are read from the namespace of the calling thread.
func (c *collector) sysctls() {
	read := func(path string) (string, bool) {
		data, err := os.ReadFile("/proc/sys/net/" + path)
		return strings.TrimSpace(string(data)), err == nil
	}
	c.f.Forwarding = map[string]bool{}
	for _, name := range append(c.f.doors(), c.f.Arrivals...) {
		if v, ok := read("ipv4/conf/" + name + "/forwarding"); ok {
			c.f.Forwarding[name] = v == "1"
		}
	}
	v, ok := read("bridge/bridge-nf-call-iptables")
	c.f.BrNetfilter = ok && v == "1"
	if v, ok := read("ipv4/neigh/default/gc_thresh3"); ok {
		_, _ = fmt.Sscan(v, &c.f.Machine.NeighbourLimit) // 0: not known
	}
}

func (c *collector) neighbours() (err error) {
	if c.f.Neighbours, err = c.conn.Neighbours(); err != nil {
		return err
	}
	entries, err := c.conn.BridgeEntries()
	if err != nil {
		return err
	}
	bridge, ok := c.f.link(c.f.Bridge)
	for _, n := range entries {
		if ok && n.Bridge == bridge.Index && n.State&(unix.NUD_PERMANENT|unix.NUD_NOARP) != 0 {
			c.f.FDB = append(c.f.FDB, n)
		}
	}
	return nil
}

// traffic reads the filters of tc at the hosts' ends, where only Stellar has a say.
func (c *collector) traffic() error {
	c.f.Traffic = map[string][]nlx.TrafficFilter{}
	for _, e := range c.f.Endpoints {
		found, err := c.conn.TrafficFilters(e.HostIndex)
		if errors.Is(err, unix.ENODEV) {
			continue
		}
		if err != nil {
			return err
		}
		if len(found) > 0 {
			c.f.Traffic[e.HostIfname] = found
		}
	}
	return nil
}

func (c *collector) ipsec() error {
	conn, err := nlx.Dial(-1, unix.NETLINK_XFRM)
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil // a kernel without IPsec
	}
	if err != nil {
		return err
	}
	defer conn.Close()
	c.f.Blocks, err = conn.BlockPolicies()
	return err
}
