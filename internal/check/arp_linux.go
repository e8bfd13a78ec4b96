package check

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/nlx"
	"stellar.io/stellar/netsetup"
)

const (
	// arpWait is how long answers are waited for. Who does not answer is asked again, and
	// waited for longer, arpTries times in all.
	arpWait  = 150 * time.Millisecond
	arpTries = 3
	// arpMost bounds how many peers are asked.
	arpMost = 1024

	arpSize    = 28 // of IPv4 over Ethernet
	arpRequest = 1
	arpReply   = 2
)

// answers asks on the uplinks who has the addresses of the peers, and whether anybody
// else has this node's own.
func (c *collector) answers(ctx context.Context) error {
	byLink := map[string][]netip.Addr{}
	for _, r := range c.f.Routes {
		if r.Gateway.Is4() && r.Device != "" && len(byLink[r.Device]) < arpMost {
			byLink[r.Device] = append(byLink[r.Device], r.Gateway)
		}
	}
	own := c.f.Address.Addr()
	for _, a := range c.f.Addrs {
		if a.Prefix.Addr() == own {
			name := c.f.linkName(a.Index)
			byLink[name] = append(byLink[name], own)
		}
	}
	for name, targets := range byLink {
		l, ok := c.f.link(name)
		if !ok || !l.Running || !isEthernet(l.MAC) {
			continue
		}
		found, err := whoHas(ctx, l, own, targets)
		if err != nil {
			return err
		}
		if c.f.Answers == nil {
			c.f.Answers = map[netip.Addr][]string{}
		}
		for _, a := range targets {
			c.f.Answers[a] = found[a]
		}
		if err := c.gateways(ctx, l, own, targets); err != nil {
			return err
		}
	}
	return nil
}

// gateways asks also for the gateway of a peer for whose address several answer: no other
// machine has it, so who answers for it is that peer.
func (c *collector) gateways(ctx context.Context, l nlx.Link, own netip.Addr, targets []netip.Addr) error {
	var more []netip.Addr
	for _, p := range c.f.Peers {
		a := p.Address.Addr()
		if p.Subnet.IsValid() && len(c.f.Answers[a]) > 1 && slices.Contains(targets, a) {
			more = append(more, p.gateway())
		}
	}
	if len(more) == 0 {
		return nil
	}
	found, err := whoHas(ctx, l, own, more)
	for _, a := range more {
		c.f.Answers[a] = found[a]
	}
	return err
}

// residentsMost bounds how many containers are asked.
const residentsMost = 16

// residents asks the containers for their hardware addresses whose neighbour entry looks
// wrong, where no agent knows: a container may have been given another than follows from
// its address.
func (c *collector) residents(ctx context.Context) error {
	if !c.f.Routed || c.f.MACs != nil {
		return nil
	}
	c.f.MACs = map[netip.Addr]string{}
	asked := 0
	for _, e := range c.f.Endpoints {
		l, ok := c.f.link(e.HostIfname)
		suspect := slices.ContainsFunc(c.f.Neighbours, func(n nlx.Neighbour) bool { return pins(n, e) && n.MAC.String() != netsetup.MACFor(e.Addr).String() })
		if !suspect || !ok || !l.Running || asked == residentsMost {
			continue
		}
		asked++
		found, err := whoHas(ctx, l, c.f.Address.Addr(), []netip.Addr{e.Addr})
		if err != nil {
			return err
		}
		if len(found[e.Addr]) == 1 {
			c.f.MACs[e.Addr] = found[e.Addr][0]
		}
	}
	return nil
}

// whoHas broadcasts ARP requests on a link and returns which hardware addresses
// answered for each. It asks about own as one who has no address yet: so a machine that
// has it objects, and nobody learns anything.
func whoHas(ctx context.Context, l nlx.Link, own netip.Addr, targets []netip.Addr) (map[netip.Addr][]string, error) {
	s, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_ARP)))
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(s)
	if err := unix.Bind(s, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ARP), Ifindex: l.Index}); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", l.Name, err)
	}
	to := &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ARP), Ifindex: l.Index, Halen: 6, Addr: [8]byte{255, 255, 255, 255, 255, 255}}
	found := map[netip.Addr][]string{}
	for try := range arpTries {
		asked := false
		for _, a := range targets {
			if try > 0 && (len(found[a]) > 0 || a == own) {
				continue
			}
			asked = true
			from := own
			if a == own {
				from = netip.IPv4Unspecified()
			}
			if err := unix.Sendto(s, request(l.MAC, from, a), 0, to); err != nil {
				return nil, fmt.Errorf("send on %s: %w", l.Name, err)
			}
		}
		if !asked {
			break
		}
		if err := listen(ctx, s, found, targets, time.Duration(try+1)*arpWait); err != nil {
			return nil, err
		}
	}
	return found, nil
}

func listen(ctx context.Context, s int, found map[netip.Addr][]string, targets []netip.Addr, wait time.Duration) error {
	buf := make([]byte, 128)
	for end := time.Now().Add(wait); ctx.Err() == nil; {
		left := time.Until(end)
		if left <= 0 {
			return nil
		}
		fds := []unix.PollFd{{Fd: int32(s), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(left.Milliseconds())+1)
		if errors.Is(err, unix.EINTR) || err == nil && n == 0 {
			continue
		}
		if err != nil {
			return fmt.Errorf("poll: %w", err)
		}
		size, _, err := unix.Recvfrom(s, buf, unix.MSG_DONTWAIT)
		if err != nil {
			continue // an interface that went down: the end of the wait is near
		}
		if a, mac, ok := reply(buf[:size]); ok && slices.Contains(targets, a) && !slices.Contains(found[a], mac) {
			found[a] = append(found[a], mac)
		}
	}
	return ctx.Err()
}

// request is an ARP request of IPv4 over Ethernet.
func request(mac net.HardwareAddr, from, target netip.Addr) []byte {
	b := binary.BigEndian.AppendUint16(nil, 1) // Ethernet
	b = binary.BigEndian.AppendUint16(b, unix.ETH_P_IP)
	b = append(b, 6, 4)
	b = binary.BigEndian.AppendUint16(b, arpRequest)
	b = append(append(b, mac...), from.AsSlice()...)
	return append(append(b, make([]byte, 6)...), target.AsSlice()...)
}

// reply reads who answers for which address.
func reply(b []byte) (netip.Addr, string, bool) {
	if len(b) < arpSize || binary.BigEndian.Uint16(b[2:]) != unix.ETH_P_IP || b[4] != 6 || b[5] != 4 || binary.BigEndian.Uint16(b[6:]) != arpReply {
		return netip.Addr{}, "", false
	}
	return netip.AddrFrom4([4]byte(b[14:18])), net.HardwareAddr(b[8:14]).String(), true
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }
