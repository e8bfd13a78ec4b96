package netsetup

import (
	"slices"
	"strings"
	"testing"

	"stellar.io/stellar/ipam"
)

// TestLookGuard: what somebody takes from the tables is found, by name, and nothing
// else is; what is put back lacks nothing. A look changes nothing.
func TestLookGuard(t *testing.T) {
	t.Parallel()
	inModes(t, func(t *testing.T, mode func(*Config)) {
		t.Parallel()
		b := newBed(t, mode, func(c *Config) { c.AgentPorts = agentPorts }).ensure()
		c, other := b.attach("172.16.0.2"), b.attach("172.16.0.3")
		set, first, others := "bridge", "table bridge stellar", []string{"table ip stellar", "table arp stellar", "table ip6 stellar"}
		if b.n.routed() {
			set, first, others = "ip", "table ip stellar", []string{"table arp stellar", "table ip6 stellar"}
		}
		element := "{ " + c.ep.HostIfname + " . " + c.ep.MAC.String() + " . " + c.ep.Addr.String() + " }"
		for _, tt := range []struct {
			name, damage string
			missing      []string
			dropped      []*container
		}{
			{"healthy", "", nil, nil},
			{"the other table", "delete table inet stellar", nil, nil},
			{"nft flush ruleset", "flush ruleset", append(slices.Clone(others), first), nil},
			{"the table with the set", "delete table " + set + " stellar", []string{first}, nil},
			{"another family's", "delete table arp stellar", []string{"table arp stellar"}, nil},
			{"rules of a chain", "flush chain arp stellar input", []string{
				`rule "past the bridge" of chain arp stellar input`, `rule "links that are being deleted" of chain arp stellar input`}, nil},
			{"a chain", "flush chain arp stellar input; delete chain arp stellar input", []string{"chain arp stellar input"}, nil},
			{"a hook", "flush chain arp stellar input; delete chain arp stellar input; add chain arp stellar input",
				[]string{"chain arp stellar input", `rule "past the bridge" of chain arp stellar input`, `rule "links that are being deleted" of chain arp stellar input`}, nil},
			{"dormant", "add table arp stellar { flags dormant; }", []string{"table arp stellar"}, nil},
			{"an element", "delete element " + set + " stellar endpoints " + element, nil, []*container{c}},
			{"an element with another's address", "delete element " + set + " stellar endpoints " + element +
				"; add element " + set + " stellar endpoints " + strings.Replace(element, c.ep.Addr.String(), other.ep.Addr.String(), 1), nil, []*container{c}},
			{"all elements", "flush set " + set + " stellar endpoints", nil, []*container{c, other}},
			{"an element and another family's table", "delete table arp stellar; delete element " + set + " stellar endpoints " + element, []string{"table arp stellar"}, []*container{c}},
			{"what nobody is admitted to, for nothing judges", "flush table " + set + " stellar; flush set " + set + " stellar endpoints", nil, nil},
		} {
			if tt.damage != "" {
				b.host.Run(t, "nft", tt.damage)
			}
			before := b.host.Run(t, "nft", "-a", "list", "ruleset")
			got := b.lookGuard()
			if strings.HasPrefix(tt.name, "what nobody") {
				got.Missing = slices.DeleteFunc(got.Missing, func(s string) bool { return strings.HasPrefix(s, "rule ") && strings.Contains(s, " "+set+" ") })
			}
			slices.Sort(got.Missing)
			slices.Sort(tt.missing)
			var dropped []*container
			for _, e := range got.Dropped {
				dropped = append(dropped, map[string]*container{c.ep.HostIfname: c, other.ep.HostIfname: other}[e.HostIfname])
			}
			if !slices.Equal(got.Missing, tt.missing) || !slices.Equal(dropped, tt.dropped) {
				t.Errorf("%s: missing %q, dropped %+v, want %q and %d", tt.name, got.Missing, got.Dropped, tt.missing, len(tt.dropped))
			}
			if after := b.host.Run(t, "nft", "-a", "list", "ruleset"); after != before {
				t.Errorf("%s: the look changed\n%s\nto\n%s", tt.name, before, after)
			}
			if err := b.n.syncGuard(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := b.lookGuard(); !got.Complete() {
				t.Errorf("%s, put back: %+v", tt.name, got)
			}
		}
	})
}

func (b *bed) lookGuard() Guard {
	b.t.Helper()
	g, err := LookGuard(b.host.FD, b.n.cfg.Mode)
	if err != nil {
		b.t.Fatal(err)
	}
	return g
}

// TestLookGuardAtAttach: an endpoint that is not up has no element yet, and one that
// was there a moment ago is still lacking only if it lacks again.
func TestLookGuardAtAttach(t *testing.T) {
	t.Parallel()
	b := newBed(t).ensure()
	c, other := b.attach("172.16.0.2"), b.attach("172.16.0.3")
	b.host.Run(t, "nft", "flush set bridge stellar endpoints; delete table arp stellar")
	b.host.Run(t, "ip", "link", "set", other.ep.HostIfname, "down")
	first := b.lookGuard()
	if len(first.Dropped) != 1 || first.Dropped[0].Owner != c.spec.Owner {
		t.Errorf("one is up, dropped are %+v", first.Dropped)
	}
	b.host.Run(t, "ip", "link", "set", other.ep.HostIfname, "up")
	second := b.lookGuard()
	if still := first.Still(second); len(second.Dropped) != 2 || len(still.Dropped) != 1 || still.Dropped[0].Owner != c.spec.Owner || len(still.Missing) != 1 {
		t.Errorf("first %+v, then %+v: still %+v", first, second, still)
	}
	if err := b.n.Detach(t.Context(), c.spec.Owner); err != nil {
		t.Fatal(err)
	}
	if still := first.Still(b.lookGuard()); len(still.Dropped) != 0 {
		t.Errorf("after Detach: %+v", still)
	}
	b2, err := LookGuard(b.lan.Outside.FD, ipam.ModeBridge)
	if err != nil || len(b2.Dropped) > 0 || len(b2.Missing) < 3 {
		t.Errorf("a host without anything of ours: %+v, %v", b2, err)
	}
}
