package nlx

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/testx"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func dial(t *testing.T, ns *testx.NetNS, protocol int) *Conn {
	t.Helper()
	c, err := Dial(ns.FD, protocol)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func do(t *testing.T, c *Conn, m ...*Message) {
	t.Helper()
	r, err := c.Do(m...)
	if err != nil {
		t.Fatal(err)
	}
	for i := range r {
		if r[i].Err != nil {
			t.Fatalf("message %d: %v", i, r[i].Err)
		}
	}
}

var testMAC = net.HardwareAddr{2, 0, 0, 0, 0, 1}

// TestVeth: one request makes both ends with all of their properties.
func TestVeth(t *testing.T) {
	host, guest := testx.NewNetNS(t), testx.NewNetNS(t)
	c, inside := dial(t, host, unix.NETLINK_ROUTE), dial(t, guest, unix.NETLINK_ROUTE)
	do(t, c, NewBridge{Name: "br0", MAC: testMAC, Group: 7}.Message())
	bridge, err := c.LinkByName("br0")
	if err != nil || bridge.Kind != "bridge" || bridge.Group != 7 || bridge.MAC.String() != testMAC.String() || bridge.Up {
		t.Fatalf("bridge %+v, %v", bridge, err)
	}
	v := NewVeth{
		Host: VethEnd{"veth0", net.HardwareAddr{2, 0, 0, 0, 0, 2}}, Peer: VethEnd{"eth0", net.HardwareAddr{2, 0, 0, 0, 0, 3}},
		PeerNS: guest.FD, MTU: 1400, Master: bridge.Index, Group: 147,
	}
	r, err := c.Do(v.Message())
	if err != nil || r[0].Err != nil || len(r[0].Data) != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	echo, err := ParseLink(r[0].Data[0])
	if err != nil || echo.Name != "veth0" || echo.Peer == 0 {
		t.Fatalf("echo %+v, %v", echo, err)
	}
	l, err := c.LinkByIndex(echo.Index)
	if err != nil || l.Name != "veth0" || l.Kind != "veth" || l.MTU != 1400 || l.Master != bridge.Index || l.Group != 147 ||
		l.MAC.String() != v.Host.MAC.String() || l.Peer != echo.Peer {
		t.Errorf("host end %+v, %v", l, err)
	}
	if id, err := c.NSID(guest.FD); err != nil || id != l.NSID || id == NoNSID {
		t.Errorf("namespace id %d, link says %d, %v", id, l.NSID, err)
	}
	p, err := inside.LinkByIndex(echo.Peer)
	if err != nil || p.Name != "eth0" || p.MTU != 1400 || p.MAC.String() != v.Peer.MAC.String() {
		t.Errorf("container's end %+v, %v", p, err)
	}
	do(t, inside, NewAddr(p.Index, netip.MustParsePrefix("172.16.0.2/22")), SetLinkUp(p.Index))
	do(t, c, SetLink(l.Index).Bytes(unix.IFLA_IFALIAS, []byte("x")).NoIPv6Address(), SetLinkUp(l.Index))
	do(t, inside, NewRoute(p.Index, netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("172.16.0.1"), 147))
	routes, err := inside.Routes(0)
	if err != nil || len(routes) != 2 || !routes[0].Default() || routes[0].Via.String() != "172.16.0.1" || routes[0].Protocol != 147 {
		t.Errorf("routes %+v, %v", routes, err)
	}
	addrs, err := inside.Addrs(p.Index)
	if err != nil || len(addrs) != 1 || addrs[0].Prefix.String() != "172.16.0.2/22" {
		t.Errorf("addresses %+v, %v", addrs, err)
	}
	if out := guest.Run(t, "ip", "address"); !strings.Contains(out, "brd 172.16.3.255") {
		t.Errorf("no broadcast address: %s", out)
	}
	for _, ns := range []*testx.NetNS{host, guest} {
		if out := ns.Run(t, "ip", "-6", "address", "show", "scope", "link"); ns == host && out != "" {
			t.Errorf("link-local address: %s", out)
		}
	}
}

// TestBatch: the kernel goes on after a refused message, and each gets its answer.
func TestBatch(t *testing.T) {
	c := dial(t, testx.NewNetNS(t), unix.NETLINK_ROUTE)
	b := NewBridge{Name: "br0", MAC: testMAC}
	r, err := c.Do(b.Message(), b.Message(), NewMessage(unix.RTM_GETLINK, 0).Raw(ifinfomsg(1, 0, 0)), DelLink(99))
	if err != nil {
		t.Fatal(err)
	}
	if r[0].Err != nil || !errors.Is(r[1].Err, unix.EEXIST) || r[2].Err != nil || len(r[2].Data) != 1 || !errors.Is(r[3].Err, unix.ENODEV) {
		t.Errorf("%+v", r)
	}
}

func TestErrorText(t *testing.T) {
	c := dial(t, testx.NewNetNS(t), unix.NETLINK_ROUTE)
	r, err := c.Do(NewRoute(1, netip.MustParsePrefix("10.0.0.0/8"), netip.MustParseAddr("192.0.2.9"), 147))
	var e *Error
	if err != nil || !errors.As(r[0].Err, &e) || e.Text == "" || !errors.Is(r[0].Err, e.Errno) {
		t.Errorf("%v, %v", r, err)
	}
}

