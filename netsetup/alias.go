package netsetup

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"stellar.io/stellar/ipam"
)

const (
	// linkGroup marks our links; the same number marks our routes.
	linkGroup = 147
	// aliasMark begins each alias; the digit is the version of its form.
	aliasMark = "stellar1"
	// aliasLimit is the kernel's IFALIASZ less the terminating zero.
	aliasLimit = 255
	// routedWord ends the alias of an endpoint of routed mode.
	routedWord = "routed"
	// bridgeAlias is the alias of the bridge.
	bridgeAlias = "stellar1 bridge"
	// hostPrefix begins the names of host ends: NetworkManager leaves veth* alone.
	hostPrefix = "veth"
)

var ownerKinds = map[string]ipam.OwnerKind{
	ipam.OwnerContainer.String(): ipam.OwnerContainer,
	ipam.OwnerCNI.String():       ipam.OwnerCNI,
	ipam.OwnerManual.String():    ipam.OwnerManual,
}

// mark is what the alias of a host end says: everything that a later agent needs
// to know of the endpoint.
type mark struct {
	owner ipam.Owner
	addr  netip.Addr
	node  string // short node id
	// routed: it was attached in routed mode.
	routed bool
}

// encodeAlias returns the alias text:
//
//	stellar1 <kind> <namespace>/<id>@<created> <ifname> <addr> <node short>
//
// and " routed" behind it where the endpoint is not a bridge's.
// It fails for an owner that the text cannot carry unambiguously; containerd's
// own identifiers all pass.
func encodeAlias(m mark) (string, error) {
	s := fmt.Sprintf("%s %s %s/%s@%d %s %s %s", aliasMark, m.owner.Kind,
		m.owner.Namespace, m.owner.ID, m.owner.Created, m.owner.Interface, m.addr, m.node)
	if m.routed {
		s += " " + routedWord
	}
	if len(s) > aliasLimit {
		return "", fmt.Errorf("%w: alias of %s has %d bytes, at most %d", ErrInvalid, m.owner, len(s), aliasLimit)
	}
	if back, ok := parseAlias(s); !ok || back != m {
		return "", fmt.Errorf("%w: owner %q cannot be written to an alias", ErrInvalid, m.owner)
	}
	return s, nil
}

// parseAlias reads an alias. It accepts exactly the texts that encodeAlias makes.
func parseAlias(s string) (mark, bool) {
	f := strings.Split(s, " ")
	routed := len(f) == 7 && f[6] == routedWord
	if routed {
		f = f[:6]
	}
	if len(f) != 6 || f[0] != aliasMark {
		return mark{}, false
	}
	kind, ok := ownerKinds[f[1]]
	if !ok {
		return mark{}, false
	}
	ns, rest, ok := strings.Cut(f[2], "/")
	at := strings.LastIndexByte(rest, '@')
	if !ok || at < 0 {
		return mark{}, false
	}
	id := rest[:at]
	created, err := strconv.ParseInt(rest[at+1:], 10, 64)
	if err != nil || strconv.FormatInt(created, 10) != rest[at+1:] {
		return mark{}, false
	}
	addr, err := netip.ParseAddr(f[4])
	if err != nil || !addr.Is4() || addr.String() != f[4] {
		return mark{}, false
	}
	m := mark{
		owner: ipam.Owner{Kind: kind, Namespace: ns, ID: id, Created: created, Interface: f[3]},
		addr:  addr, node: f[5], routed: routed,
	}
	return m, validMark(m)
}

func validMark(m mark) bool {
	return word(m.owner.Namespace) && word(m.owner.ID) && validIfname(m.owner.Interface) && word(m.node)
}

// word reports whether s is printable ASCII without the alias's separators. An
// id may contain '@': the last one separates.
func word(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' || s[i] == '/' {
			return false
		}
	}
	return s != ""
}

// validIfname reports whether the kernel takes s as an interface's name.
func validIfname(s string) bool {
	return word(s) && len(s) <= 15 && s != "." && s != ".." && !strings.ContainsAny(s, ":%")
}

var hostNameEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// hostName returns the name of an owner's host end: 15 characters, the most that
// the kernel takes. A generation above 0 is used when the name before is taken.
func hostName(o ipam.Owner, generation int) string {
	h := sha256.New()
	for _, s := range []string{o.Kind.String(), o.Namespace, o.ID, o.Interface} {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(s))))
		h.Write([]byte(s))
	}
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(o.Created)))
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(generation)))
	return hostPrefix + hostNameEncoding.EncodeToString(h.Sum(nil))[:11]
}
