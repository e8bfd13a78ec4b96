package netsetup

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/failpoint"
)

const (
	// filterTable is the name of our table in the inet family.
	filterTable = "stellar"
	// openedSet lists the interfaces whose forwarding we switched on. It is what
	// the guard works with and, for a later process, the record of what we did.
	openedSet = "opened"
	// Numbers of sets inside one transaction. Given by us, for the library counts
	// them in a variable that transactions at the same time would share.
	openedSetID, endpointSetID, nodeSetID = 1, 2, 3

	chainWayOut = "postrouting"
	chainGuard  = "forward"

	nftTimeout = 5 * time.Second
	ifnameLen  = 16

	offsetSaddr = 12 // of the IPv4 header
	offsetDaddr = 16
)

// filter is the table `inet stellar`:
//
//	set opened { type ifname; elements = { "eth0" } }
//	chain postrouting { type nat hook postrouting priority srcnat;
//	    ip saddr SUBNET ip daddr != NETWORK oifgroup != 147 masquerade }
//	chain forward { type filter hook forward priority filter;
//	    meta nfproto ipv4 iifname @opened oifgroup != 147 drop }
//
// In group 147 is what containers are behind: the bridge, or their own links.
//
// The second chain exists only where the host was no router and we made some
// interfaces forward: it keeps those from forwarding anything but to us.
// Replacing is one transaction, so at no moment is a packet without the rules.
// The table is left in place when the process ends.
type filter struct {
	nsfd       int // descriptor of the host namespace; -1: the current one
	subnet     netip.Prefix
	network    netip.Prefix
	masquerade bool
	now        func() (moment, error)

	// written is what the kernel had after the last write; nil before the first.
	written *filterState
}

// filterState is what makes one version of the table recognisable: the kernel
// never gives a rule's handle to another rule.
type filterState struct {
	opened []string
	rules  []uint64
}

func newFilter(nsfd int, c Config, now func() (moment, error)) *filter {
	return &filter{nsfd: nsfd, subnet: c.Subnet, network: c.Network, masquerade: c.Masquerade, now: now}
}

// conn makes a connection that opens a socket of its own for each exchange.
func (f *filter) conn() (*nftables.Conn, error) {
	opts := []nftables.ConnOption{nftables.WithSockOptions(func(c *netlink.Conn) error {
		return c.SetDeadline(time.Now().Add(nftTimeout))
	})}
	if f.nsfd >= 0 {
		opts = append(opts, nftables.WithNetNSFd(f.nsfd))
	}
	return nftables.New(opts...)
}

func (f *filter) table() *nftables.Table {
	return &nftables.Table{Name: filterTable, Family: nftables.TableFamilyINet}
}

// read returns the table's state, nil if there is no table.
func (f *filter) read() (*filterState, error) {
	c, err := f.conn()
	if err != nil {
		return nil, err
	}
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	i := slices.IndexFunc(tables, func(t *nftables.Table) bool { return t.Name == filterTable })
	if i < 0 {
		return nil, nil
	}
	t, s := tables[i], &filterState{}
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, fmt.Errorf("list chains: %w", err)
	}
	for _, ch := range chains {
		if ch.Table.Name != filterTable {
			continue
		}
		rules, err := c.GetRules(t, ch)
		if err != nil {
			return nil, fmt.Errorf("list rules: %w", err)
		}
		for _, r := range rules {
			s.rules = append(s.rules, r.Handle)
		}
	}
	if s.opened, err = readOpened(c, t); err != nil {
		return nil, err
	}
	slices.Sort(s.rules)
	return s, nil
}

func readOpened(c *nftables.Conn, t *nftables.Table) ([]string, error) {
	sets, err := c.GetSets(t)
	if err != nil {
		return nil, fmt.Errorf("list sets: %w", err)
	}
	var opened []string
	for _, set := range sets {
		if set.Name != openedSet {
			continue
		}
		elements, err := c.GetSetElements(set)
		if err != nil {
			return nil, fmt.Errorf("list set: %w", err)
		}
		for _, e := range elements {
			opened = append(opened, unix.ByteSliceToString(e.Key))
		}
	}
	slices.Sort(opened)
	return opened, nil
}

