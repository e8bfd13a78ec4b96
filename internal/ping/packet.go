// Package ping sends ICMP echo requests over IPv4 and tells what came back for each:
// the reply, what the kernel or a router said instead, or nothing. A socket belongs to
// the network namespace it was opened in, so a container's is pinged from by opening
// it there (netsetup.Namespace.Do).
package ping

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// ICMP types (RFC 792).
const (
	typeEchoReply    = 0
	typeUnreachable  = 3
	typeEcho         = 8
	typeTimeExceeded = 11
	typeParameter    = 12
)

const (
	ipHeader   = 20
	icmpHeader = 8
	// Overhead is what IP and ICMP add to the payload of a request, in bytes.
	Overhead = ipHeader + icmpHeader
	// MaxSize is the largest payload that an IP packet can carry.
	MaxSize = 65535 - Overhead

	protoICMP = 1
	// codeTooBig is "fragmentation needed and DF set"; RFC 1191 puts the MTU beside it.
	codeTooBig = 4
)

// cookie tells this socket's requests from those of others with the same identifier,
// where the payload has room for it.
type cookie [8]byte

// echo makes a request.
func echo(id, seq uint16, c cookie, size int) []byte {
	b := make([]byte, icmpHeader+size)
	b[0] = typeEcho
	binary.BigEndian.PutUint16(b[4:], id)
	binary.BigEndian.PutUint16(b[6:], seq)
	n := copy(b[icmpHeader:], c[:])
	for i := icmpHeader + n; i < len(b); i++ {
		b[i] = byte(i)
	}
	binary.BigEndian.PutUint16(b[2:], checksum(b))
	return b
}

// checksum is the Internet's (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// answer is a packet that is about one of our requests.
type answer struct {
	from    netip.Addr
	seq     uint16
	ttl     int
	bytes   int    // of ICMP, header included
	problem string // empty: it is the reply
	mtu     int    // of the link that was too small for the request; 0: not told
}

// parse reads an IPv4 packet as a raw socket gives it; false: it is not about a
// request to target with our identifier.
func parse(b []byte, target netip.Addr, id uint16, c cookie) (answer, bool) {
	icmp, ip, ok := payload(b)
	if !ok || len(icmp) < icmpHeader {
		return answer{}, false
	}
	a := answer{from: ip.from, ttl: ip.ttl, bytes: len(icmp)}
	if icmp[0] == typeEchoReply {
		data := icmp[icmpHeader:]
		mine := binary.BigEndian.Uint16(icmp[4:]) == id && ip.from == target && checksum(icmp) == 0 &&
			(len(data) < len(c) || cookie(data[:len(c)]) == c)
		a.seq = binary.BigEndian.Uint16(icmp[6:])
		return a, mine
	}
	text, isProblem := problem(icmp[0], icmp[1])
	if !isProblem {
		return answer{}, false
	}
	// The packet that it is about: its IP header and at least 8 bytes.
	inner, about, ok := payload(icmp[icmpHeader:])
	if !ok || len(inner) < icmpHeader || about.to != target || inner[0] != typeEcho || binary.BigEndian.Uint16(inner[4:]) != id {
		return answer{}, false
	}
	a.seq, a.problem = binary.BigEndian.Uint16(inner[6:]), text
	if icmp[0] == typeUnreachable && icmp[1] == codeTooBig {
		if a.mtu = int(binary.BigEndian.Uint16(icmp[6:])); a.mtu > 0 {
			a.problem += fmt.Sprintf(", MTU %d", a.mtu)
		}
	}
	return a, true
}

// ipInfo is what counts of an IP header.
type ipInfo struct {
	from, to netip.Addr
	ttl      int
}

// payload returns what an IPv4 packet with ICMP in it carries.
func payload(b []byte) ([]byte, ipInfo, bool) {
	if len(b) < ipHeader || b[0]>>4 != 4 || b[9] != protoICMP {
		return nil, ipInfo{}, false
	}
	head := int(b[0]&15) * 4
	if head < ipHeader || len(b) < head {
		return nil, ipInfo{}, false
	}
	return b[head:], ipInfo{netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20])), int(b[8])}, true
}

// unreachable are the codes of typeUnreachable.
var unreachable = map[byte]string{
	0: "network unreachable", 1: "host unreachable", 2: "protocol unreachable", 3: "port unreachable",
	codeTooBig: "packet too big for a link on the way", 5: "source route failed",
	9: "network administratively prohibited", 10: "host administratively prohibited", 13: "administratively prohibited: a filter refuses it",
}

// problem says what a router's message means; false: it is no answer to a request.
func problem(typ, code byte) (string, bool) {
	switch typ {
	case typeUnreachable:
		if text, ok := unreachable[code]; ok {
			return text, true
		}
		return fmt.Sprintf("destination unreachable, code %d", code), true
	case typeTimeExceeded:
		return "time to live exceeded: packets go round in a circle, or too far", true
	case typeParameter:
		return "parameter problem", true
	}
	return "", false
}