// TestListUnderChurn: no list is ever short while links come and go.
func TestListUnderChurn(t *testing.T) {
	ns := testx.NewNetNS(t)
	c := dial(t, ns, unix.NETLINK_ROUTE)
	const fixed = 20
	for i := range fixed {
		do(t, c, NewBridge{Name: fmt.Sprintf("fixed%d", i), MAC: testMAC}.Message())
	}
	h, err := Open(ns.FD)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	var wait sync.WaitGroup
	churn := dial(t, ns, unix.NETLINK_ROUTE)
	wait.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			_, _ = churn.Do(NewBridge{Name: fmt.Sprintf("churn%d", i%200), MAC: testMAC}.Message())
			if i%50 == 49 {
				links, err := churn.Links()
				for _, l := range links {
					if err == nil && strings.HasPrefix(l.Name, "churn") {
						_, _ = churn.Do(SetLink(l.Index).Uint32(unix.IFLA_GROUP, 99))
					}
				}
				_, _ = churn.Do(DelLinkGroup(99))
			}
		}
	})
	lists, interrupted := 0, 0
	for ctx.Err() == nil {
		found := 0
		links, err := c.Links()
		if err != nil && !errors.Is(err, ErrInterrupted) {
			t.Fatal(err)
		}
		for _, l := range links {
			if strings.HasPrefix(l.Name, "fixed") {
				found++
			}
		}
		if err != nil {
			interrupted++
			continue
		}
		lists++
		if found != fixed {
			t.Errorf("%d of %d links in the list", found, fixed)
		}
		if all, err := h.LinkList(); err == nil && len(all) < fixed {
			t.Errorf("library's list has %d links", len(all))
		}
	}
	wait.Wait()
	t.Logf("%d lists, %d given up", lists, interrupted)
	if lists == 0 {
		t.Error("no list at all")
	}
}

// TestSubscribeOverrun: lost notifications are told, and the subscription goes on.
func TestSubscribeOverrun(t *testing.T) {
	ns := testx.NewNetNS(t)
	c := dial(t, ns, unix.NETLINK_ROUTE)
	s, err := Subscribe(ns.FD, unix.NETLINK_ROUTE, unix.RTNLGRP_LINK)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	raw, err := s.file.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4096)
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 200 {
		do(t, c, SetLink(1).Bytes(unix.IFLA_IFALIAS, fmt.Appendf(nil, "a%d", i)))
	}
	overrun := false
	for range 300 {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		err := s.Receive(ctx, func(uint16, []byte) {})
		cancel()
		overrun = overrun || errors.Is(err, ErrOverrun)
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
	}
	if !overrun {
		t.Error("no word of lost notifications")
	}
	do(t, c, SetLink(1).Bytes(unix.IFLA_IFALIAS, []byte("after")))
	got := ""
	err = s.Receive(t.Context(), func(typ uint16, b []byte) {
		if l, err := ParseLink(b); err == nil && typ == unix.RTM_NEWLINK {
			got = l.Alias
		}
	})
	if err != nil || got != "after" {
		t.Errorf("after the overrun: %q, %v", got, err)
	}
}

func TestRulesetGeneration(t *testing.T) {
	ns := testx.NewNetNS(t)
	c := dial(t, ns, unix.NETLINK_NETFILTER)
	before, err := c.RulesetGeneration()
	if err != nil {
		t.Fatal(err)
	}
	ns.Run(t, "nft", "add", "table", "inet", "x")
	after, err := c.RulesetGeneration()
	if err != nil || after == before {
		t.Errorf("generation %d before a change, %d after, %v", before, after, err)
	}
	if again, err := c.RulesetGeneration(); err != nil || again != after {
		t.Errorf("generation %d without a change, %v", again, err)
	}
}

func TestNoDescriptorsLeft(t *testing.T) {
	ns := testx.NewNetNS(t)
	count := func() int {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(fds)
	}
	cycle := func() {
		c, err := Dial(ns.FD, unix.NETLINK_ROUTE)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		h, err := Open(ns.FD)
		if err != nil {
			t.Fatal(err)
		}
		h.Close()
		s, err := Subscribe(ns.FD, unix.NETLINK_ROUTE, unix.RTNLGRP_LINK)
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		if _, err := Subscribe(ns.FD, unix.NETLINK_ROUTE, 1<<20); err == nil {
			t.Fatal("subscribed to a group that does not exist")
		}
	}
	cycle()
	before := count()
	for range 100 {
		cycle()
	}
	if after := count(); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// FuzzParse: no bytes from the kernel can crash the decoders.
func FuzzParse(f *testing.F) {
	f.Add(NewVeth{Host: VethEnd{"a", testMAC}, Peer: VethEnd{"b", testMAC}, Master: 3, Group: 147}.Message().b[16:])
	f.Add(NewRoute(3, netip.MustParsePrefix("10.0.0.0/8"), netip.MustParseAddr("10.0.0.1"), 147).b[16:])
	f.Add(binary.NativeEndian.AppendUint32(nil, 20))
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = ParseLink(b)
		_, _ = ParseRoute(b)
		_, _ = ParseAddr(b)
		split(b, func(h header, body []byte) { _ = decodeError(h, body) })
	})
}
