package agent

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"stellar.io/stellar/events"
)

func TestParseWish(t *testing.T) {
	t.Parallel()
	type m = map[string]string
	image := func(labels, brought m) events.Container {
		return events.Container{Labels: labels, HasImage: true, ImageKnown: true, ImageLabels: brought}
	}
	tests := []struct {
		name   string
		in     events.Container
		trust  Trust
		want   *Wish
		reason string // of the rejection
	}{
		{name: "nothing of ours", in: image(m{"app": "web"}, nil)},
		{name: "ours, but no network asked for", in: image(m{labelIP: "172.16.0.9"}, nil)},
		{name: "true", in: image(m{labelNetwork: "true"}, nil), want: &Wish{Network: "default", Source: "label"}},
		{name: "by name", in: image(m{labelNetwork: "default"}, nil), want: &Wish{Network: "default", Source: "label"}},
		{name: "false", in: image(m{labelNetwork: "false", "stellar.io/nonsense": "x"}, nil)},
		{name: "none", in: image(m{labelNetwork: "none"}, nil)},
		{name: "everything", in: image(m{
			labelNetwork: "true", labelIP: "172.16.0.9", labelMAC: "02:00:00:00:00:01", labelHostname: "web.example",
			labelIfname: "net1", labelMTU: "1400", labelStrict: "false"}, nil),
			want: &Wish{Network: "default", IP: netip.MustParseAddr("172.16.0.9"), MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1},
				Hostname: "web.example", Ifname: "net1", MTU: 1400, Source: "label"}},
		{name: "annotation", in: events.Container{Annotations: m{labelNetwork: "true"}}, want: &Wish{Network: "default", Source: "annotation"}},
		{name: "label before annotation", in: events.Container{Labels: m{labelNetwork: "false"}, Annotations: m{labelNetwork: "true"}}},
		{name: "copied annotation whose label is gone", in: events.Container{Annotations: m{labelNetwork: "true"}},
			trust: Trust{Copies: map[string]bool{labelNetwork: true}}},
		{name: "no image", in: events.Container{Labels: m{labelNetwork: "true"}}, want: &Wish{Network: "default", Source: "label"}},

		{name: "image brings the network", in: image(m{labelNetwork: "true"}, m{labelNetwork: "true"}),
			reason: "label comes from the image, use an annotation: stellar.io/network=true"},
		{name: "image brings an address", in: image(m{labelNetwork: "true", labelIP: "172.16.0.9"}, m{labelIP: "172.16.0.9"}),
			reason: "label comes from the image, use an annotation: stellar.io/ip=172.16.0.9"},
		{name: "image's value overridden", in: image(m{labelNetwork: "true", labelIP: "172.16.0.8"}, m{labelIP: "172.16.0.9"}),
			want: &Wish{Network: "default", IP: netip.MustParseAddr("172.16.0.8"), Source: "label"}},
		{name: "image's label, user's annotation",
			in: events.Container{Labels: m{labelNetwork: "true"}, Annotations: m{labelNetwork: "true"}, HasImage: true, ImageKnown: true,
				ImageLabels: m{labelNetwork: "true"}},
			want: &Wish{Network: "default", Source: "annotation"}},
		{name: "image unreadable", in: events.Container{Labels: m{labelNetwork: "true"}, HasImage: true},
			reason: "label stellar.io/network cannot be trusted: the image's config cannot be read, use an annotation"},
		{name: "image unreadable, annotated",
			in:   events.Container{Labels: m{labelIP: "172.16.0.9"}, Annotations: m{labelNetwork: "true"}, HasImage: true},
			want: &Wish{Network: "default", Source: "annotation"}},
		{name: "image removed after it was trusted", in: events.Container{Labels: m{labelNetwork: "true"}, HasImage: true},
			trust: Trust{Prior: true}, want: &Wish{Network: "default", Source: "label"}},
		{name: "image removed, annotation says otherwise",
			in:    events.Container{Labels: m{labelNetwork: "true", labelIP: "172.16.0.66"}, Annotations: m{labelIP: "172.16.0.7"}, HasImage: true},
			trust: Trust{Prior: true}, want: &Wish{Network: "default", IP: netip.MustParseAddr("172.16.0.7"), Source: "label"}},
		{name: "asked of nerdctl", in: image(m{labelNetwork: "true", nerdctlNetworks: `["none"]`, nerdctlIP: "172.16.0.9", nerdctlHostname: "web"}, nil),
			want: &Wish{Network: "default", IP: netip.MustParseAddr("172.16.0.9"), Hostname: "web", Source: "label"}},
		{name: "a MAC address asked of nerdctl", in: image(m{labelNetwork: "true", nerdctlNetworks: `["none"]`, nerdctlMAC: "02:00:00:00:00:09"}, nil),
			want: &Wish{Network: "default", MAC: net.HardwareAddr{2, 0, 0, 0, 0, 9}, Source: "label"}},
		{name: "asked of both", in: image(m{labelNetwork: "true", labelIP: "172.16.0.8", labelHostname: "ours",
			nerdctlNetworks: `["none"]`, nerdctlIP: "172.16.0.9", nerdctlHostname: "web"}, nil),
			want: &Wish{Network: "default", IP: netip.MustParseAddr("172.16.0.8"), Hostname: "ours", Source: "label"}},
		{name: "asked of nerdctl for its own network",
			in:   image(m{labelNetwork: "true", nerdctlNetworks: `["bridge"]`, nerdctlIP: "10.4.0.9", nerdctlHostname: "web"}, nil),
			want: &Wish{Network: "default", Source: "label"}},
		{name: "asked of nerdctl by the image",
			in:   image(m{labelNetwork: "true", nerdctlNetworks: `["none"]`, nerdctlIP: "172.16.0.66"}, m{nerdctlIP: "172.16.0.66"}),
			want: &Wish{Network: "default", Source: "label"}},
		{name: "asked of nerdctl, image unreadable", in: events.Container{Labels: m{nerdctlNetworks: `["none"]`, nerdctlIP: "172.16.0.66"},
			Annotations: m{labelNetwork: "true", nerdctlIP: "172.16.0.66"}, HasImage: true}, want: &Wish{Network: "default", Source: "annotation"}},
		{name: "malformed words for nerdctl", in: image(m{labelNetwork: "true", nerdctlNetworks: `["none"]`, nerdctlIP: "fd00::1", nerdctlHostname: "-", nerdctlMAC: "x"}, nil),
			want: &Wish{Network: "default", Source: "label"}},
		{name: "nerdctl's copied keys are not ours", in: events.Container{Annotations: m{"stellar.io/nerdctl/network": "true"}}},

		{name: "empty", in: image(m{labelNetwork: ""}, nil),
			reason: `stellar.io/network="" is neither true, false, none nor the name of a network`},
		{name: "malformed name", in: image(m{labelNetwork: "Prod!"}, nil),
			reason: `stellar.io/network="Prod!" is neither true, false, none nor the name of a network`},
		{name: "terminal escape", in: image(m{labelNetwork: "\x1b[2J"}, nil),
			reason: `stellar.io/network="?[2J" is neither true, false, none nor the name of a network`},
		{name: "unknown network", in: image(m{labelNetwork: "prod"}, nil), reason: `network "prod" does not exist (there is one, "default")`},
		{name: "unknown key", in: image(m{labelNetwork: "true", "stellar.io/ipp": "1"}, nil), reason: "unknown key stellar.io/ipp"},
		{name: "bad address", in: image(m{labelNetwork: "true", labelIP: "172.16.0"}, nil), reason: `stellar.io/ip="172.16.0" is not an IPv4 address`},
		{name: "IPv6 address", in: image(m{labelNetwork: "true", labelIP: "fd00::1"}, nil), reason: `stellar.io/ip="fd00::1" is not an IPv4 address`},
		{name: "multicast MAC", in: image(m{labelNetwork: "true", labelMAC: "01:00:5e:00:00:01"}, nil),
			reason: `stellar.io/mac="01:00:5e:00:00:01" is not a unicast MAC address`},
		{name: "zero MAC", in: image(m{labelNetwork: "true", labelMAC: "00:00:00:00:00:00"}, nil),
			reason: `stellar.io/mac="00:00:00:00:00:00" is not a MAC address other than zero`},
		{name: "long MAC", in: image(m{labelNetwork: "true", labelMAC: "00:00:00:00:00:00:00:01"}, nil),
			reason: `stellar.io/mac="00:00:00:00:00:00:00:01" is not a MAC address of six bytes`},
		{name: "host name", in: image(m{labelNetwork: "true", labelHostname: "-x"}, nil), reason: `stellar.io/hostname="-x" is not a host name (RFC 1123)`},
		{name: "interface name", in: image(m{labelNetwork: "true", labelIfname: "../../x"}, nil),
			reason: `stellar.io/ifname="../../x" is not an interface name of at most 15 characters`},
		{name: "loopback", in: image(m{labelNetwork: "true", labelIfname: "lo"}, nil),
			reason: `stellar.io/ifname="lo" is not an interface name of at most 15 characters`},
		{name: "MTU", in: image(m{labelNetwork: "true", labelMTU: "+1500"}, nil), reason: `stellar.io/mtu="+1500" is not a number from 576 to 65535`},
		{name: "strict", in: image(m{labelNetwork: "true", labelStrict: "true"}, nil),
			want: &Wish{Network: "default", Strict: true, Source: "label"}},
		{name: "neither strict nor not", in: image(m{labelNetwork: "true", labelStrict: "yes"}, nil), reason: `stellar.io/strict="yes" is not true or false`},
		{name: "too long", in: image(m{labelNetwork: "true", labelHostname: strings.Repeat("a", 257)}, nil),
			reason: "stellar.io/hostname is longer than 256 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := parseWish(&tt.in, tt.trust)
			reason := ""
			if err != nil {
				reason = err.Error()
			}
			if reason != tt.reason {
				t.Errorf("reason %q, want %q", reason, tt.reason)
			}
			if d := cmp.Diff(tt.want, got, cmpopts.EquateComparable(netip.Addr{})); d != "" {
				t.Errorf("wish (-want +got):\n%s", d)
			}
		})
	}
}

