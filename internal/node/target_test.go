package node

import (
	"net/netip"
	"strings"
	"testing"

	"stellar.io/stellar/api"
	"stellar.io/stellar/ipam"
)

func TestDirectory(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("0123456789abcdef", 4)
	at := func(node, ns, id, address, down string) place {
		p := place{node: ipam.NodeID(node), ref: api.EndpointRef{Namespace: ns, Container: id, Ifname: "eth0"}, name: ns + "/" + id, down: down}
		if address != "" {
			p.address = netip.MustParseAddr(address)
		}
		return p
	}
	named := func(p place, hostname string) place {
		p.hostname = hostname
		return p
	}
	d := directory{
		nodeName: func(id ipam.NodeID) string { return "n" + string(id) },
		nodes: []place{
			{node: "1", name: "alpha", address: netip.MustParseAddr("192.0.2.1")}, {node: "2", name: "beta", address: netip.MustParseAddr("192.0.2.2")},
			{node: "3", name: "lonely"},
		},
		endpoints: []place{
			at("1", "default", "web", "172.16.0.2", ""), at("2", "default", "db", "172.16.4.2", ""), at("2", "prod", "db", "172.16.4.3", ""),
			at("1", "default", "both", "172.16.0.3", ""), at("2", "default", "both", "172.16.4.4", ""),
			at("1", "default", "alpha", "172.16.0.4", ""), at("1", "default", long, "172.16.0.5", ""),
			at("1", "default", "bad", "", "rejected: host network"), at("1", "default", "stopped", "172.16.0.6", "bound"),
			named(at("1", "default", "c1", "172.16.0.7", ""), "front"), named(at("2", "prod", "c2", "172.16.4.7", ""), "front"),
			named(at("2", "default", "c3", "172.16.4.8", ""), "shop"), named(at("2", "default", "c4", "172.16.4.9", ""), "web"),
			named(at("2", "default", "pod", "172.16.4.10", ""), "app"), named(at("2", "default", "pod-1", "172.16.4.10", ""), "app"),
			named(at("1", "default", "c5", "172.16.0.8", ""), "012345"),
			named(at("1", "default", "off", "", "rejected: x"), "down"), named(at("1", "default", "off2", "", "rejected: x"), "down"),
		},
	}
	for _, tt := range []struct {
		in, name, address string
		node              ipam.NodeID
		code              api.Code // "": found
		says              string
	}{
		{in: "web", name: "default/web", address: "172.16.0.2", node: "1"},
		{in: "default/db", name: "default/db", address: "172.16.4.2", node: "2"},
		{in: "0123456", name: "default/" + long, address: "172.16.0.5", node: "1"},
		{in: "012345", name: "default/c5", address: "172.16.0.8", node: "1"}, // a hostname counts more than a beginning
		{in: "shop", name: "default/c3", address: "172.16.4.8", node: "2"},
		{in: "default/shop", name: "default/c3", address: "172.16.4.8", node: "2"},
		{in: "prod/front", name: "prod/c2", address: "172.16.4.7", node: "2"},
		{in: "app", name: "default/pod", address: "172.16.4.10", node: "2"},
		{in: "front", code: api.CodeConflict, says: "default/c1 on node n1 (172.16.0.7), prod/c2 on node n2 (172.16.4.7)"},
		{in: "down", code: api.CodeConflict, says: "default/off on node n1, default/off2 on node n1"},
		{in: "prod/shop", code: api.CodeNotFound},
		{in: "default/0123", name: "default/" + long, address: "172.16.0.5", node: "1"},
		{in: "beta", name: "beta", address: "192.0.2.2", node: "2"},
		{in: "172.16.4.3", name: "prod/db", address: "172.16.4.3", node: "2"},
		{in: "192.0.2.1", name: "alpha", address: "192.0.2.1", node: "1"},
		{in: "203.0.113.7", name: "203.0.113.7", address: "203.0.113.7"},
		{in: "we", code: api.CodeNotFound, says: "no container, node or address"},
		{in: "other/web", code: api.CodeNotFound},
		{in: "default/beta", code: api.CodeNotFound},
		{in: "", code: api.CodeNotFound},
		{in: "/", code: api.CodeNotFound},
		{in: "default/", code: api.CodeNotFound},
		{in: "db", code: api.CodeConflict, says: "default/db on node n2 (172.16.4.2), prod/db on node n2 (172.16.4.3)"},
		{in: "default/both", code: api.CodeConflict, says: "default/both on node n1 (172.16.0.3), default/both on node n2 (172.16.4.4)"},
		{in: "alpha", name: "default/alpha", address: "172.16.0.4", node: "1"}, // not the node
		{in: "172.16.4.0/22", code: api.CodeInvalid, says: "a block"},
		{in: "::1", code: api.CodeInvalid, says: "not an IPv4"},
		{in: "bad", code: api.CodeConflict, says: "no address: it is rejected: host network"},
		{in: "lonely", code: api.CodeConflict, says: "lonely has no address"},
	} {
		got, err := d.target(tt.in)
		if tt.code != "" {
			if err == nil || api.CodeOf(err) != tt.code || !strings.Contains(err.Error(), tt.says) || hintOf(err) == "" {
				t.Errorf("%q: %+v, %v (%s)", tt.in, got, err, hintOf(err))
			}
			continue
		}
		if err != nil || got.name != tt.name || got.node != tt.node || got.address.String() != tt.address {
			t.Errorf("%q: %+v, %v", tt.in, got, err)
		}
	}
	for in, says := range map[string]string{
		"203.0.113.7": "belongs to no container and no node", "bad": "it is rejected: host network", "stopped": "it is bound", "nothing": "no container",
	} {
		if _, err := d.source(in); err == nil || !strings.Contains(err.Error(), says) || hintOf(err) == "" {
			t.Errorf("from %q: %v", in, err)
		}
	}
	if p, err := d.source("lonely"); err != nil || p.node != "3" {
		t.Errorf("a node needs no address to send: %+v, %v", p, err)
	}
}
