package integration

import (
	endian "encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/ipam"
	"stellar.io/stellar/netsetup"
)

// The floor: what a program does that attaches containers by netlink and nothing else.
// It shares no code with us. Its host socket is open already, its thread enters the
// container's namespace for one socket and comes back, requests that depend on nothing
// go to the kernel in one system call, and the indexes come from the echo of the pair's
// creation. As with us the kernel makes no IPv6 addresses. Nothing is recorded, checked,
// filtered, adopted or undone.

// rawGateway is what a routed container's default route leads to.
var rawGateway = netsetup.RoutedGateway

const (
	vethInfoPeer = 1 // VETH_INFO_PEER of linux/veth.h
	addrGenNone  = 1 // IN6_ADDR_GEN_MODE_NONE of linux/if_link.h
	rawProtocol  = unix.RTPROT_STATIC
)

// rawJob is one attach.
type rawJob struct {
	mode ipam.Mode
	ns   int // descriptor
	name string
	addr netip.Addr
	wait bool // for the carrier at both ends
}

// rawWorker is a thread that attaches.
type rawWorker struct {
	b      *testing.B
	bridge int // index
	work   chan func(attach func(rawJob))
	done   chan struct{}
}

// newRawWorker starts a thread whose pairs have their host end in the namespace hostns.
func newRawWorker(b *testing.B, hostns, bridge int) *rawWorker {
	b.Helper()
	w := &rawWorker{b: b, bridge: bridge, work: make(chan func(func(rawJob))), done: make(chan struct{})}
	ready := make(chan error)
	go w.run(hostns, ready)
	if err := <-ready; err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		close(w.work)
		<-w.done
	})
	return w
}

func (w *rawWorker) run(hostns int, ready chan<- error) {
	defer close(w.done)
	runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
	own, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		ready <- err
		return
	}
	defer unix.Close(own)
	host, err := openRaw(hostns, own)
	ready <- err
	if err != nil {
		return
	}
	defer host.close()
	for work := range w.work {
		work(func(job rawJob) {
			if err := w.attach(host, own, job); err != nil {
				w.b.Error(fmt.Errorf("by hand: %w", err))
			}
		})
		w.done <- struct{}{}
	}
}

// do runs work on the thread.
func (w *rawWorker) do(work func(attach func(rawJob))) {
	w.work <- work
	<-w.done
}

func (w *rawWorker) attach(host *rawConn, own int, job rawJob) error {
	guest, err := openRaw(job.ns, own)
	if err != nil {
		return err
	}
	defer guest.close()
	mac := netsetup.MACFor(job.addr)
	gateway := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	peer := rawConcat(rawLink(0, 0), rawAttr(unix.IFLA_IFNAME, []byte("eth0\x00")), rawAttr(unix.IFLA_ADDRESS, mac), rawAttr(unix.IFLA_NET_NS_FD, rawUint(job.ns)))
	pair := rawConcat(rawLink(0, 0), rawAttr(unix.IFLA_IFNAME, []byte(job.name+"\x00")),
		rawAttr(unix.IFLA_LINKINFO, rawConcat(rawAttr(unix.IFLA_INFO_KIND, []byte("veth\x00")),
			rawAttr(unix.IFLA_INFO_DATA, rawAttr(vethInfoPeer, peer)))))
	if job.mode == ipam.ModeBridge {
		pair = append(pair, rawAttr(unix.IFLA_MASTER, rawUint(w.bridge))...)
	} else {
		pair = append(pair, rawAttr(unix.IFLA_ADDRESS, gateway)...)
	}
	var ends [2]int // index of the host's end, and of the container's
	err = host.do(func(body []byte) { ends = rawEnds(body) }, rawMessage(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ECHO, pair))
	if err != nil {
		return fmt.Errorf("pair: %w", err)
	}
	up := [][]byte{rawNoIPv6(ends[0]), rawMessage(unix.RTM_NEWLINK, 0, rawLink(ends[0], unix.IFF_UP))}
	if job.mode == ipam.ModeRouted {
		up = append(up, rawNeigh(ends[0], job.addr, mac), rawRoute(ends[0], job.addr, 32, netip.Addr{}, rawGateway))
	}
	if err := host.do(nil, up...); err != nil {
		return fmt.Errorf("host's end: %w", err)
	}
	if err := guest.do(nil, rawInside(job, ends[1], gateway)...); err != nil {
		return fmt.Errorf("inside: %w", err)
	}
	if !job.wait {
		return nil
	}
	for i, c := range []*rawConn{host, guest} {
		for running := false; !running; {
			err := c.do(func(body []byte) { running = endian.NativeEndian.Uint32(body[8:])&unix.IFF_RUNNING != 0 }, rawMessage(unix.RTM_GETLINK, 0, rawLink(ends[i], 0)))
			if err != nil {
				return fmt.Errorf("carrier: %w", err)
			}
			if !running {
				time.Sleep(time.Millisecond)
			}
		}
	}
	return nil
}

