package netsetup

import (
	"strings"
	"testing"
)

// TestRouted: what the host and a container have in routed mode.
func TestRouted(t *testing.T) {
	b := newBed(t, routedMode).ensure()
	one, two := b.attach("172.16.0.2"), b.attach("172.16.3.254")
	mustPing(t, one, "172.16.3.254", "169.254.1.1", "192.0.2.1", "192.0.2.254")
	mustPing(t, two, "172.16.0.2")
	for _, tt := range []struct {
		in   func(args ...string) string
		args []string
		want []string
	}{
		{one.run, []string{"ip", "route"}, []string{"default via 169.254.1.1 dev eth0 proto 147 onlink"}},
		{one.run, []string{"ip", "address", "show", "dev", "eth0"}, []string{"inet 172.16.0.2/32 scope global eth0"}},
		{one.run, []string{"ip", "neigh"}, []string{"169.254.1.1 dev eth0 lladdr " + hostMACFor(one.spec.Addr).String() + " PERMANENT"}},
		{b.hostRun, []string{"ip", "route"}, []string{
			"172.16.0.2 dev " + one.ep.HostIfname + " proto 147 scope link src 169.254.1.1",
			"172.16.3.254 dev " + two.ep.HostIfname + " proto 147 scope link src 169.254.1.1",
			"unreachable 172.16.0.0/22 proto 147 metric 4294967294"}},
		{b.hostRun, []string{"ip", "neigh"}, []string{"172.16.0.2 dev " + one.ep.HostIfname + " lladdr " + MACFor(one.spec.Addr).String() + " PERMANENT"}},
	} {
		out := tt.in(tt.args...)
		for _, want := range tt.want {
			if !strings.Contains(out, want) {
				t.Errorf("%v: no %q in\n%s", tt.args, want, out)
			}
		}
	}
}

func (b *bed) hostRun(args ...string) string {
	b.t.Helper()
	return b.host.Run(b.t, args[0], args[1:]...)
}
