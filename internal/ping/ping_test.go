package ping_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"stellar.io/stellar/internal/ping"
	"stellar.io/stellar/internal/testx"
)

// open opens a socket inside a namespace.
func open(t *testing.T, ns *testx.NetNS, dontFragment bool) *ping.Socket {
	t.Helper()
	var s *ping.Socket
	if err := ns.Do(func() (err error) {
		s, err = ping.Open(dontFragment)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func collect(t *testing.T, s *ping.Socket, o ping.Options) []ping.Result {
	t.Helper()
	var got []ping.Result
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := s.Run(ctx, o, func(r ping.Result) error { got = append(got, r); return nil }); err != nil {
		t.Fatal(err)
	}
	return got
}

var (
	second  = netip.MustParseAddr("192.0.2.2")
	nobody  = netip.MustParseAddr("192.0.2.77")
	outside = netip.MustParseAddr("192.0.2.254")
)

func TestRun(t *testing.T) {
	lan := testx.NewLAN(t, 2)
	s := open(t, lan.Hosts[0], false)
	o := ping.Options{Target: second, Count: 3, Interval: 10 * time.Millisecond, Wait: 5 * time.Second, Size: 56}
	for i, r := range collect(t, s, o) {
		if !r.OK() || r.Seq != i+1 || r.From != second || r.Bytes != 64 || r.TTL != 64 || r.RTT <= 0 || r.RTT > o.Wait {
			t.Errorf("reply %+v", r)
		}
	}
	o.Size = 3000 // in pieces
	if got := collect(t, s, o); len(got) != 3 || !got[0].OK() || got[0].Bytes != 3008 {
		t.Errorf("got %+v", got)
	}
	o.Size, o.Target = 0, outside
	if got := collect(t, s, o); len(got) != 3 || !got[2].OK() || got[2].Bytes != 8 {
		t.Errorf("got %+v", got)
	}

	for _, tt := range []struct {
		name, rule, host string // of nft
		target           netip.Addr
		wait             time.Duration
		want             string
	}{
		{"dropped", "ip saddr 192.0.2.1 drop", "input", second, 300 * time.Millisecond, ping.NoAnswer},
		{"refused", "ip saddr 192.0.2.1 reject with icmp type admin-prohibited", "input", second, 5 * time.Second, "administratively prohibited: a filter refuses it"},
		{"refused here", "", "output", second, 5 * time.Second, "not sent: a filter of this host refuses it"},
		{"nobody there", "", "", nobody, 30 * time.Second, "host unreachable"},
		{"no address of a host", "", "", netip.MustParseAddr("240.0.0.1"), 300 * time.Millisecond, "not sent: "},
	} {
		switch tt.host {
		case "input":
			lan.Hosts[1].Run(t, "nft", fmt.Sprintf("add table ip t; add chain ip t c { type filter hook input priority 0; }; add rule ip t c %s", tt.rule))
		case "output":
			lan.Hosts[0].Run(t, "nft", "add table ip t; add chain ip t c { type filter hook output priority 0; }; add rule ip t c ip daddr 192.0.2.2 drop")
		}
		got := collect(t, s, ping.Options{Target: tt.target, Count: 2, Interval: time.Millisecond, Wait: tt.wait, Size: 56})
		if len(got) != 2 || !strings.HasPrefix(got[0].Problem, tt.want) {
			if tt.name == "no address of a host" && len(got) == 2 && !got[0].OK() {
				continue // some kernels send it by the default route: nobody answers
			}
			t.Errorf("%s: %+v", tt.name, got)
		}
		for i, host := range map[string]int{"input": 1, "output": 0} {
			if tt.host == i {
				lan.Hosts[host].Run(t, "nft", "delete table ip t")
			}
		}
	}
}

// Two sockets in one namespace do not take each other's replies, and late ends are
// the caller's.
func TestRunTogether(t *testing.T) {
	lan := testx.NewLAN(t, 2)
	done := make(chan int, 2)
	for range cap(done) {
		s := open(t, lan.Hosts[0], false)
		go func() {
			n := 0
			err := s.Run(t.Context(), ping.Options{Target: second, Count: 200, Interval: time.Millisecond, Wait: 10 * time.Second}, func(r ping.Result) error {
				if r.OK() {
					n++
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
			done <- n
		}()
	}
	for range cap(done) {
		if n := <-done; n != 200 {
			t.Errorf("%d of 200 replies", n)
		}
	}
	s := open(t, lan.Hosts[0], false)
	stop := errors.New("enough")
	if err := s.Run(t.Context(), ping.Options{Target: second, Interval: time.Millisecond, Wait: time.Second}, func(ping.Result) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("err %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := s.Run(ctx, ping.Options{Target: nobody, Interval: time.Hour, Wait: time.Hour}, func(ping.Result) error { return nil }); err != nil {
		t.Errorf("err %v", err)
	}
}

// A link on the way that is smaller than both ends': with a router that tells, and
// behind one that keeps silent.
func TestPathMTU(t *testing.T) {
	a, router, b := testx.NewNetNS(t), testx.NewNetNS(t), testx.NewNetNS(t)
	for i, ns := range []*testx.NetNS{a, b} {
		router.Run(t, "ip", "link", "add", fmt.Sprintf("p%d", i), "type", "veth", "peer", "name", "eth0", "netns", ns.Name)
		router.Run(t, "ip", "address", "add", fmt.Sprintf("198.51.100.%d/25", i*128+1), "dev", fmt.Sprintf("p%d", i))
		router.Run(t, "ip", "link", "set", fmt.Sprintf("p%d", i), "up")
		ns.Run(t, "ip", "address", "add", fmt.Sprintf("198.51.100.%d/25", i*128+2), "dev", "eth0")
		ns.Run(t, "ip", "link", "set", "eth0", "up")
		ns.Run(t, "ip", "route", "add", "default", "via", fmt.Sprintf("198.51.100.%d", i*128+1))
	}
	router.Run(t, "sysctl", "-qw", "net.ipv4.ip_forward=1")
	o := ping.MTUOptions{Target: netip.MustParseAddr("198.51.100.130"), Expected: 1500, Tries: 2, Interval: 10 * time.Millisecond, Wait: time.Second}
	for deadline := time.Now().Add(20 * time.Second); ; { // the kernel takes its time to believe in new links
		if got := collect(t, open(t, a, false), ping.Options{Target: o.Target, Count: 1, Wait: time.Second}); got[0].OK() {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("no way at all: %+v", got)
		}
	}
	find := func(what string, want int) {
		t.Helper()
		if got, err := open(t, a, true).PathMTU(t.Context(), o); got != want || err != nil {
			t.Errorf("%s: %d, %v; want %d", what, got, err, want)
		}
	}
	find("as it should be", 1500)
	router.Run(t, "ip", "link", "set", "p1", "mtu", "1400")
	find("a smaller link", 1400)
	a.Run(t, "nft", "add table ip t; add chain ip t c { type filter hook input priority 0; }; add rule ip t c icmp type destination-unreachable drop")
	find("a smaller link, and the message is lost", 1400)
	router.Run(t, "sysctl", "-qw", "net.ipv4.ip_forward=0")
	find("no way at all", 0)
}
