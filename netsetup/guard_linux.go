package netsetup

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/nlx"
	"stellar.io/stellar/ipam"
)

// guardBuffer holds the one datagram that replaces the tables with 4,094 elements.
const guardBuffer = 4 << 20

// guard keeps containers from speaking for others. Its tables are all named
// stellar, one for each family that needs one:
//
//	bridge  prerouting: what a port of group 147 sends must be IPv4 or ARP with the
//	        hardware address and the address that `endpoints` has for that port
//	ip      prerouting: in routed mode the same; in bridge mode, nothing past the bridge
//	        input, forward: no container reaches an agent's ports
//	ip6     prerouting: nothing from containers
//	arp     input: nothing past the bridge; in routed mode, nothing from containers
//
// A port that is not in the set passes nothing. One element is one endpoint, so an
// attach costs one small transaction. The tables stay when the process ends; the
// next one replaces them, elements included, in one transaction.
type guard struct {
	nsfd    int
	mode    ipam.Mode
	bridge  string
	network netip.Prefix
	ports   []netip.AddrPort // the agent's own
	ipv6    bool

	mu       sync.Mutex // guards everything below and one transaction
	conn     *nlx.Conn  // kept open: dialling costs more than a transaction
	admitted map[string]admission
	names    map[int]string   // of admitted, by index
	nodes    []netip.AddrPort // ports of other nodes' agents
	written  *guardState      // what the kernel had after the last replacement; nil before
	// commits counts the transactions on elements alone, for who follows the
	// kernel's generation and need not look at these.
	commits uint32
	// generation is that of the rules as we left them: while the kernel says the
	// same, nobody has changed anything and nothing need be compared.
	generation uint32
}

// admission is one element of the set, and the link that it is for.
type admission struct {
	owner ipam.Owner
	index int
	mac   net.HardwareAddr
	addr  netip.Addr
}

func (a admission) key(name string) string { return string(endpointKey(name, a.mac, a.addr)) }

func newGuard(nsfd int, c Config, ipv6 bool) *guard {
	return &guard{
		nsfd: nsfd, mode: c.Mode, bridge: c.Bridge, network: c.Network, ports: c.AgentPorts, ipv6: ipv6,
		admitted: make(map[string]admission), names: make(map[int]string),
	}
}

// close may be called again: the number of a closed descriptor is somebody else's.
func (g *guard) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.conn != nil {
		g.conn.Close()
		g.conn = nil
	}
}

func (g *guard) dial() (*nlx.Conn, error) {
	var err error
	if g.conn == nil {
		g.conn, err = nlx.Dial(g.nsfd, unix.NETLINK_NETFILTER)
	}
	return g.conn, err
}

// admit lets a link speak for an address, and for no other: what it was allowed
// before goes in the same transaction. restored: the tables had been damaged
// and were written anew.
func (g *guard) admit(name string, a admission) (restored bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	old, had := g.admitted[name]
	if had && old.key(name) == a.key(name) {
		g.enter(name, a)
		return false, nil
	}
	c, err := g.dial()
	if err != nil {
		return false, err
	}
	msgs := g.set().Add([]byte(a.key(name)))
	if had {
		msgs = append(g.set().Delete([]byte(old.key(name))), msgs...)
	}
	g.enter(name, a)
	if err := c.Commit(msgs...); err == nil {
		g.committed()
		return false, nil
	} else if g.written == nil {
		return false, fmt.Errorf("admit %s: %w", name, err)
	}
	if err := g.replace(); err != nil {
		return false, fmt.Errorf("admit %s: %w", name, err)
	}
	return true, nil
}

func (g *guard) enter(name string, a admission) {
	if old, ok := g.admitted[name]; ok {
		delete(g.names, old.index)
	}
	g.admitted[name], g.names[a.index] = a, name
}

// admits reports whether any link may speak for an address.
func (g *guard) admits(addr netip.Addr) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, a := range g.admitted {
		if a.addr == addr {
			return true
		}
	}
	return false
}

// dismiss takes the rights of links that are gone, in one transaction.
func (g *guard) dismiss(indexes ...int) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	var keys [][]byte
	for _, index := range indexes {
		name, ok := g.names[index]
		if !ok {
			continue
		}
		keys = append(keys, []byte(g.admitted[name].key(name)))
		delete(g.names, index)
		delete(g.admitted, name)
	}
	if len(keys) == 0 {
		return nil
	}
	c, err := g.dial()
	if err != nil {
		return err
	}
	if err := c.Commit(g.set().Delete(keys...)...); err != nil {
		g.generation = 0 // somebody was there: compare at the next opportunity
		if !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("dismiss %d endpoints: %w", len(keys), err)
		}
		return nil
	}
	g.committed()
	return nil
}

func (g *guard) committed() {
	g.generation++
	g.commits++
}

// now is the kernel's moment. g.mu is held.
func (g *guard) now() (moment, error) {
	c, err := g.dial()
	if err != nil {
		return moment{}, err
	}
	generation, err := c.RulesetGeneration()
	return moment{generation, g.commits}, err
}

// moment is now for others.
func (g *guard) moment() (moment, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.now()
}

