package netsetup

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/nlx"
	"stellar.io/stellar/ipam"
)

const (
	// endpointSet says who may send what: interface, hardware address, address.
	endpointSet = "endpoints"
	// nodeSet lists ports of other nodes that are no container's business.
	nodeSet = "nodes"

	chainFirst    = "prerouting"
	chainEndpoint = "endpoint"
	chainInput    = "input"
	chainAgent    = "agent"

	// leavingGroup is set in the groups to which deleteLinks moves what it is
	// about to delete; from then on nothing passes.
	leavingGroup = 1 << 30

	dhcpServerPort = 67

	hookARPInput = 0 // NF_ARP_IN of linux/netfilter_arp.h
)

// guardPriority is before connection tracking, br_netfilter and everything that
// is usual.
var guardPriority = nftables.ChainPriorityRef(-400)

// Offsets in headers, and the registers that together are the key of the set.
const (
	offsetEtherSaddr = 6
	offsetEtherType  = 12
	offsetProtocol   = 9
	offsetArpSha     = 8
	offsetArpSpa     = 14

	registerName = unix.NFT_REG_1
	registerMAC  = unix.NFT_REG_2
	registerAddr = unix.NFT_REG32_06
)

// endpointKey is an element of endpointSet: each field fills whole registers.
func endpointKey(name string, mac net.HardwareAddr, addr netip.Addr) []byte {
	key := append(ifname(name), make([]byte, 12)...)
	copy(key[16:], mac)
	copy(key[24:], addr.AsSlice())
	return key
}

// splitKey is the inverse of endpointKey.
func splitKey(key []byte) (name string, mac net.HardwareAddr, addr netip.Addr, ok bool) {
	if len(key) != 28 {
		return "", nil, netip.Addr{}, false
	}
	return unix.ByteSliceToString(key[:16]), slices.Clone(net.HardwareAddr(key[16:22])), netip.AddrFrom4([4]byte(key[24:])), true
}

// rules writes the tables of a guard into one transaction.
type rules struct {
	*guard
	c *nftables.Conn
	t *nftables.Table // the table being written
	// parts lists what was written; nil: nobody asks.
	parts *[]guardPart
}

func (g *guard) families() []nftables.TableFamily {
	f := []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyARP}
	if g.mode == ipam.ModeBridge {
		f = append(f, nftables.TableFamilyBridge)
	}
	if g.ipv6 {
		f = append(f, nftables.TableFamilyIPv6)
	}
	return f
}

// setFamily is the family of the table with the set of endpoints.
func (g *guard) setFamily() nftables.TableFamily {
	if g.mode == ipam.ModeBridge {
		return nftables.TableFamilyBridge
	}
	return nftables.TableFamilyIPv4
}

func (g *guard) set() nlx.Set {
	return nlx.Set{Family: byte(g.setFamily()), Table: filterTable, Name: endpointSet}
}

// replace puts the tables as a whole into the transaction: add, delete, add, for
// the delete needs a table to be there.
func (r rules) replace(elements []nftables.SetElement) error {
	if r.mode == ipam.ModeRouted {
		r.leaveBridge()
	}
	return r.tables(elements)
}