// rawInside is everything that happens in the container.
func rawInside(job rawJob, index int, gateway net.HardwareAddr) [][]byte {
	bits, via := byte(22), netip.AddrFrom4([4]byte{172, 16, 0, 1})
	if job.mode == ipam.ModeRouted {
		bits, via = 32, rawGateway
	}
	addr := append([]byte{unix.AF_INET, bits, 0, 0}, rawUint(index)...)
	out := [][]byte{
		rawNoIPv6(index),
		rawMessage(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, rawConcat(addr, rawAttr(unix.IFA_LOCAL, job.addr.AsSlice()), rawAttr(unix.IFA_ADDRESS, job.addr.AsSlice()))),
		rawMessage(unix.RTM_NEWLINK, 0, rawLink(index, unix.IFF_UP)),
		rawMessage(unix.RTM_NEWLINK, 0, rawLink(1, unix.IFF_UP)),
	}
	if job.mode == ipam.ModeRouted {
		out = append(out, rawNeigh(index, via, gateway))
	}
	return append(out, rawRoute(index, netip.IPv4Unspecified(), 0, via, netip.Addr{}))
}

// rawNeigh is an entry for a neighbour that never needs to be asked for.
func rawNeigh(index int, ip netip.Addr, mac net.HardwareAddr) []byte {
	fixed := rawConcat([]byte{unix.AF_INET, 0, 0, 0}, rawUint(index), []byte{unix.NUD_PERMANENT, 0, 0, 0})
	return rawMessage(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, rawConcat(fixed, rawAttr(unix.NDA_DST, ip.AsSlice()), rawAttr(unix.NDA_LLADDR, mac)))
}

// rawRoute leads to a gateway that is on the link, or, without one, to the link, then
// with the address that the host speaks from.
func rawRoute(index int, dst netip.Addr, bits byte, via, src netip.Addr) []byte {
	scope := byte(unix.RT_SCOPE_LINK)
	if via.IsValid() {
		scope = unix.RT_SCOPE_UNIVERSE
	}
	m := []byte{unix.AF_INET, bits, 0, 0, unix.RT_TABLE_MAIN, rawProtocol, scope, unix.RTN_UNICAST}
	m = append(m, rawUint(0)...)
	if via.IsValid() {
		endian.NativeEndian.PutUint32(m[8:], unix.RTNH_F_ONLINK)
		m = append(m, rawAttr(unix.RTA_GATEWAY, via.AsSlice())...)
	}
	m = append(m, rawAttr(unix.RTA_OIF, rawUint(index))...)
	if bits > 0 {
		m = append(m, rawAttr(unix.RTA_DST, dst.AsSlice())...)
	}
	if src.IsValid() {
		m = append(m, rawAttr(unix.RTA_PREFSRC, src.AsSlice())...)
	}
	return rawMessage(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, m)
}

