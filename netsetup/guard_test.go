package netsetup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/nsx"
	"stellar.io/stellar/internal/testx"
	"stellar.io/stellar/internal/testx/faults"
)

// forgedFrames is how many of each kind are sent.
const forgedFrames = 10000

var agentPorts = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:9640"), netip.MustParseAddrPort("0.0.0.0:9642")}

// scene is an attacker, a victim and a container of somebody else on one host,
// and all the places where a forged frame could be seen.
type scene struct {
	*bed
	attacker, victim, legal *container
	foreign                 *testx.NetNS // a port of the bridge that is not ours
	raw                     *packetSocket
	seen                    map[string]*capture
	kinds                   []forgery
}

func newScene(t *testing.T) *scene {
	s := &scene{bed: newBed(t, func(c *Config) { c.AgentPorts = agentPorts }).ensure()}
	s.attacker, s.victim, s.legal = s.attach("172.16.0.2"), s.attach("172.16.0.3"), s.attach("172.16.0.4")
	s.foreign = s.foreignPort("172.16.0.5")
	mustPing(t, s.attacker, "172.16.0.1", "172.16.0.3")
	if err := s.n.GuardNodes([]netip.AddrPort{netip.MustParseAddrPort("192.0.2.2:9640")}); err != nil {
		t.Fatal(err)
	}
	p := parties{
		mac: s.attacker.ep.MAC, victimMAC: s.victim.ep.MAC, gatewayMAC: bridgeMACFor(testNode),
		addr: s.attacker.spec.Addr, victim: s.victim.spec.Addr, gateway: s.n.cfg.Gateway, beyond: netip.MustParseAddr("192.0.2.254"),
	}
	s.kinds = forgeries(p,
		netip.MustParseAddrPort("192.0.2.1:9640"), netip.MustParseAddrPort("192.0.2.1:9642"), // the uplink's address
		netip.MustParseAddrPort("172.16.0.1:9642"), netip.MustParseAddrPort("192.0.2.2:9640")) // the gateway, another node
	s.raw = newPacketSocket(t, int(s.attacker.ns.file.Fd()), "eth0", 0)
	s.seen = map[string]*capture{
		"the victim":    newCapture(t, int(s.victim.ns.file.Fd()), "eth0"),
		"the bridge":    newCapture(t, s.host.FD, DefaultBridge),
		"a foreigner":   newCapture(t, s.foreign.FD, "eth0"),
		"the next host": newCapture(t, s.lan.Outside.FD, "lan"),
	}
	s.host.Run(t, "nft", `table ip witness {
		chain input { type filter hook input priority 1000; tcp dport { 9640, 9642 } counter comment "in"; }
		chain forward { type filter hook forward priority 1000; tcp dport { 9640, 9642 } counter comment "through"; }
	}`)
	return s
}

// foreignPort puts a namespace on the bridge as a CNI plugin would.
func (b *bed) foreignPort(addr string) *testx.NetNS {
	b.t.Helper()
	ns := testx.NewNetNS(b.t)
	b.host.Run(b.t, "ip", "link", "add", "cni0", "master", DefaultBridge, "type", "veth", "peer", "name", "eth0", "netns", ns.Name)
	b.host.Run(b.t, "ip", "link", "set", "cni0", "up")
	ns.Run(b.t, "ip", "address", "add", addr+"/22", "dev", "eth0")
	ns.Run(b.t, "ip", "link", "set", "eth0", "up")
	return ns
}

// count returns how often each kind was seen since the last call: frames by the
// captures, connections by the host's counters.
func (s *scene) count() (total int, where string) {
	s.t.Helper()
	time.Sleep(20 * time.Millisecond) // for the readers of the captures
	for name, c := range s.seen {
		if n := int(c.seen.Swap(0)); n > 0 {
			total += n
			where += fmt.Sprintf(" %d by %s", n, name)
		}
	}
	return total, where
}

func (s *scene) connections() int {
	s.t.Helper()
	total := 0
	for _, m := range regexp.MustCompile(`counter packets (\d+)`).FindAllStringSubmatch(s.host.Run(s.t, "nft", "list", "table", "ip", "witness"), -1) {
		n, _ := strconv.Atoi(m[1])
		total += n
	}
	return total
}

// attack sends n frames of each kind and returns how many of each were seen. Between
// them heal undoes what they did.
func (s *scene) attack(n int, heal func()) map[string]int {
	s.t.Helper()
	s.count()
	result := make(map[string]int)
	for _, k := range s.kinds {
		before := 0
		if strings.HasPrefix(k.name, "TCP") {
			before = s.connections()
		}
		heal()
		s.raw.send(s.t, k.frame, n)
		seen, where := s.count()
		if strings.HasPrefix(k.name, "TCP") {
			seen, where = s.connections()-before, " by who listens" // the bridge hands them on; who listens does not
		}
		if result[k.name] = seen; seen > 0 {
			s.t.Logf("%s: seen%s", k.name, where)
		}
	}
	return result
}

