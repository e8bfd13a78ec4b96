package ipam

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func TestValidatePlan(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		network string
		bits    int
		want    string // part of the error; empty: valid
	}{
		{"172.16.0.0/12", 22, ""},
		{"10.0.0.0/8", 20, ""},
		{"10.0.0.0/8", 16, ""},
		{"10.0.0.0/8", 29, ""},
		{"192.168.0.0/24", 24, ""},
		{"192.168.0.0/24", 29, ""},
		{"192.168.0.0/16", 16, ""},
		{"100.64.0.0/10", 22, ""},
		{"172.16.5.0/12", 22, "did you mean 172.16.0.0/12?"},
		{"10.0.0.0/7", 22, "larger than /8"},
		{"192.168.0.0/25", 26, "smaller than /24"},
		{"172.16.0.0/12", 11, "does not fit"},
		{"172.16.0.0/12", -1, "does not fit"},
		{"172.16.0.0/12", 12, "larger than /16"},
		{"172.16.0.0/12", 30, "smaller than /29"},
		{"172.16.0.0/12", 32, "smaller than /29"},
		{"fd00::/8", 22, "only IPv4"},
		{"::ffff:10.0.0.0/104", 22, "only IPv4"},
		{"127.0.0.0/8", 22, "loopback"},
		{"169.254.0.0/16", 22, "link-local"},
		{"224.0.0.0/8", 22, "multicast"},
		{"240.0.0.0/8", 22, "reserved"},
		{"0.0.0.0/8", 22, "this network"},
	} {
		err := ValidatePlan(netip.MustParsePrefix(tt.network), tt.bits)
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s in /%d: %v", tt.network, tt.bits, err)
		case tt.want != "" && (!errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s in /%d: got %v, want %q", tt.network, tt.bits, err, tt.want)
		}
	}
	if err := ValidatePlan(netip.Prefix{}, 22); !errors.Is(err, ErrInvalid) {
		t.Errorf("no prefix: %v", err)
	}
}

func TestValidNetworkName(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"default": true, "a": true, "a-1": true, strings.Repeat("a", 32): true,
		"": false, "1a": false, "-a": false, "A": false, "a.b": false, "a b": false, strings.Repeat("a", 33): false,
	} {
		if got := validNetworkName(name); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
}

// TestCapacity: what a node has for containers, by its mode and the size of its subnet,
// also after a change of mode.
func TestCapacity(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		bits int
		mode Mode
		want int
	}{
		{22, ModeBridge, 1021}, {22, ModeRouted, 1022}, {20, ModeRouted, 4094}, {24, ModeBridge, 253}, {29, ModeBridge, 5}, {29, ModeRouted, 6},
	} {
		s := New()
		init := initCmd()
		init.Prefix, init.SubnetBits = mustPrefix("10.0.0.0/8"), tt.bits
		node := registerCmd(1)
		node.Mode = tt.mode
		ok(t, s, init, node, ClaimSubnet{Node: node.Node, Network: DefaultNetwork})
		key := fence(t, s, 1).Subnet
		equal(t, tt.mode.String()+" in "+key.Prefix.String(), s.Usage(key).Free, tt.want)
		other := ModeBridge + ModeRouted - tt.mode
		ok(t, s, UpdateNode{Node: node.Node, Mode: other})
		ok(t, s, UpdateNode{Node: node.Node, Mode: tt.mode})
		equal(t, "there and back, "+key.Prefix.String(), s.Usage(key).Free, tt.want)
	}
	for bits, want := range map[int]Mode{16: ModeRouted, 20: ModeRouted, 21: ModeRouted, 22: ModeBridge, 23: ModeBridge, 29: ModeBridge} {
		equal(t, "implied", ImpliedMode(bits), want)
	}
}