// rawNoIPv6 keeps the kernel from giving the link an IPv6 address. Else each of a
// thousand ports sends its first packets to all others, and that is most of the work.
func rawNoIPv6(index int) []byte {
	mode := rawAttr(unix.IFLA_INET6_ADDR_GEN_MODE, []byte{addrGenNone})
	return rawMessage(unix.RTM_NEWLINK, 0, rawConcat(rawLink(index, 0), rawAttr(unix.IFLA_AF_SPEC, rawAttr(unix.AF_INET6, mode))))
}

// rawEnds reads the index of a veth and of its other end.
func rawEnds(body []byte) (ends [2]int) {
	ends[0] = int(endian.NativeEndian.Uint32(body[4:]))
	for rest := body[unix.SizeofIfInfomsg:]; len(rest) >= 4; {
		n := int(endian.NativeEndian.Uint16(rest))
		if endian.NativeEndian.Uint16(rest[2:]) == unix.IFLA_LINK {
			ends[1] = int(endian.NativeEndian.Uint32(rest[4:]))
		}
		rest = rest[min((n+3)&^3, len(rest)):]
	}
	return ends
}

func rawUint(v int) []byte { return endian.NativeEndian.AppendUint32(nil, uint32(v)) }

func rawConcat(parts ...[]byte) (out []byte) {
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

func rawAttr(typ uint16, v []byte) []byte {
	out := endian.NativeEndian.AppendUint16(nil, uint16(4+len(v)))
	out = append(endian.NativeEndian.AppendUint16(out, typ), v...)
	return append(out, make([]byte, -len(out)&3)...)
}

// rawLink is the fixed part of a message about a link.
func rawLink(index int, flags uint32) []byte {
	out := make([]byte, unix.SizeofIfInfomsg)
	endian.NativeEndian.PutUint32(out[4:], uint32(index))
	endian.NativeEndian.PutUint32(out[8:], flags)
	endian.NativeEndian.PutUint32(out[12:], flags)
	return out
}

func rawMessage(typ, flags uint16, body []byte) []byte {
	out := endian.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	out = endian.NativeEndian.AppendUint16(out, typ)
	out = endian.NativeEndian.AppendUint16(out, unix.NLM_F_REQUEST|unix.NLM_F_ACK|flags)
	return append(append(out, make([]byte, 8)...), body...)
}

// rawConn is a netlink socket.
type rawConn struct {
	fd int
	in []byte
}

// openRaw opens a socket in a namespace; the thread goes back to the one of own.
func openRaw(ns, own int) (*rawConn, error) {
	if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if back := unix.Setns(own, unix.CLONE_NEWNET); back != nil {
		panic(back) // the thread must not go on where it is
	}
	if err != nil {
		return nil, err
	}
	return &rawConn{fd: fd, in: make([]byte, 16<<10)}, nil
}

func (c *rawConn) close() { unix.Close(c.fd) }

// do sends the messages at once and returns the first refusal. fn is called for what
// comes besides acknowledgements.
func (c *rawConn) do(fn func(body []byte), msgs ...[]byte) error {
	if err := unix.Sendto(c.fd, rawConcat(msgs...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	var first error
	for left := len(msgs); left > 0; {
		n, _, err := unix.Recvfrom(c.fd, c.in, 0)
		if err != nil {
			return err
		}
		for rest := c.in[:n]; len(rest) >= unix.SizeofNlMsghdr; {
			size := int(endian.NativeEndian.Uint32(rest))
			body := rest[unix.SizeofNlMsghdr:size]
			if endian.NativeEndian.Uint16(rest[4:]) != unix.NLMSG_ERROR {
				if fn != nil {
					fn(body)
				}
			} else {
				left--
				if errno := -int32(endian.NativeEndian.Uint32(body)); errno != 0 && first == nil {
					first = fmt.Errorf("message %d: %w", len(msgs)-left, syscall.Errno(errno))
				}
			}
			rest = rest[min((size+3)&^3, len(rest)):]
		}
	}
	return first
}
