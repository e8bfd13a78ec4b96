package netsetup

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"stellar.io/stellar/internal/nlx"
	"stellar.io/stellar/ipam"
)

func TestPlanPort(t *testing.T) {
	t.Parallel()
	want := portWant{alias: "a", mac: hostMACFor(netip.MustParseAddr("172.16.0.2")), mtu: 1500, master: 3, settings: []nlx.Setting{{Number: nlx.ConfForwarding, Value: 1}}}
	right := nlx.Link{Alias: "a", Group: linkGroup, MAC: want.mac, MTU: 1500, Master: 3, Up: true}
	right.IPv4[nlx.ConfForwarding] = 1
	tests := []struct {
		name  string
		wrong func(*nlx.Link)
		want  []portFix
	}{
		{"right", func(*nlx.Link) {}, nil},
		{"down", func(l *nlx.Link) { l.Up = false }, []portFix{fixUp}},
		{"no master", func(l *nlx.Link) { l.Master = 0 }, []portFix{fixMaster, fixPort}},
		{"other bridge", func(l *nlx.Link) { l.Master = 9 }, []portFix{fixMaster, fixPort}},
		{"settings", func(l *nlx.Link) { l.IPv4[nlx.ConfForwarding] = 0 }, []portFix{fixConf}},
		{"mac", func(l *nlx.Link) { l.MAC = nil }, []portFix{fixMAC}},
		{"all", func(l *nlx.Link) { *l = nlx.Link{} }, []portFix{fixAlias, fixGroup, fixMAC, fixMTU, fixMaster, fixPort, fixConf, fixUp}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			have := right
			tt.wrong(&have)
			if diff := cmp.Diff(tt.want, planPort(have, want)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPlanOpened(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name            string
		router          bool
		uplinks, opened []string
		forwards        []string
		want            []string
	}{
		{"host is a router", true, []string{"eth0"}, []string{"eth0"}, nil, nil},
		{"fresh", false, []string{"eth1", "eth0"}, nil, nil, []string{"eth0", "eth1"}},
		{"opened by the user", false, []string{"eth0"}, nil, []string{"eth0"}, nil},
		{"opened by us", false, []string{"eth0"}, []string{"eth0"}, []string{"eth0"}, []string{"eth0"}},
		{"default route moved", false, []string{"eth1"}, []string{"eth0"}, []string{"eth0"}, []string{"eth0", "eth1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := planOpened(tt.router, tt.uplinks, tt.opened, func(n string) bool { return slices.Contains(tt.forwards, n) })
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPlanForward(t *testing.T) {
	t.Parallel()
	accepting := (&bridged{n: &Network{cfg: Config{Bridge: "stellar0"}}}).accepting()
	const chain = "-N STELLAR\n-A STELLAR -i stellar0 -j ACCEPT\n-A STELLAR -o stellar0 -j ACCEPT\n"
	const makeChain = ":STELLAR - [0:0]|-A STELLAR -i stellar0 -j ACCEPT|-A STELLAR -o stellar0 -j ACCEPT|"
	tests := []struct {
		name string
		in   string
		none bool
		want string // lines joined by |; without *filter and COMMIT
	}{
		{"policy accept", "-P FORWARD ACCEPT\n", false, ""},
		{"policy drop", "-P FORWARD DROP\n-A FORWARD -i eth9 -j REJECT\n", false, makeChain + "-A FORWARD " + jump},
		{"done", "-P FORWARD DROP\n" + chain + "-A FORWARD -j X\n-A FORWARD " + jump + "\n", false, ""},
		{"no longer needed", "-P FORWARD ACCEPT\n" + chain + "-A FORWARD " + jump + "\n", false, "-D FORWARD " + jump + "|-F STELLAR|-X STELLAR"},
		{"docker", "-P FORWARD DROP\n-N DOCKER-USER\n-A FORWARD -j DOCKER-USER\n-A DOCKER-USER -s 10.0.0.9/32 -j DROP\n-A DOCKER-USER -j RETURN\n",
			false, makeChain + "-I DOCKER-USER 2 " + jump},
		{"docker without return", "-P FORWARD DROP\n-N DOCKER-USER\n-A FORWARD -j DOCKER-USER\n", false, makeChain + "-A DOCKER-USER " + jump},
		{"docker done", "-P FORWARD DROP\n-N DOCKER-USER\n" + chain + "-A FORWARD -j DOCKER-USER\n-A DOCKER-USER " + jump + "\n-A DOCKER-USER -j RETURN\n", false, ""},
		{"docker came later", "-P FORWARD DROP\n-N DOCKER-USER\n" + chain + "-A FORWARD -j DOCKER-USER\n-A FORWARD " + jump + "\n-A DOCKER-USER -j RETURN\n",
			false, "-D FORWARD " + jump + "|-I DOCKER-USER 1 " + jump},
		{"behind the return", "-P FORWARD DROP\n-N DOCKER-USER\n" + chain + "-A FORWARD -j DOCKER-USER\n-A DOCKER-USER -j RETURN\n-A DOCKER-USER " + jump + "\n",
			false, "-D DOCKER-USER " + jump + "|-I DOCKER-USER 1 " + jump},
		{"chain of docker not in use", "-P FORWARD DROP\n-N DOCKER-USER\n", false, makeChain + "-A FORWARD " + jump},
		{"twice", "-P FORWARD DROP\n" + chain + "-A FORWARD " + jump + "\n-A FORWARD " + jump + "\n", false, "-D FORWARD " + jump},
		{"our chain emptied", "-P FORWARD DROP\n-N STELLAR\n-A FORWARD " + jump + "\n", false, strings.TrimSuffix(makeChain, "|")},
		{"cleanup", "-P FORWARD DROP\n" + chain + "-A FORWARD " + jump + "\n", true, "-D FORWARD " + jump + "|-F STELLAR|-X STELLAR"},
		{"cleanup of nothing", "-P FORWARD DROP\n-A FORWARD -j X\n", true, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := planForward(parseRuleset(tt.in), accepting, tt.none)
			want := ""
			if tt.want != "" {
				want = "*filter\n" + strings.ReplaceAll(tt.want, "|", "\n") + "\nCOMMIT\n"
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	good := Config{Node: testNode, Network: netip.MustParsePrefix("172.16.0.0/12"), Subnet: netip.MustParsePrefix("172.16.4.0/22")}
	tests := []struct {
		name   string
		change func(*Config)
		ok     bool
	}{
		{"good", func(*Config) {}, true},
		{"no subnet", func(c *Config) { *c = Config{} }, true},
		{"mode", func(c *Config) { c.Mode = 9 }, false},
		{"routed", func(c *Config) { c.Mode, c.Gateway = ipam.ModeRouted, netip.MustParseAddr("10.0.0.1") }, true},
		{"routed, the gateway in the network", func(c *Config) {
			c.Mode, c.Network, c.Subnet = ipam.ModeRouted, netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("169.254.4.0/22")
		}, false},
		{"bridge name", func(c *Config) { c.Bridge = "a/b" }, false},
		{"mtu", func(c *Config) { c.MTU = 20 }, false},
		{"node", func(c *Config) { c.Node = "x" }, false},
		{"subnet outside", func(c *Config) { c.Subnet = netip.MustParsePrefix("10.0.0.0/22") }, false},
		{"subnet not masked", func(c *Config) { c.Subnet = netip.MustParsePrefix("172.16.4.1/22") }, false},
		{"gateway outside", func(c *Config) { c.Gateway = netip.MustParseAddr("172.16.8.1") }, false},
		{"ipv6", func(c *Config) {
			c.Network, c.Subnet = netip.MustParsePrefix("fd00::/48"), netip.MustParsePrefix("fd00::/64")
		}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := good
			tt.change(&c)
			err := c.withDefaults().Validate()
			if (err == nil) != tt.ok || (err != nil && !errors.Is(err, ErrInvalid)) {
				t.Errorf("Validate = %v", err)
			}
		})
	}
}

// TestBatcher: every item is worked on once, no two batches at the same time, and
// each caller gets its own item's error.
func TestBatcher(t *testing.T) {
	t.Parallel()
	var working, batches atomic.Int32
	odd := errors.New("odd")
	b := newBatcher(func(items []int) []error {
		if working.Add(1) != 1 {
			t.Error("two batches at once")
		}
		defer working.Add(-1)
		batches.Add(1)
		errs := make([]error, len(items))
		for i, n := range items {
			if n%2 == 1 {
				errs[i] = odd
			}
		}
		return errs
	})
	var wait sync.WaitGroup
	for i := range 1000 {
		wait.Go(func() {
			if err := b.do(i); (err != nil) != (i%2 == 1) {
				t.Errorf("item %d: %v", i, err)
			}
		})
	}
	wait.Wait()
	if n := batches.Load(); n == 0 || n > 1000 {
		t.Errorf("%d batches", n)
	}
}