// sync makes the tables and the set what they must be: wanted completes and
// corrects admitted, given what the kernel's set has. It returns what had been
// changed by others, "" for nothing.
func (g *guard) sync(wanted func(admitted map[string]admission, inKernel map[string]bool) map[string]admission) (damage string, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now, err := g.now()
	if err != nil {
		return "", err
	}
	var have map[string]bool
	intact := true
	if g.written != nil && now.generation == g.generation { // nobody but us has changed any rule
		have = g.keys()
	} else {
		s, err := g.read()
		if err != nil {
			return "", err
		}
		have, intact = s.elements, g.written.same(s)
		if g.written == nil && g.nodes == nil {
			g.nodes = s.addrPorts() // an earlier process's, until we are told
		}
	}
	if g.written != nil && !intact {
		damage = "rules"
	} else if g.written != nil && !maps.Equal(have, g.keys()) {
		damage = "elements"
	}
	want := wanted(maps.Clone(g.admitted), have)
	g.admitted, g.names = want, make(map[int]string, len(want))
	for name, a := range want {
		g.names[a.index] = name
	}
	if g.written == nil || !intact {
		return damage, g.replace()
	}
	// What was changed after now makes the kernel's another: compared again then.
	g.generation = now.generation
	return damage, g.adjust(have)
}

// adjust changes only the elements, in one transaction.
func (g *guard) adjust(have map[string]bool) error {
	var add, del [][]byte
	want := g.keys()
	for key := range want {
		if !have[key] {
			add = append(add, []byte(key))
		}
	}
	for key := range have {
		if !want[key] {
			del = append(del, []byte(key))
		}
	}
	if len(add)+len(del) == 0 {
		return nil
	}
	if err := g.conn.Commit(slices.Concat(g.set().Delete(del...), g.set().Add(add...))...); err != nil {
		g.generation = 0
		return fmt.Errorf("adjust elements: %w", err)
	}
	g.committed()
	return nil
}

// keys are the elements that the set must have.
func (g *guard) keys() map[string]bool {
	keys := make(map[string]bool, len(g.admitted))
	for name, a := range g.admitted {
		keys[a.key(name)] = true
	}
	return keys
}

// replace writes all tables with all elements in one transaction: at no moment is
// a frame judged by less.
func (g *guard) replace() error {
	var s *guardState
	at, err := readBack(g.now, g.write, func() (err error) {
		s, err = g.read()
		return err
	})
	if err != nil {
		g.generation = 0
		return fmt.Errorf("write tables: %w", err)
	}
	g.written, g.generation = s, at.generation
	return nil
}

// write is the transaction of replace.
func (g *guard) write() error {
	c, err := g.nftables()
	if err != nil {
		return err
	}
	var elements []nftables.SetElement
	for key := range g.keys() {
		elements = append(elements, nftables.SetElement{Key: []byte(key)})
	}
	if err := (rules{guard: g, c: c}).replace(elements); err != nil {
		return err
	}
	return c.Flush()
}

func (g *guard) nftables() (*nftables.Conn, error) {
	opts := []nftables.ConnOption{nftables.WithSockOptions(func(c *netlink.Conn) error {
		_ = c.SetWriteBuffer(guardBuffer)
		return c.SetDeadline(time.Now().Add(nftTimeout))
	})}
	if g.nsfd >= 0 {
		opts = append(opts, nftables.WithNetNSFd(g.nsfd))
	}
	return nftables.New(opts...)
}

// remove deletes the tables; absent ones are no error.
func (g *guard) remove() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	c, err := g.nftables()
	if err != nil {
		return err
	}
	for _, family := range append(g.families(), nftables.TableFamilyBridge) {
		t := &nftables.Table{Name: filterTable, Family: family}
		c.AddTable(t)
		c.DelTable(t)
	}
	clear(g.admitted)
	clear(g.names)
	g.written = nil
	if err := c.Flush(); err != nil {
		return fmt.Errorf("delete tables: %w", err)
	}
	return nil
}

// changeNodes makes the set of nodes hold the sorted ports. g.mu is held.
func (g *guard) changeNodes(ports []netip.AddrPort) error {
	var add, del [][]byte
	for _, p := range ports {
		if !slices.Contains(g.nodes, p) {
			add = append(add, nodeKey(p))
		}
	}
	for _, p := range g.nodes {
		if !slices.Contains(ports, p) {
			del = append(del, nodeKey(p))
		}
	}
	g.nodes = append([]netip.AddrPort{}, ports...)
	if g.written == nil || len(add)+len(del) == 0 {
		return nil // written with everything else
	}
	c, err := g.dial()
	if err != nil {
		return err
	}
	set := nlx.Set{Family: unix.NFPROTO_IPV4, Table: filterTable, Name: nodeSet}
	if err := c.Commit(slices.Concat(set.Delete(del...), set.Add(add...))...); err != nil {
		return g.replace() // somebody was there
	}
	g.committed()
	g.written.nodes = nil
	for _, p := range ports {
		g.written.nodes = append(g.written.nodes, string(nodeKey(p)))
	}
	slices.Sort(g.written.nodes)
	return nil
}