func (r rules) tables(elements []nftables.SetElement) error {
	for _, family := range r.families() {
		r.t = &nftables.Table{Name: filterTable, Family: family}
		r.c.AddTable(r.t)
		r.c.DelTable(r.t)
		r.t = r.c.AddTable(r.t)
		r.note(guardPart{family: family})
		var err error
		switch family {
		case nftables.TableFamilyBridge:
			err = r.bridgeTable(elements)
		case nftables.TableFamilyIPv4:
			err = r.ipTable(elements)
		case nftables.TableFamilyIPv6:
			r.add(r.base(chainFirst, nftables.ChainHookPrerouting, guardPriority), "containers have no IPv6", fromOurs(), drop())
		case nftables.TableFamilyARP:
			r.arpTable()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// leaveBridge deletes the table that bridge mode has left. A kernel may lack that
// family, so it is named only when there is something.
func (r rules) leaveBridge() {
	tables, err := r.c.ListTablesOfFamily(nftables.TableFamilyBridge)
	if err != nil {
		return // no such family, no such table
	}
	for _, t := range tables {
		if t.Name == filterTable {
			r.c.DelTable(t)
		}
	}
}

// bridgeTable judges every frame that a port of ours hands to the bridge. The
// tag of a VLAN is part of what is read as the Ethernet header.
func (r rules) bridgeTable(elements []nftables.SetElement) error {
	first := r.base(chainFirst, nftables.ChainHookPrerouting, guardPriority)
	endpoint := r.chain(&nftables.Chain{Name: chainEndpoint, Table: r.t})
	set, err := r.endpoints(elements)
	if err != nil {
		return err
	}
	r.add(first, "from containers", fromOurs(), []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: endpoint.Name}})
	r.add(first, "links that are being deleted", leaving(), drop())
	r.senders(endpoint, set)
	r.add(endpoint, "ARP that speaks for itself",
		etherType(unix.ETH_P_ARP),
		equals(load(expr.PayloadBaseNetworkHeader, 0, 6), []byte{0, 1, 8, 0, 6, 4}), // Ethernet, IPv4 and their lengths
		lookup(set, offsetEtherSaddr, expr.PayloadBaseLLHeader, offsetArpSpa),
		lookup(set, offsetArpSha, expr.PayloadBaseNetworkHeader, offsetArpSpa),
		accept())
	r.add(endpoint, "everything else", counted(), drop())
	// Frames to these addresses are for the bridge itself and pass no other hook.
	r.add(r.base(chainInput, nftables.ChainHookInput, guardPriority), "link-local groups", fromOurs(),
		equals(load(expr.PayloadBaseLLHeader, 0, 5), []byte{0x01, 0x80, 0xc2, 0, 0}), counted(), drop())
	return nil
}

// senders accepts IPv4 packets of which hardware address and address are the
// endpoint's, unless they come from a DHCP server. Of UDP, what has no readable
// port passes only as a later fragment.
func (r rules) senders(chain *nftables.Chain, set *nftables.Set) {
	ip := func() []expr.Any { return etherType(unix.ETH_P_IP) }
	protocol := func(op expr.CmpOp) []expr.Any {
		return compare(load(expr.PayloadBaseNetworkHeader, offsetProtocol, 1), op, []byte{unix.IPPROTO_UDP})
	}
	sender := lookup(set, offsetEtherSaddr, expr.PayloadBaseLLHeader, offsetSaddr)
	r.add(chain, "IPv4 that speaks for itself", ip(), protocol(expr.CmpOpNeq), sender, accept())
	r.add(chain, "UDP, but no DHCP server", ip(), protocol(expr.CmpOpEq),
		compare(load(expr.PayloadBaseTransportHeader, 0, 2), expr.CmpOpNeq, binary.BigEndian.AppendUint16(nil, dhcpServerPort)),
		sender, accept())
	r.add(chain, "later fragments of UDP", ip(), protocol(expr.CmpOpEq),
		load(expr.PayloadBaseNetworkHeader, 6, 2),
		[]expr.Any{
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 2, Mask: []byte{0x1f, 0xff}, Xor: []byte{0, 0}},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{0, 0}},
		}, sender, accept())
}

// ipTable keeps containers from the agents' ports, those of this node and of the
// others. In bridge mode a packet that a port of ours hands to the host, not to
// the bridge, came by a link-local group that the bridge leaves to the host.
func (r rules) ipTable(elements []nftables.SetElement) error {
	first := r.base(chainFirst, nftables.ChainHookPrerouting, guardPriority)
	if r.mode == ipam.ModeBridge {
		r.add(first, "past the bridge", fromOurs(), notBy(r.bridge), counted(), drop())
	} else {
		endpoint := r.chain(&nftables.Chain{Name: chainEndpoint, Table: r.t})
		set, err := r.endpoints(elements)
		if err != nil {
			return err
		}
		r.add(first, "from containers", fromOurs(), []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: endpoint.Name}})
		r.senders(endpoint, set)
		r.add(endpoint, "everything else", counted(), drop())
	}
	r.add(first, "links that are being deleted", leaving(), drop())

	agent := r.chain(&nftables.Chain{Name: chainAgent, Table: r.t})
	for _, p := range r.ports {
		var at []expr.Any
		if !p.Addr().IsUnspecified() {
			at = matchPrefix(offsetDaddr, expr.CmpOpEq, netip.PrefixFrom(p.Addr().Unmap(), 32))
		}
		r.add(agent, "the agent's port", tcpTo(p.Port()), at, counted(), drop())
	}
	input := r.base(chainInput, nftables.ChainHookInput, nftables.ChainPriorityFilter)
	jump := []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: agent.Name}}
	r.add(input, "from this node's containers", fromOurs(), jump)
	r.add(input, "from other nodes' containers", notBy("lo"),
		matchPrefix(offsetSaddr, expr.CmpOpEq, r.network), jump)

	return r.forwardChain()
}

