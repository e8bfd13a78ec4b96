package netsetup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"stellar.io/stellar/internal/testx"
	"stellar.io/stellar/ipam"
)

const testNode = ipam.NodeID("0123456789abcdef0123456789abcdef")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bed is a host in a throw-away namespace with a Network in it.
type bed struct {
	t    testing.TB
	lan  *testx.LAN
	host *testx.NetNS
	cfg  Config
	n    *Network

	mu      sync.Mutex // guards repairs and lost
	repairs []string
	lost    []Endpoint
}

func newBed(t testing.TB, change ...func(*Config)) *bed {
	t.Helper()
	b := &bed{t: t, lan: testx.NewLAN(t, 1)}
	b.host = b.lan.Hosts[0]
	b.cfg = Config{
		Node: testNode, Mode: ipam.ModeBridge, Masquerade: true, HostNS: b.open(b.host.Path),
		Network: netip.MustParsePrefix("172.16.0.0/12"), Subnet: netip.MustParsePrefix("172.16.0.0/22"),
		OnRepair: func(what, subject string) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.repairs = append(b.repairs, what+" "+subject)
		},
		OnLost: func(e Endpoint) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.lost = append(b.lost, e)
		},
	}
	if os.Getenv("STELLAR_TEST_LOG") != "" {
		b.cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	for _, c := range change {
		c(&b.cfg)
	}
	b.n = b.network()
	return b
}

// inModes runs a test in both modes; mode is for newBed.
func inModes(t *testing.T, test func(t *testing.T, mode func(*Config))) {
	t.Helper()
	for _, m := range []ipam.Mode{ipam.ModeBridge, ipam.ModeRouted} {
		t.Run(m.String(), func(t *testing.T) { test(t, func(c *Config) { c.Mode = m }) })
	}
}

func routedMode(c *Config) { c.Mode = ipam.ModeRouted }

// gateway is the containers' next hop as they name it.
func (b *bed) gateway() string { return b.n.cfg.Gateway.String() }

// attached says what is wrong with the host's end of a container, nil for nothing.
func (b *bed) attached(c *container) error {
	if err := b.hostSays("state UP", "ip", "link", "show", c.ep.HostIfname); err != nil {
		return err
	}
	if !b.n.routed() {
		return b.hostSays("master stellar0", "ip", "link", "show", c.ep.HostIfname)
	}
	addr := c.spec.Addr.String()
	return errors.Join(
		b.hostSays(addr+" dev "+c.ep.HostIfname+" proto 147 scope link src 169.254.1.1", "ip", "route"),
		b.hostSays(addr+" dev "+c.ep.HostIfname+" lladdr "+MACFor(c.spec.Addr).String()+" PERMANENT", "ip", "neigh"))
}

func (b *bed) open(path string) *os.File {
	b.t.Helper()
	f, err := os.Open(path)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { f.Close() })
	return f
}

// network makes a Network as a new process would.
func (b *bed) network() *Network {
	b.t.Helper()
	n, err := New(b.cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { n.Close() })
	return n
}

func (b *bed) ensure() *bed {
	b.t.Helper()
	if err := b.n.Ensure(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	return b
}

// run starts Run and returns when it watches; it ends with the test.
func (b *bed) run() {
	b.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = b.n.Run(ctx)
	}()
	b.t.Cleanup(func() { cancel(); <-done })
	eventually(b.t, 5*time.Second, "watching", func() error {
		if !b.n.ensured.Load() || !b.n.watching.Load() {
			return fmt.Errorf("not yet")
		}
		return nil
	})
}

// container is a process with a namespace of its own.
type container struct {
	t    testing.TB
	pid  int
	kill func()
	ns   *Namespace
	spec Spec
	ep   Endpoint
}

func (b *bed) container(addr string) *container {
	b.t.Helper()
	pid, kill := testx.StartSleeper(b.t, nil)
	c := &container{t: b.t, pid: pid, kill: kill}
	var err error
	if c.ns, err = b.n.OpenPID(pid, time.Now()); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { c.ns.Close() })
	c.spec = Spec{Owner: owner("c-" + addr), Addr: netip.MustParseAddr(addr), DefaultRoute: true, NS: c.ns}
	return c
}

func owner(id string) ipam.Owner {
	return ipam.Owner{Kind: ipam.OwnerContainer, Namespace: "default", ID: id, Created: 1700000000000000001, Interface: "eth0"}
}

// attach makes and attaches a container.
func (b *bed) attach(addr string) *container {
	b.t.Helper()
	c := b.container(addr)
	ep, _, err := b.n.Attach(b.t.Context(), c.spec)
	if err != nil {
		b.t.Fatal(err)
	}
	c.ep = ep
	return c
}

func (c *container) output(args ...string) (string, error) {
	cmd := exec.Command("nsenter", append([]string{"--net=/proc/" + strconv.Itoa(c.pid) + "/ns/net", "--"}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%v: %w: %s", args, err, out)
	}
	return string(out), nil
}

func (c *container) run(args ...string) string {
	c.t.Helper()
	out, err := c.output(args...)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

func (c *container) ping(addr string) error {
	_, err := c.output("ping", "-n", "-c", "1", "-W", "1", addr)
	return err
}

func mustPing(t testing.TB, c *container, addrs ...string) {
	t.Helper()
	for _, a := range addrs {
		eventually(t, 2*time.Second, "ping "+a, func() error { return c.ping(a) })
	}
}

// eventually waits until check returns nil.
func eventually(t testing.TB, limit time.Duration, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s: %v", what, limit, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// reports returns what OnRepair and OnLost have been told.
func (b *bed) reports() (repairs []string, lost []Endpoint) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.repairs), slices.Clone(b.lost)
}

func (b *bed) repaired(what string) bool {
	repairs, _ := b.reports()
	return slices.ContainsFunc(repairs, func(r string) bool { return strings.HasPrefix(r, what) })
}

// lostOnly returns nil when exactly the owner's endpoint was reported lost.
func (b *bed) lostOnly(o ipam.Owner) error {
	if _, lost := b.reports(); len(lost) != 1 || lost[0].Owner != o {
		return fmt.Errorf("lost: %+v", lost)
	}
	return nil
}

// quiet fails the test if anything was reported.
func (b *bed) quiet() {
	b.t.Helper()
	if repairs, lost := b.reports(); len(repairs)+len(lost) > 0 {
		b.t.Errorf("repairs %v, lost %+v", repairs, lost)
	}
}

func (b *bed) hostSays(want string, args ...string) error {
	out, err := b.host.Output(args[0], args[1:]...)
	if err == nil && !strings.Contains(out, want) {
		err = fmt.Errorf("no %q in %q", want, out)
	}
	return err
}