// TestParseWishManyLabels: the number of labels is the client's choice and
// must not cost more than reading them once.
func TestParseWishManyLabels(t *testing.T) {
	t.Parallel()
	labels := map[string]string{labelNetwork: "true"}
	for i := range 100_000 {
		labels["x"+strings.Repeat("y", i%50)+string(rune('a'+i%26))+labelPrefix] = "v"
	}
	c := events.Container{Labels: labels}
	if w, err := parseWish(&c, Trust{}); err != nil || w == nil {
		t.Fatalf("parseWish = %v, %v", w, err)
	}
}

func FuzzParseWish(f *testing.F) {
	f.Add("true", "172.16.0.9", "02:00:00:00:00:01", "web", "eth1", "1500", "true")
	f.Add("\x00", "::", "zz", strings.Repeat("a.", 200), "é", "99999999999999999999", "")
	f.Fuzz(func(t *testing.T, network, ip, mac, host, ifname, mtu, strict string) {
		c := events.Container{Labels: map[string]string{
			labelNetwork: network, labelIP: ip, labelMAC: mac, labelHostname: host, labelIfname: ifname, labelMTU: mtu, labelStrict: strict}}
		w, err := parseWish(&c, Trust{})
		if err != nil {
			if len(err.Error()) > 1024 || strings.ContainsAny(err.Error(), "\x00\x1b\n") {
				t.Errorf("unfit reason %q", err)
			}
			return
		}
		if w == nil {
			return
		}
		if !w.IP.Is4() || len(w.MAC) != 6 || w.MAC[0]&1 != 0 || len(w.Ifname) > 15 || w.MTU < minMTU || w.MTU > maxMTU || len(w.Hostname) > 253 {
			t.Errorf("accepted %+v", w)
		}
	})
}