// TestForged: nothing that is forged arrives anywhere, with and without an agent,
// and what is legal loses nothing.
func TestForged(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	ping, start := s.host.Command("nsenter", "--net=/proc/"+strconv.Itoa(s.legal.pid)+"/ns/net", "ping", "-n", "-q", "-i", "0.002", "172.16.0.3")
	out := new(bytes.Buffer)
	ping.Stdout = out
	if err := start(); err != nil {
		t.Fatal(err)
	}
	for _, agent := range []string{"running", "dead"} {
		if agent == "dead" {
			if err := s.n.Close(); err != nil {
				t.Fatal(err)
			}
			s.n = s.network() // for the end of the test; it touches nothing
		}
		for kind, seen := range s.attack(forgedFrames, func() {}) {
			if seen > 0 {
				faults.Safety(t, "agent %s: %s: %d of %d passed", agent, kind, seen, forgedFrames)
			}
		}
	}
	_ = ping.Process.Signal(unix.SIGINT)
	_ = ping.Wait()
	if !strings.Contains(out.String(), " 0% packet loss") {
		faults.Safety(t, "legal packets lost: %s", out)
	}
	s.quiet()
}

// TestForgedWithoutGuard is the control: without the guard each kind is seen.
func TestForgedWithoutGuard(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	if err := s.n.guard.remove(); err != nil {
		t.Fatal(err)
	}
	for kind, seen := range s.attack(50, func() { // everybody has learned what is wrong
		s.host.Run(t, "ip", "neigh", "flush", "dev", DefaultBridge)
		for _, c := range []*container{s.attacker, s.victim} {
			c.run("ip", "neigh", "flush", "dev", "eth0")
		}
		mustPing(t, s.attacker, "172.16.0.1")
		mustPing(t, s.victim, "172.16.0.1")
	}) {
		if seen == 0 {
			t.Errorf("%s is seen nowhere, so its absence proves nothing", kind)
		}
	}
}

// TestForgedDuringRestarts: while one agent after the other takes over, no forged
// frame passes and no legal one is lost.
func TestForgedDuringRestarts(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	for i := range 200 {
		s.attach(fmt.Sprintf("172.16.1.%d", i+2))
	}
	ping, start := s.host.Command("nsenter", "--net=/proc/"+strconv.Itoa(s.legal.pid)+"/ns/net", "ping", "-n", "-q", "-i", "0.002", "172.16.0.3")
	out := new(bytes.Buffer)
	ping.Stdout = out
	if err := start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan int)
	go func() {
		restarts := 0
		for ; ctx.Err() == nil; restarts++ {
			n, err := New(s.cfg)
			if err == nil {
				err = errors.Join(n.Ensure(context.WithoutCancel(ctx)), n.Close())
			}
			if err != nil {
				t.Errorf("restart: %v", err)
			}
		}
		done <- restarts
	}()
	for kind, seen := range s.attack(2000, func() {}) {
		if seen > 0 {
			faults.Safety(t, "%s: %d passed", kind, seen)
		}
	}
	cancel()
	t.Logf("%d restarts", <-done)
	_ = ping.Process.Signal(unix.SIGINT)
	_ = ping.Wait()
	if !strings.Contains(out.String(), " 0% packet loss") {
		faults.Safety(t, "legal packets lost: %s", out)
	}
}

// packetSocket sends and receives whole frames.
type packetSocket struct {
	file *os.File
	fd   int
}

func newPacketSocket(t testing.TB, ns int, ifname string, protocol uint16) *packetSocket {
	t.Helper()
	var fd int
	err := nsx.Do(ns, func() (err error) {
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
			return err
		}
		req, err := unix.NewIfreq(ifname)
		if err != nil {
			return err
		}
		if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, req); err != nil {
			return err
		}
		// Of what came in with a tag, the kernel keeps the tag apart.
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: int(req.Uint32())})
	})
	if err != nil {
		t.Fatal(err)
	}
	s := &packetSocket{file: os.NewFile(uintptr(fd), "packet "+ifname), fd: fd}
	t.Cleanup(func() { s.file.Close() })
	return s
}

func (s *packetSocket) send(t testing.TB, frame []byte, n int) {
	t.Helper()
	for i := 0; i < n; {
		_, err := unix.Write(s.fd, frame)
		switch {
		case err == nil:
			i++
		case errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.EAGAIN):
			time.Sleep(time.Millisecond)
		default:
			t.Fatal(err)
		}
	}
}

// capture counts the marked frames that come in by an interface.
type capture struct {
	seen atomic.Int64
}

const allProtocols = 0x0300 // ETH_P_ALL in network order

func newCapture(t testing.TB, ns int, ifname string) *capture {
	t.Helper()
	s, c := newPacketSocket(t, ns, ifname, allProtocols), &capture{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 2048)
		for {
			n, err := s.file.Read(b)
			if err != nil {
				return
			}
			if bytes.Contains(b[:n], marker) {
				c.seen.Add(1)
			}
		}
	}()
	t.Cleanup(func() { s.file.Close(); <-done })
	return c
}
