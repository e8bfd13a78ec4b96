package trace

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/api"
	"stellar.io/stellar/internal/nlx"
	"stellar.io/stellar/internal/nsx"
)

const (
	// Probes is how many small packets are sent.
	Probes = 20
	// probeEvery is their distance, probeWait how long the last is waited for.
	probeEvery = 20 * time.Millisecond
	probeWait  = 500 * time.Millisecond
	// sizeWait is how long an answer to a large packet is waited for, sizeTries how often
	// one is sent before it counts as lost.
	sizeWait  = 300 * time.Millisecond
	sizeTries = 2
	// headers of IPv4 and ICMP.
	headers = 28
	// leastMTU is what IPv4 asks of every link.
	leastMTU = 68
)

// Probe sends ICMP echo requests from the namespace ns (-1: the process's own) under
// the address from, and finds out the largest packet that is answered without being
// cut to pieces. mtu is that of the sender's interface. It takes up to about 8 s.
func Probe(ctx context.Context, ns int, from, to netip.Addr, mtu int) (api.TraceProbe, error) {
	out := api.TraceProbe{MTU: mtu}
	var p *pinger
	open := func() (err error) {
		p, err = newPinger(from, to)
		return err
	}
	var err error
	if ns < 0 {
		err = open()
	} else {
		err = nsx.Do(ns, open)
	}
	if err != nil {
		return out, fmt.Errorf("probe: %w", err)
	}
	defer unix.Close(p.fd)
	var times []time.Duration
	for range Probes {
		if ctx.Err() != nil {
			return out, ctx.Err()
		}
		out.Sent++
		wait := probeEvery
		if out.Sent == Probes && len(times) == 0 {
			wait = probeWait
		}
		rtt, ok, err := p.ping(leastMTU, max(wait, 2*probeEvery))
		if err != nil {
			return out, fmt.Errorf("probe: %w", err)
		}
		if ok {
			times = append(times, rtt)
			time.Sleep(probeEvery / 4)
		}
	}
	out.Received = len(times)
	if out.Received == 0 {
		return out, nil
	}
	slices.Sort(times)
	out.RTT = float64(times[len(times)/2].Microseconds()) / 1000
	out.PathMTU, err = p.pathMTU(ctx, mtu)
	return out, err
}

// pathMTU searches between what every link takes and mtu.
func (p *pinger) pathMTU(ctx context.Context, mtu int) (int, error) {
	passes := func(size int) (bool, error) {
		for range sizeTries {
			if ctx.Err() != nil {
				return false, ctx.Err()
			}
			_, ok, err := p.ping(size, sizeWait)
			if ok || err != nil {
				return ok, err
			}
		}
		return false, nil
	}
	if ok, err := passes(mtu); ok || err != nil {
		return mtu, err
	}
	low, high := leastMTU, mtu // low passes, high does not
	for high-low > 1 {
		mid := (low + high) / 2
		ok, err := passes(mid)
		if err != nil {
			return 0, err
		}
		if ok {
			low = mid
		} else {
			high = mid
		}
	}
	return low, nil
}

type pinger struct {
	fd  int
	to  unix.SockaddrInet4
	id  uint16
	seq uint16
}

func newPinger(from, to netip.Addr) (*pinger, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	if err != nil {
		return nil, err
	}
	p := &pinger{fd: fd, to: unix.SockaddrInet4{Addr: to.As4()}, id: uint16(rand.Uint32())}
	// Don't fragment, and don't believe what was learned of the path before.
	err = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
	if err == nil && from.Is4() {
		err = unix.Bind(fd, &unix.SockaddrInet4{Addr: from.As4()})
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return p, nil
}

// ping sends one request of size bytes, headers included, and waits for its answer.
// What the kernel does not send is not answered.
func (p *pinger) ping(size int, wait time.Duration) (rtt time.Duration, ok bool, err error) {
	p.seq++
	b := make([]byte, size-headers+8)
	b[0] = 8 // echo request
	binary.BigEndian.PutUint16(b[4:], p.id)
	binary.BigEndian.PutUint16(b[6:], p.seq)
	binary.BigEndian.PutUint16(b[2:], checksum(b))
	start := time.Now()
	switch err := unix.Sendto(p.fd, b, 0, &p.to); {
	case errors.Is(err, unix.EMSGSIZE), errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.EPERM),
		errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENETDOWN), errors.Is(err, unix.EACCES):
		return 0, false, nil
	case err != nil:
		return 0, false, err
	}
	in := make([]byte, 65536)
	for left := wait; left > 0; left = wait - time.Since(start) {
		tv := unix.NsecToTimeval(left.Nanoseconds())
		if err := unix.SetsockoptTimeval(p.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
			return 0, false, err
		}
		n, _, err := unix.Recvfrom(p.fd, in, 0)
		if err != nil {
			if errors.Is(err, unix.EAGAIN) {
				return 0, false, nil
			}
			continue // an ICMP error for an earlier one, or a signal
		}
		if p.answers(in[:n]) {
			return time.Since(start), true, nil
		}
	}
	return 0, false, nil
}

// answers reports whether b, with its IP header, is the answer to the last request.
func (p *pinger) answers(b []byte) bool {
	if len(b) < 20 {
		return false
	}
	head := int(b[0]&0x0f) * 4
	if len(b) < head+8 {
		return false
	}
	b = b[head:]
	return b[0] == 0 && binary.BigEndian.Uint16(b[4:]) == p.id && binary.BigEndian.Uint16(b[6:]) == p.seq
}

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

// Counters reads what has passed the interfaces of this node's part, from the local
// end to the wire. An interface that is not there is left out.
func Counters(f *Facts, p Place) []api.TraceCounter {
	var out []api.TraceCounter
	read := func(ns int, dev, name string, towards bool) {
		if dev == "" {
			return
		}
		c, err := nlx.Dial(ns, unix.NETLINK_ROUTE)
		if err != nil {
			return
		}
		defer c.Close()
		d, err := c.LinkDetail(dev)
		if err != nil {
			return
		}
		n := api.TraceCounter{Name: name, Leave: d.Counters.RxPackets, Enter: d.Counters.TxPackets}
		if !towards { // what leaves is what this interface sends
			n.Leave, n.Enter = n.Enter, n.Leave
		}
		out = append(out, n)
	}
	if p.NS >= 0 {
		read(p.NS, p.Ifname, p.Ifname+" in "+f.Local.String(), false)
	}
	read(-1, p.HostIfname, p.HostIfname+" on "+f.Node, true)
	if !f.SameNode {
		if p.HostIfname != "" && !f.Routed {
			read(-1, f.BridgeName, f.BridgeName+" on "+f.Node, true)
		}
		read(-1, f.Host.Uplink.Name, f.Host.Uplink.Name+" on "+f.Node, false)
	}
	return out
}
