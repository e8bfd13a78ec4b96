package netsetup

import (
	"strings"
	"testing"
)

func TestAttach(t *testing.T) {
	b := newBed(t).ensure()
	one, two := b.attach("172.16.0.2"), b.attach("172.16.0.3")
	mustPing(t, one, "172.16.0.3", "172.16.0.1")
	mustPing(t, two, "172.16.0.2")
	if out := one.run("ip", "route"); !strings.Contains(out, "default via 172.16.0.1") {
		t.Errorf("routes in the container: %s", out)
	}
	t.Log(one.run("ip", "-d", "address"), b.host.Run(t, "ip", "-d", "address"), b.host.Run(t, "nft", "list", "ruleset"))
	_, timing, err := b.n.Attach(t.Context(), one.spec)
	t.Log(timing, err)
}
