package check

import (
	"context"
	"net/netip"
	"os"
	"testing"
	"time"

	"stellar.io/stellar/api"
	"stellar.io/stellar/internal/testx"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/netsetup"
	"stellar.io/stellar/routes"
)

// TestJudgeGuard: a finding says what is missing, or whose packets are dropped, and
// how it comes back.
func TestJudgeGuard(t *testing.T) {
	t.Parallel()
	f := healthy()
	f.Guard = netsetup.Guard{Missing: []string{"table arp stellar", "chain ip stellar input"}, Dropped: f.Endpoints}
	for _, down := range []string{"", "no socket"} {
		f.AgentDown = down
		var found []api.CheckFinding
		for _, c := range Judge(f) {
			if c.Code == Guard {
				found = append(found, c)
			}
		}
		if len(found) != 2 {
			t.Fatalf("found %+v", found)
		}
		for i, want := range []api.CheckFinding{
			{Subject: "default/a1", Message: "everything that default/a1 sends is dropped: the nftables set endpoints in table stellar lacks vethx with 172.16.0.2"},
			{Subject: "table arp stellar", Message: "containers may speak for others: the nftables rules against it are not complete; missing: table arp stellar, chain ip stellar input"},
		} {
			got := found[i]
			if got.Severity != api.SeverityError || got.Subject != want.Subject || got.Message != want.Message || got.Mend != f.repair(restartMend) {
				t.Errorf("got %+v, want %+v", got, want)
			}
		}
	}
}

// TestCollectGuard: what is lacking for good is found in both modes, with an agent and
// without; what an agent puts back meanwhile is not, and without containers nothing is.
func TestCollectGuard(t *testing.T) {
	t.Parallel()
	for _, mode := range []ipam.Mode{ipam.ModeBridge, ipam.ModeRouted} {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			host := testx.NewLAN(t, 1).Hosts[0]
			g := Given{
				Node: "a", Member: true, Bridge: "stellar0", Routed: mode == ipam.ModeRouted,
				Wants: routes.Wants{Network: netip.MustParsePrefix("172.16.0.0/12"), Subnet: netip.MustParsePrefix("172.16.0.0/22")},
			}
			collect := func() (lacks netsetup.Guard) {
				t.Helper()
				if err := host.Do(func() error {
					c := &collector{f: &Facts{AgentDown: g.AgentDown, Routed: g.Routed, Subnet: g.Wants.Subnet}, g: g}
					var err error
					if c.f.Endpoints, err = netsetup.Look(-1); err != nil {
						return err
					}
					err = c.guard(t.Context())
					lacks = c.f.Guard
					return err
				}); err != nil {
					t.Fatal(err)
				}
				return lacks
			}
			if got := collect(); !got.Complete() {
				t.Errorf("without a container %+v", got)
			}
			endpoint(t, host, mode)
			g.AgentDown = "no socket"
			if got := collect(); len(got.Missing) < 3 || len(got.Dropped) > 0 {
				t.Errorf("without tables %+v", got)
			}
			g.AgentDown = ""
			back := make(chan error, 1)
			time.AfterFunc(settle/2, func() { back <- ensure(host, mode, g.Wants) })
			got := collect()
			if err := <-back; err != nil {
				t.Fatal(err)
			}
			if !got.Complete() {
				t.Errorf("an agent puts it back, and it is found: %+v", got)
			}
			set := map[ipam.Mode]string{ipam.ModeBridge: "bridge", ipam.ModeRouted: "ip"}[mode]
			host.Run(t, "nft", "flush set "+set+" stellar endpoints")
			if got := collect(); len(got.Missing) > 0 || len(got.Dropped) != 1 || got.Dropped[0].Owner.ID != "a1" {
				t.Errorf("without an element, and an agent that does nothing: %+v", got)
			}
		})
	}
}

// endpoint makes what a former agent has left of one container.
func endpoint(t *testing.T, host *testx.NetNS, mode ipam.Mode) {
	t.Helper()
	alias := "stellar1 container default/a1@1 eth0 172.16.0.2 01234567"
	if mode == ipam.ModeRouted {
		alias += " routed"
	}
	host.Run(t, "ip", "link", "add", "vethx", "group", "147", "type", "veth", "peer", "name", "guest")
	host.Run(t, "ip", "link", "set", "vethx", "alias", alias, "up")
}

// ensure does what an agent does.
func ensure(host *testx.NetNS, mode ipam.Mode, w routes.Wants) error {
	ns, err := os.Open(host.Path)
	if err != nil {
		return err
	}
	defer ns.Close()
	n, err := netsetup.New(netsetup.Config{Node: "0123456789abcdef0123456789abcdef", Network: w.Network, Subnet: w.Subnet, Mode: mode, HostNS: ns})
	if err != nil {
		return err
	}
	defer n.Close()
	return n.Ensure(context.Background())
}