// forwardChain is the part that the masquerade makes necessary: to another node a
// container looks like its own node.
func (r rules) forwardChain() error {
	nodes := &nftables.Set{
		Table: r.t, Name: nodeSet, ID: nodeSetID, Concatenation: true,
		KeyType: nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService),
	}
	var elements []nftables.SetElement
	for _, p := range r.nodes {
		elements = append(elements, nftables.SetElement{Key: nodeKey(p)})
	}
	if err := r.addSet(nodes, elements); err != nil {
		return err
	}
	r.add(r.base(chainGuard, nftables.ChainHookForward, nftables.ChainPriorityFilter), "other agents' ports", fromOurs(), isTCP(),
		[]expr.Any{
			&expr.Payload{DestRegister: unix.NFT_REG_1, Base: expr.PayloadBaseNetworkHeader, Offset: offsetDaddr, Len: 4},
			&expr.Payload{DestRegister: unix.NFT_REG32_01, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
			&expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: nodes.Name, SetID: nodes.ID},
		}, counted(), drop())
	return nil
}

func nodeKey(p netip.AddrPort) []byte {
	key := p.Addr().Unmap().AsSlice()
	return append(binary.BigEndian.AppendUint16(key, p.Port()), 0, 0)
}

// arpTable keeps from the host what did not come through the bridge. In routed
// mode both sides have permanent neighbours and nobody asks.
func (r rules) arpTable() {
	input := r.base(chainInput, nftables.ChainHookRef(hookARPInput), nftables.ChainPriorityFilter)
	from := fromOurs()
	if r.mode == ipam.ModeBridge {
		from = slices.Concat(from, notBy(r.bridge))
	}
	r.add(input, "past the bridge", from, counted(), drop())
	r.add(input, "links that are being deleted", leaving(), drop())
}

func (r rules) base(name string, hook *nftables.ChainHook, priority *nftables.ChainPriority) *nftables.Chain {
	return r.chain(&nftables.Chain{Name: name, Table: r.t, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: priority})
}

func (r rules) chain(ch *nftables.Chain) *nftables.Chain {
	r.note(chainPart(r.t.Family, ch))
	return r.c.AddChain(ch)
}

func (r rules) add(chain *nftables.Chain, what string, parts ...[]expr.Any) {
	r.note(guardPart{family: r.t.Family, chain: chain.Name, rule: what})
	r.c.AddRule(&nftables.Rule{Table: r.t, Chain: chain, UserData: comment(what), Exprs: slices.Concat(parts...)})
}

func (r rules) note(p guardPart) {
	if r.parts != nil {
		*r.parts = append(*r.parts, p)
	}
}

func (r rules) endpoints(elements []nftables.SetElement) (*nftables.Set, error) {
	set := &nftables.Set{
		Table: r.t, Name: endpointSet, ID: endpointSetID, Concatenation: true,
		KeyType: nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeEtherAddr, nftables.TypeIPAddr),
	}
	return set, r.addSet(set, elements)
}

// addSet adds the set and its elements in messages that are not too long.
func (r rules) addSet(set *nftables.Set, elements []nftables.SetElement) error {
	if err := r.c.AddSet(set, nil); err != nil {
		return err
	}
	for part := range slices.Chunk(elements, 500) {
		if err := r.c.SetAddElements(set, part); err != nil {
			return err
		}
	}
	return nil
}

func accept() []expr.Any  { return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}} }
func drop() []expr.Any    { return []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}} }
func counted() []expr.Any { return []expr.Any{&expr.Counter{}} }

// fromOurs matches what comes in by a link with our mark.
func fromOurs() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFGROUP, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.NativeEndian.AppendUint32(nil, linkGroup)},
	}
}

func leaving() []expr.Any {
	mask := binary.NativeEndian.AppendUint32(nil, leavingGroup)
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFGROUP, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

func notBy(name string) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: ifname(name)},
	}
}

func load(base expr.PayloadBase, offset, length uint32) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: 1, Base: base, Offset: offset, Len: length}}
}

func compare(loaded []expr.Any, op expr.CmpOp, data []byte) []expr.Any {
	return append(loaded, &expr.Cmp{Op: op, Register: 1, Data: data})
}

func equals(loaded []expr.Any, data []byte) []expr.Any { return compare(loaded, expr.CmpOpEq, data) }

func etherType(t uint16) []expr.Any {
	return equals(load(expr.PayloadBaseLLHeader, offsetEtherType, 2), binary.BigEndian.AppendUint16(nil, t))
}

// lookup matches when interface, hardware address and address of the packet,
// which are at the given offsets, are an element of the set.
func lookup(set *nftables.Set, mac uint32, macBase expr.PayloadBase, addr uint32) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: registerName},
		&expr.Payload{DestRegister: registerMAC, Base: macBase, Offset: mac, Len: 6},
		&expr.Payload{DestRegister: registerAddr, Base: expr.PayloadBaseNetworkHeader, Offset: addr, Len: 4},
		&expr.Lookup{SourceRegister: registerName, SetName: set.Name, SetID: set.ID},
	}
}

func isTCP() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
	}
}

func tcpTo(port uint16) []expr.Any {
	return append(isTCP(), equals(load(expr.PayloadBaseTransportHeader, 2, 2), binary.BigEndian.AppendUint16(nil, port))...)
}
