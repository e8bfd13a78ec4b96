package netsetup

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/failpoint"
	"stellar.io/stellar/internal/nlx"
)

// adopt takes over the owner's existing link with the given index, if it leads
// to the wanted namespace with the wanted address, and puts right what is not.
// Otherwise the link is deleted and done is false: the caller makes a new one.
func (a *attachment) adopt(index int) (done bool, err error) {
	l, err := a.host.LinkByIndex(index)
	if errors.Is(err, unix.ENODEV) {
		a.n.table.drop(index)
		return false, nil
	}
	if err != nil {
		return false, err
	}
	m, ours := parseAlias(l.Alias)
	if !ours || m.owner != a.spec.Owner {
		a.n.table.drop(index) // the index was given to another link
		return false, nil
	}
	if m.routed != a.n.routed() {
		return false, fmt.Errorf("%w: %s", ErrOtherMode, l.Name)
	}
	fits, err := a.fits(l, m)
	if err != nil {
		return false, err
	}
	if !fits {
		return false, a.n.removeLink(index)
	}
	if err := failpoint.Err(failpoint.NetAdopt); err != nil {
		return false, err
	}
	a.name, a.index, a.peer, a.t.Adopted = l.Name, l.Index, l.Peer, true
	if err := a.admit(); err != nil {
		return false, err
	}
	if err := a.repairGuest(); err != nil {
		return false, err
	}
	want := a.n.layout.want(a.port())
	a.master = want.master
	if _, err := applyPort(a.host, l, want); err != nil {
		return false, fmt.Errorf("repair %s: %w", l.Name, err)
	}
	if err := a.n.layout.entries(a.host, []port{a.port()}); err != nil {
		return false, fmt.Errorf("repair %s: %w", l.Name, err)
	}
	return true, a.inside()
}

// fits reports whether the pair leads from the host's link l to an interface of
// the wanted name in the wanted namespace, and was made for the wanted address.
func (a *attachment) fits(l nlx.Link, m mark) (bool, error) {
	if m.addr != a.spec.Addr || l.NSID == nlx.NoNSID {
		return false, nil
	}
	nsid, err := a.host.NSID(int(a.spec.NS.file.Fd()))
	if err != nil || nsid != l.NSID {
		return false, err
	}
	guest, err := a.guest.LinkByIndex(l.Peer)
	if errors.Is(err, unix.ENODEV) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	a.foundGuest = guest
	return guest.Kind == "veth" && guest.Name == a.spec.Ifname, nil
}

// repairGuest restores the hardware address and the MTU of the container's end.
func (a *attachment) repairGuest() error {
	fix := nlx.SetLink(a.peer)
	wrong := false
	if a.foundGuest.MAC.String() != a.spec.MAC.String() {
		fix.Bytes(unix.IFLA_ADDRESS, a.spec.MAC)
		wrong = true
	}
	if a.foundGuest.MTU != a.spec.MTU {
		fix.Uint32(unix.IFLA_MTU, uint32(a.spec.MTU))
		wrong = true
	}
	if !wrong {
		return nil
	}
	r, err := a.guest.Do(fix)
	if err := firstError(r, err); err != nil {
		return fmt.Errorf("repair %s: %w", a.spec.Ifname, err)
	}
	return nil
}

// portWant is what a host end must look like.
type portWant struct {
	alias    string
	mac      []byte
	mtu      int
	master   int
	port     nlx.PortSettings // where it has a master
	settings []nlx.Setting
}

// portFix is one thing that is wrong with a host end.
type portFix string

const (
	fixAlias  portFix = "alias"
	fixGroup  portFix = "group"
	fixMAC    portFix = "mac"
	fixMTU    portFix = "mtu"
	fixMaster portFix = "master"
	fixPort   portFix = "bridge port"
	fixConf   portFix = "settings"
	fixUp     portFix = "up"
)

// planPort compares a host end with what it must look like. Pure. Up comes last:
// what a port must not be without is put right while it is down.
func planPort(have nlx.Link, want portWant) []portFix {
	var fixes []portFix
	add := func(wrong bool, f portFix) {
		if wrong {
			fixes = append(fixes, f)
		}
	}
	add(have.Alias != want.alias, fixAlias)
	add(have.Group != linkGroup, fixGroup)
	add(string(have.MAC) != string(want.mac), fixMAC)
	add(have.MTU != want.mtu, fixMTU)
	add(have.Master != want.master, fixMaster)
	add(want.master != 0 && (have.Master != want.master || have.Settings != want.port), fixPort)
	add(!have.IPv4.Has(want.settings), fixConf)
	add(!have.Up, fixUp)
	return fixes
}

// applyPort puts a host end right and returns what was wrong with it, "" for nothing.
func applyPort(c *nlx.Conn, have nlx.Link, want portWant) (string, error) {
	fixes := planPort(have, want)
	if len(fixes) == 0 {
		return "", nil
	}
	msgs := make([]*nlx.Message, 0, len(fixes))
	names := make([]string, 0, len(fixes))
	for _, f := range fixes {
		m := nlx.SetLink(have.Index)
		switch f {
		case fixAlias:
			m.Bytes(unix.IFLA_IFALIAS, []byte(want.alias))
		case fixGroup:
			m.Uint32(unix.IFLA_GROUP, linkGroup)
		case fixMAC:
			m.Bytes(unix.IFLA_ADDRESS, want.mac)
		case fixMTU:
			m.Uint32(unix.IFLA_MTU, uint32(want.mtu))
		case fixMaster:
			m.Uint32(unix.IFLA_MASTER, uint32(want.master))
		case fixPort:
			m.BridgePort(want.port)
		case fixConf:
			m.IPv4Conf(want.settings)
		case fixUp:
			m = nlx.SetLinkUp(have.Index)
		}
		msgs = append(msgs, m)
		names = append(names, string(f))
	}
	r, err := c.Do(msgs...)
	return strings.Join(names, " "), firstError(r, err)
}
