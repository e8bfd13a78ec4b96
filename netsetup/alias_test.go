package netsetup

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"stellar.io/stellar/ipam"
)

func TestAlias(t *testing.T) {
	t.Parallel()
	addr := netip.MustParseAddr("172.16.0.2")
	long := strings.Repeat("x", 76)
	tests := []struct {
		name string
		in   mark
		want string // empty: refused
	}{
		{"container", mark{owner("web"), addr, "01234567", false},
			"stellar1 container default/web@1700000000000000001 eth0 172.16.0.2 01234567"},
		{"routed", mark{owner("web"), addr, "01234567", true},
			"stellar1 container default/web@1700000000000000001 eth0 172.16.0.2 01234567 routed"},
		{"at sign in the id", mark{ipam.Owner{Kind: ipam.OwnerCNI, Namespace: "a", ID: "x@1", Interface: "net1"}, addr, "n", false},
			"stellar1 cni a/x@1@0 net1 172.16.0.2 n"},
		{"longest of containerd", mark{ipam.Owner{Kind: ipam.OwnerContainer, Namespace: long, ID: long, Created: 1 << 62, Interface: "abcdefghijklmno"},
			netip.MustParseAddr("172.116.100.100"), "01234567", false},
			"stellar1 container " + long + "/" + long + "@4611686018427387904 abcdefghijklmno 172.116.100.100 01234567"},
		{"too long", mark{ipam.Owner{Kind: ipam.OwnerManual, Namespace: long, ID: long + long, Interface: "eth0"}, addr, "n", false}, ""},
		{"slash in the namespace", mark{ipam.Owner{Kind: ipam.OwnerManual, Namespace: "a/b", ID: "c", Interface: "eth0"}, addr, "n", false}, ""},
		{"space in the id", mark{ipam.Owner{Kind: ipam.OwnerManual, Namespace: "a", ID: "b c", Interface: "eth0"}, addr, "n", false}, ""},
		{"no id", mark{ipam.Owner{Kind: ipam.OwnerManual, Namespace: "a", Interface: "eth0"}, addr, "n", false}, ""},
		{"no address", mark{owner("web"), netip.Addr{}, "n", false}, ""},
		{"no kind", mark{ipam.Owner{Namespace: "a", ID: "b", Interface: "eth0"}, addr, "n", false}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := encodeAlias(tt.in)
			if tt.want == "" {
				if !errors.Is(err, ErrInvalid) {
					t.Fatalf("encodeAlias = %q, %v, want ErrInvalid", got, err)
				}
				return
			}
			if err != nil || got != tt.want {
				t.Fatalf("encodeAlias = %q, %v, want %q", got, err, tt.want)
			}
			if back, ok := parseAlias(got); !ok || back != tt.in {
				t.Errorf("parseAlias = %+v, %v", back, ok)
			}
		})
	}
}

func FuzzAlias(f *testing.F) {
	f.Add("stellar1 container default/web@17 eth0 172.16.0.2 01234567")
	f.Add("stellar1 cni a/x@1@-5 net1 10.0.0.1 n")
	f.Add("stellar1 container default/web@17 eth0 172.16.0.2 01234567 routed")
	f.Add(bridgeAlias)
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		m, ok := parseAlias(s)
		if !ok {
			return
		}
		if back, err := encodeAlias(m); len(s) <= aliasLimit && (err != nil || back != s) {
			t.Errorf("%q reads as %+v, which writes as %q, %v", s, m, back, err)
		}
	})
}

func TestHostName(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	owners := []ipam.Owner{
		owner("a"), owner("b"),
		{Kind: ipam.OwnerCNI, Namespace: "default", ID: "a", Created: 1700000000000000001, Interface: "eth0"},
		{Kind: ipam.OwnerContainer, Namespace: "defaulta", ID: "", Created: 1700000000000000001, Interface: "eth0"},
	}
	for _, o := range owners {
		for g := range 3 {
			name := hostName(o, g)
			if !validIfname(name) || len(name) != 15 || !strings.HasPrefix(name, "veth") {
				t.Errorf("hostName(%v, %d) = %q", o, g, name)
			}
			if other, ok := seen[name]; ok {
				t.Errorf("%v generation %d has the name of %s", o, g, other)
			}
			seen[name] = o.String()
		}
	}
}

func TestMACs(t *testing.T) {
	t.Parallel()
	a, b := netip.MustParseAddr("172.16.0.2"), netip.MustParseAddr("172.16.0.3")
	if got := MACFor(a).String(); got != "02:73:ac:10:00:02" {
		t.Errorf("MACFor = %s", got)
	}
	if MACFor(a).String() == MACFor(b).String() || MACFor(a).String() == hostMACFor(a).String() {
		t.Error("two interfaces with one hardware address")
	}
	if !validMAC(MACFor(a)) || !validMAC(bridgeMACFor(testNode)) {
		t.Error("derived hardware address is invalid")
	}
}
