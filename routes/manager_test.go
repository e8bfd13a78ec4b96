package routes

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"stellar.io/stellar/internal/testx"
)

var wants = Wants{
	Network: netip.MustParsePrefix("172.16.0.0/12"), Subnet: netip.MustParsePrefix("172.16.0.0/22"), Device: "stellar0", Node: "a",
	Complete: true,
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// run starts a manager in ns and returns the routes that it says it restored.
func run(t *testing.T, ns *testx.NetNS) func() int {
	t.Helper()
	return start(t, ns, func() Wants { return wants }).repairs
}

// managed is a manager that runs until the test ends.
type managed struct {
	*Manager
	mu       sync.Mutex // guards restored
	restored int
}

func start(t *testing.T, ns *testx.NetNS, want func() Wants) *managed {
	t.Helper()
	m := &managed{}
	m.Manager = New(Config{Namespace: ns.FD, Wants: want, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), OnRepair: func(Route) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.restored++
	}})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return m
}

func (m *managed) repairs() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.restored
}

func eventually(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); ; time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", limit, what)
		}
	}
}

func TestUnreachableNetwork(t *testing.T) {
	t.Parallel()
	lan := testx.NewLAN(t, 1)
	host := lan.Hosts[0]
	hasIt := func() bool {
		return strings.Contains(host.Run(t, "ip", "route"), "unreachable 172.16.0.0/12 proto 147 metric 4294967295")
	}
	repairs := run(t, host)
	eventually(t, 2*time.Second, "route is there", hasIt)
	if out, err := host.Output("ip", "route", "get", "172.20.1.1"); err == nil {
		t.Errorf("a subnet that nobody has is reachable: %s", out)
	}
	if out := host.Run(t, "ip", "route", "get", "198.51.100.7"); !strings.Contains(out, "via 192.0.2.254") {
		t.Errorf("outside: %s", out)
	}
	for i := range 3 {
		host.Run(t, "ip", "route", "flush", "proto", "147")
		eventually(t, 2*time.Second, "route is back", hasIt)
		eventually(t, time.Second, "repair is told", func() bool { return repairs() == i+1 })
	}
}

func TestForeignRoutesAreLeftAlone(t *testing.T) {
	t.Parallel()
	lan := testx.NewLAN(t, 1)
	host := lan.Hosts[0]
	host.Run(t, "ip", "route", "add", "172.20.0.0/16", "via", "192.0.2.254", "proto", "static")
	host.Run(t, "ip", "route", "add", "unreachable", "172.31.0.0/16", "proto", "147")
	before := host.Run(t, "ip", "route", "show", "proto", "static")
	run(t, host)
	eventually(t, 2*time.Second, "stray of ours is gone", func() bool {
		out := host.Run(t, "ip", "route")
		return !strings.Contains(out, "172.31.0.0/16") && strings.Contains(out, "unreachable 172.16.0.0/12")
	})
	if after := host.Run(t, "ip", "route", "show", "proto", "static"); after != before {
		t.Errorf("foreign routes changed:\n%s\n%s", before, after)
	}
	if err := Cleanup(host.FD); err != nil {
		t.Fatal(err)
	}
}

func TestCleanup(t *testing.T) {
	t.Parallel()
	host := testx.NewLAN(t, 1).Hosts[0]
	before := host.Run(t, "ip", "route")
	host.Run(t, "ip", "route", "add", "unreachable", "172.16.0.0/12", "proto", "147", "metric", "4294967295")
	host.Run(t, "ip", "route", "add", "172.16.4.0/22", "via", "192.0.2.254", "proto", "147")
	for range 2 {
		if err := Cleanup(host.FD); err != nil {
			t.Fatal(err)
		}
	}
	if after := host.Run(t, "ip", "route"); after != before {
		t.Errorf("left behind:\n%s\n%s", before, after)
	}
}

func TestOverlaps(t *testing.T) {
	t.Parallel()
	host := testx.NewLAN(t, 1).Hosts[0]
	host.Run(t, "ip", "route", "add", "172.17.0.0/16", "via", "192.0.2.254")
	host.Run(t, "ip", "route", "add", "10.0.0.0/8", "via", "192.0.2.254")
	got, err := Overlaps(host.FD, netip.MustParsePrefix("172.16.0.0/12"), "stellar0")
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[0] != (Use{netip.MustParsePrefix("172.17.0.0/16"), "eth0"}) {
		t.Errorf("overlaps %v", got)
	}
	if got, err := Overlaps(host.FD, netip.MustParsePrefix("172.16.0.0/12"), "eth0"); err != nil || len(got) != 0 {
		t.Errorf("with the device ignored: %v, %v", got, err)
	}
}
