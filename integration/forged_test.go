package integration

import (
	bytes8 "encoding/binary" // binary is the one under test
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/config"
	"stellar.io/stellar/internal/nsx"
	"stellar.io/stellar/internal/testx/faults"
)

// TestForgedAgentKilled: after the agent was killed nobody is there to repair, and still
// what a container sends in another's name does not reach its host: not before, not
// after, and not while the next agent takes over. Without the guard all of it would.
// What kinds there are netsetup tests; here are three of a whole node.
func TestForgedAgentKilled(t *testing.T) {
	for _, mode := range []string{config.ModeBridge, config.ModeRouted} {
		t.Run(mode, func(t *testing.T) { testForged(t, startNode(t, nodeOptions{mode: mode})) })
	}
}

// witnessPort is the first UDP port by which the witness tells frames apart.
const witnessPort = 40960

func testForged(t *testing.T, n *node) {
	a, b := n.start("a"), n.start("b")
	gateway := "172.16.0.1"
	if n.mode == config.ModeRouted {
		gateway = routedGateway
	}
	n.reaches("a", gateway)
	n.reaches("a", b.Address)
	s := n.packetSocket("a")
	kinds := forgedBy(a, b, gateway, n.neighbour("a", gateway))
	n.host.Run(t, "nft", fmt.Sprintf(`table inet witness {
		chain in { type filter hook prerouting priority -250;
			udp dport %d counter comment "k0"; udp dport %d counter comment "k1"; udp dport %d counter comment "k2"; }
	}
	table arp witness {
		chain in { type filter hook input priority 1000; arp saddr ip %s arp saddr ether %s counter comment "k3"; }
	}`, witnessPort, witnessPort+1, witnessPort+2, b.Address, a.MAC))
	seen := func(kind int) int {
		out := n.host.Run(t, "nft", "list", "table", "inet", "witness") + n.host.Run(t, "nft", "list", "table", "arp", "witness")
		m := regexp.MustCompile(fmt.Sprintf(`counter packets (\d+) bytes \d+ comment "k%d"`, kind)).FindStringSubmatch(out)
		if m == nil {
			t.Fatalf("the witness has no counter %d:\n%s", kind, out)
		}
		count, _ := strconv.Atoi(m[1])
		return count
	}
	const frames = 200
	send := func(when string, want func(k forged) bool) {
		t.Helper()
		for i, k := range kinds {
			before := seen(i)
			for range frames {
				n.sends(s, k.frame)
			}
			if got := seen(i) - before; !want(k) && got != 0 {
				faults.Safety(t, "%s: %s: %d of %d arrived", when, k.name, got, frames)
			} else if want(k) && got != frames {
				t.Errorf("%s: %s: %d of %d came through", when, k.name, got, frames)
			}
		}
	}
	legal := func(k forged) bool { return k.legal }
	send("agent running", legal)
	_ = n.stopAgent(syscall.SIGKILL)
	send("agent killed", legal)
	n.launch()
	ready := make(chan error, 1)
	go func() {
		deadline := time.Now().Add(quiet)
		_, err := n.run("status", "--wait", "--timeout", "30s")
		for err != nil && time.Now().Before(deadline) { // it does not answer yet
			_, err = n.run("status", "--wait", "--timeout", "30s")
		}
		ready <- err
	}()
	for running := true; running; {
		send("the next agent starts", legal)
		select {
		case err := <-ready:
			if running = false; err != nil {
				t.Fatal(err)
			}
		default:
		}
	}
	n.await("a", "attached")
	send("the next agent runs", legal)
	_ = n.stopAgent(syscall.SIGKILL)
	n.reaches("a", b.Address)

	for line := range strings.Lines(n.host.Run(t, "nft", "list", "tables")) {
		if f := strings.Fields(line); len(f) == 3 && f[2] == "stellar" {
			n.host.Run(t, "nft", "delete", "table", f[1], f[2])
		}
	}
	send("without the guard", func(forged) bool { return true })
}

// forged is a frame, and whether its sender may send it.
type forged struct {
	name  string
	legal bool
	frame []byte
}

// forgedBy are frames of a to its host, in the order of the witness's counters.
func forgedBy(a, b endpoint, gateway string, host net.HardwareAddr) []forged {
	own, _ := net.ParseMAC(a.MAC)
	stranger := net.HardwareAddr{2, 0, 0, 0, 0, 0x66}
	ip := func(s string) []byte { return netip.MustParseAddr(s).AsSlice() }
	udp := func(dst, src net.HardwareAddr, from string, port uint16) []byte {
		h := slices.Concat([]byte{0x45, 0, 0, 36, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0}, ip(from), ip(gateway))
		var sum uint32
		for i := 0; i < len(h); i += 2 {
			sum += uint32(bytes8.BigEndian.Uint16(h[i:]))
		}
		sum = sum&0xffff + sum>>16
		bytes8.BigEndian.PutUint16(h[10:], ^uint16(sum+sum>>16))
		u := bytes8.BigEndian.AppendUint16([]byte{0x03, 0xe8}, port)
		return slices.Concat(dst, src, []byte{8, 0}, h, u, []byte{0, 16, 0, 0}, make([]byte, 24)) // no checksum of UDP
	}
	arp := slices.Concat(host, own, []byte{8, 6, 0, 1, 8, 0, 6, 4, 0, 2}, own, ip(b.Address), host, ip(gateway), make([]byte, 18))
	return []forged{
		{"its own", true, udp(host, own, a.Address, witnessPort)},
		{"another's address", false, udp(host, own, b.Address, witnessPort+1)},
		{"another MAC", false, udp(host, stranger, a.Address, witnessPort+2)},
		{"ARP for another", false, arp},
	}
}

// neighbour is the MAC that a container knows of addr.
func (n *node) neighbour(id, addr string) net.HardwareAddr {
	n.t.Helper()
	out, err := n.exec(id, "ip", "neigh")
	if err != nil {
		n.t.Fatalf("%v: %s", err, out)
	}
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(addr) + ` .*lladdr (\S+)`).FindStringSubmatch(out)
	if m == nil {
		n.t.Fatalf("%s does not know %s: %s", id, addr, out)
	}
	mac, err := net.ParseMAC(m[1])
	if err != nil {
		n.t.Fatal(err)
	}
	return mac
}

// packetSocket is one for whole frames, on eth0 of a container.
func (n *node) packetSocket(id string) (fd int) {
	n.t.Helper()
	pid, err := n.containerd.TaskPID("default", id)
	if err != nil {
		n.t.Fatal(err)
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		n.t.Fatal(err)
	}
	defer ns.Close()
	err = nsx.Do(int(ns.Fd()), func() (err error) {
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		link, err := net.InterfaceByName("eth0")
		if err != nil {
			return errors.Join(err, unix.Close(fd))
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: link.Index})
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

// sends writes one frame.
func (n *node) sends(fd int, frame []byte) {
	n.t.Helper()
	for {
		_, err := unix.Write(fd, frame)
		switch {
		case err == nil:
			return
		case errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.EINTR):
			time.Sleep(time.Millisecond)
		default:
			n.t.Fatal(err)
		}
	}
}
