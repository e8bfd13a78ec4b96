package trace

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// arpWait is how long answers to one ARP request are waited for; two machines with
	// one address both answer within milliseconds.
	arpWait = 300 * time.Millisecond
	arpLen  = 28
)

// whoHas asks the link for the hardware addresses of a, once without and, if nobody
// answers, once with a sender's address. asked is false where that is not possible:
// nothing follows from the silence then.
func whoHas(ctx context.Context, index int, a, own netip.Addr) (answers []string, asked bool) {
	// A request without a sender's address changes nobody's table.
	for _, from := range []netip.Addr{netip.IPv4Unspecified(), own} {
		if !from.Is4() {
			continue
		}
		got, err := arpRequest(ctx, index, a, from)
		if err != nil {
			return nil, false
		}
		if len(got) > 0 {
			return got, true
		}
	}
	return nil, true
}

// ofOneMachine leaves one of those that answered for a node's address if all of them
// answer for the gateway of its subnet as well, which no other machine has: then they
// are interfaces of that node on one link. Pure.
func ofOneMachine(answers, own []string) []string {
	for _, mac := range answers {
		if !slices.Contains(own, mac) {
			return answers
		}
	}
	return answers[:1]
}

func arpRequest(ctx context.Context, index int, a, from netip.Addr) ([]string, error) {
	ifi, err := net.InterfaceByIndex(index)
	if err != nil {
		return nil, err
	}
	if len(ifi.HardwareAddr) != 6 || ifi.Flags&net.FlagLoopback != 0 || !a.Is4() {
		return nil, errors.ErrUnsupported
	}
	proto := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ARP))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(proto))
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: index}); err != nil {
		return nil, err
	}
	to := &unix.SockaddrLinklayer{Protocol: proto, Ifindex: index, Halen: 6}
	for i := range 6 {
		to.Addr[i] = 0xff
	}
	if err := unix.Sendto(fd, arpFrame(ifi.HardwareAddr, from, a), 0, to); err != nil {
		return nil, err
	}
	var out []string
	deadline := time.Now().Add(arpWait)
	buf := make([]byte, 256)
	for left := arpWait; left > 0 && ctx.Err() == nil; left = time.Until(deadline) {
		tv := unix.NsecToTimeval(left.Nanoseconds())
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
			return nil, err
		}
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return nil, err
		}
		if mac, ok := arpAnswer(buf[:max(n, 0)], a); ok && !slices.Contains(out, mac) {
			out = append(out, mac)
		}
	}
	slices.Sort(out)
	return out, nil
}

// arpFrame is a request: who has to, tell from.
func arpFrame(mac net.HardwareAddr, from, to netip.Addr) []byte {
	b := []byte{0, 1, 8, 0, 6, 4, 0, 1} // Ethernet, IPv4, request
	b = append(b, mac...)
	b = append(b, from.AsSlice()...)
	b = append(b, make([]byte, 6)...)
	return append(b, to.AsSlice()...)
}

// arpAnswer reads who says to have a.
func arpAnswer(b []byte, a netip.Addr) (string, bool) {
	if len(b) < arpLen || b[7] != 2 || netip.AddrFrom4([4]byte(b[14:18])) != a {
		return "", false
	}
	return net.HardwareAddr(b[8:14]).String(), true
}
