package ping

import (
	"encoding/binary"
	"net/netip"
	"testing"
)

var (
	self   = netip.MustParseAddr("172.16.0.2")
	target = netip.MustParseAddr("172.16.4.2")
	router = netip.MustParseAddr("192.0.2.1")
	mine   = cookie{1, 2, 3, 4, 5, 6, 7, 8}
)

// packet puts an IPv4 header before ICMP.
func packet(from, to netip.Addr, ttl byte, icmp []byte) []byte {
	b := make([]byte, ipHeader, ipHeader+len(icmp))
	b[0], b[8], b[9] = 4<<4|5, ttl, protoICMP
	binary.BigEndian.PutUint16(b[2:], uint16(ipHeader+len(icmp)))
	copy(b[12:], from.AsSlice())
	copy(b[16:], to.AsSlice())
	return append(b, icmp...)
}

// reply turns a request into its reply.
func reply(request []byte) []byte {
	b := append([]byte(nil), request...)
	b[0], b[2], b[3] = typeEchoReply, 0, 0
	binary.BigEndian.PutUint16(b[2:], checksum(b))
	return b
}

// complaint is a router's message about a request.
func complaint(typ, code byte, mtu uint16, about []byte) []byte {
	b := make([]byte, icmpHeader)
	b[0], b[1] = typ, code
	binary.BigEndian.PutUint16(b[6:], mtu)
	return append(b, about[:min(len(about), ipHeader+icmpHeader)]...)
}

func TestChecksum(t *testing.T) {
	t.Parallel()
	// RFC 1071, section 3: 0001 f203 f4f5 f6f7 add up to ddf2.
	if got := checksum([]byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}); got != ^uint16(0xddf2) {
		t.Errorf("%04x", got)
	}
	for _, size := range []int{0, 1, 7, 8, 56, 1472} {
		if b := echo(7, 9, mine, size); checksum(b) != 0 || len(b) != size+icmpHeader {
			t.Errorf("size %d: %d bytes, checksum over the whole %04x", size, len(b), checksum(b))
		}
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	req := echo(7, 9, mine, 56)
	sent := packet(self, target, 64, req)
	bad := reply(req)
	bad[20] ^= 1
	for _, tt := range []struct {
		name string
		in   []byte
		want answer
		ok   bool
	}{
		{"reply", packet(target, self, 62, reply(req)), answer{from: target, seq: 9, ttl: 62, bytes: 64}, true},
		{"reply without room for the cookie", packet(target, self, 62, reply(echo(7, 1, mine, 3))), answer{from: target, seq: 1, ttl: 62, bytes: 11}, true},
		{"reply from another", packet(router, self, 62, reply(req)), answer{}, false},
		{"reply to another socket", packet(target, self, 62, reply(echo(8, 9, mine, 56))), answer{}, false},
		{"reply to another with this number", packet(target, self, 62, reply(echo(7, 9, cookie{}, 56))), answer{}, false},
		{"damaged reply", packet(target, self, 62, bad), answer{}, false},
		{"our own request", sent, answer{}, false},
		{"host unreachable", packet(router, self, 60, complaint(3, 1, 0, sent)), answer{from: router, seq: 9, ttl: 60, bytes: 36, problem: "host unreachable"}, true},
		{"too big", packet(router, self, 60, complaint(3, 4, 1400, sent)), answer{from: router, seq: 9, ttl: 60, bytes: 36, problem: "packet too big for a link on the way, MTU 1400", mtu: 1400}, true},
		{"a circle", packet(router, self, 60, complaint(11, 0, 0, sent)), answer{from: router, seq: 9, ttl: 60, bytes: 36, problem: "time to live exceeded: packets go round in a circle, or too far"}, true},
		{"a new code", packet(router, self, 60, complaint(3, 99, 0, sent)), answer{from: router, seq: 9, ttl: 60, bytes: 36, problem: "destination unreachable, code 99"}, true},
		{"about a request to another", packet(router, self, 60, complaint(3, 1, 0, packet(self, router, 64, req))), answer{}, false},
		{"about another socket", packet(router, self, 60, complaint(3, 1, 0, packet(self, target, 64, echo(8, 9, mine, 56)))), answer{}, false},
		{"about nothing", packet(router, self, 60, complaint(3, 1, 0, nil)), answer{}, false},
		{"a redirect", packet(router, self, 60, complaint(5, 1, 0, sent)), answer{}, false},
		{"nothing", nil, answer{}, false},
		{"half a header", sent[:12], answer{}, false},
		{"options beyond the end", append([]byte{4<<4 | 15}, sent[1:30]...), answer{}, false},
	} {
		got, ok := parse(tt.in, target, 7, mine)
		if ok != tt.ok || ok && got.problem != tt.want.problem || ok && (got.from != tt.want.from || got.seq != tt.want.seq || got.ttl != tt.want.ttl || got.bytes != tt.want.bytes || got.mtu != tt.want.mtu) {
			t.Errorf("%s: %+v, %t; want %+v, %t", tt.name, got, ok, tt.want, tt.ok)
		}
	}
}

// Whatever arrives, nothing is read beyond its end.
func FuzzParse(f *testing.F) {
	sent := packet(self, target, 64, echo(7, 9, mine, 56))
	f.Add(sent)
	f.Add(packet(target, self, 62, reply(echo(7, 9, mine, 56))))
	f.Add(packet(router, self, 60, complaint(3, 4, 1400, sent)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, ok := parse(b, target, 7, mine); ok && a.problem == "" && a.from != target {
			t.Errorf("a reply from %s", a.from)
		}
	})
}