// intact reports whether the kernel still has what was written last.
func (f *filter) intact(s *filterState) bool {
	return f.written != nil && s != nil && slices.Equal(s.rules, f.written.rules) &&
		slices.Equal(s.opened, f.written.opened)
}

// write replaces the table as a whole; opened is sorted.
func (f *filter) write(opened []string) error {
	var s *filterState
	_, err := readBack(f.now, func() error { return f.replace(opened) }, func() (err error) {
		s, err = f.read()
		return err
	})
	if err == nil {
		f.written = s
	}
	return err
}

func (f *filter) replace(opened []string) error {
	c, err := f.conn()
	if err != nil {
		return err
	}
	// Add, delete, add: the delete needs a table to be there. All in one batch.
	c.AddTable(f.table())
	c.DelTable(f.table())
	t := c.AddTable(f.table())
	if f.masquerade {
		f.addWayOut(c, t)
	}
	if len(opened) > 0 {
		if err := f.addGuard(c, t, opened); err != nil {
			return err
		}
	}
	if err := failpoint.Err(failpoint.NetFilter); err != nil {
		return err
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	return failpoint.Err(failpoint.NetFilterSet)
}

func (f *filter) addWayOut(c *nftables.Conn, t *nftables.Table) {
	chain := c.AddChain(&nftables.Chain{
		Name: chainWayOut, Table: t, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	c.AddRule(&nftables.Rule{Table: t, Chain: chain, UserData: comment("the way out"), Exprs: slices.Concat(
		isIPv4(),
		matchPrefix(offsetSaddr, expr.CmpOpEq, f.subnet),
		matchPrefix(offsetDaddr, expr.CmpOpNeq, f.network),
		notToContainers(),
		[]expr.Any{&expr.Masq{}},
	)})
}

func (f *filter) addGuard(c *nftables.Conn, t *nftables.Table, opened []string) error {
	set := &nftables.Set{Table: t, Name: openedSet, ID: openedSetID, KeyType: nftables.TypeIFName, KeyByteOrder: binaryutil.NativeEndian}
	var elements []nftables.SetElement
	for _, name := range opened {
		elements = append(elements, nftables.SetElement{Key: ifname(name)})
	}
	if err := c.AddSet(set, elements); err != nil {
		return fmt.Errorf("write set: %w", err)
	}
	chain := c.AddChain(&nftables.Chain{
		Name: chainGuard, Table: t, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
	})
	c.AddRule(&nftables.Rule{Table: t, Chain: chain, UserData: comment("forward only to containers"), Exprs: slices.Concat(
		isIPv4(),
		[]expr.Any{
			&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
			&expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID},
		},
		notToContainers(),
		[]expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}},
	)})
	return nil
}

// remove deletes the table; an absent one is no error.
func (f *filter) remove() error {
	c, err := f.conn()
	if err != nil {
		return err
	}
	c.AddTable(f.table())
	c.DelTable(f.table())
	f.written = nil
	if err := c.Flush(); err != nil {
		return fmt.Errorf("delete table: %w", err)
	}
	return nil
}

func isIPv4() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.NFPROTO_IPV4}},
	}
}

func matchPrefix(offset uint32, op expr.CmpOp, p netip.Prefix) []expr.Any {
	mask := binary.BigEndian.AppendUint32(nil, ^uint32(0)<<(32-p.Bits()))
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: op, Register: 1, Data: p.Masked().Addr().AsSlice()},
	}
}

func notToContainers() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyOIFGROUP, Register: 1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(linkGroup)},
	}
}

// ifname is a name as the kernel compares it: padded with zeros.
func ifname(s string) []byte {
	b := make([]byte, ifnameLen)
	copy(b, s)
	return b
}

func comment(s string) []byte { return userdata.AppendString(nil, userdata.TypeComment, s) }

// iptablesTable reports whether iptables-nft filters here: whether `ip filter`
// has a chain FORWARD.
func (f *filter) iptablesTable() (bool, error) {
	c, err := f.conn()
	if err != nil {
		return false, err
	}
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return false, fmt.Errorf("list chains: %w", err)
	}
	return slices.ContainsFunc(chains, func(ch *nftables.Chain) bool {
		return ch.Table.Name == "filter" && ch.Name == chainForward
	}), nil
}
