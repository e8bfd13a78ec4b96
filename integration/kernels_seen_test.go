package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"stellar.io/stellar/internal/testx"
)

// TestKernelsSeen: the watch over all kernels sees an address in two namespaces, be
// they a container's or not, and a subnet with two next hops, and nothing else.
func TestKernelsSeen(t *testing.T) {
	lan := testx.NewLAN(t, 2)
	var nodes []*node
	for i, host := range lan.Hosts {
		nodes = append(nodes, &node{t: t, name: string(rune('a' + i)), host: host, containerd: &testx.Containerd{Dir: t.TempDir()}})
	}
	route := func(n *node, via string) {
		n.host.Run(t, "ip", "route", "replace", "172.16.8.0/22", "via", via, "proto", "147")
	}
	address := func(ns *testx.NetNS, a string) {
		ns.Run(t, "ip", "address", "flush", "dev", "lo", "scope", "global")
		ns.Run(t, "ip", "address", "add", a, "dev", "lo")
	}
	task := func(n *node, id string, ns *testx.NetNS) {
		cmd, start := ns.Command("sleep", "600")
		if err := start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
		dir := filepath.Join(n.containerd.Dir, "state", "io.containerd.runtime.v2.task", "default", id)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "init.pid"), fmt.Append(nil, cmd.Process.Pid), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	one, two, pod := testx.NewNetNS(t), testx.NewNetNS(t), testx.NewNetNS(t)
	task(nodes[0], "one", one)
	task(nodes[0], "mate", one) // two containers of one namespace
	task(nodes[1], "two", two)
	for _, tt := range []struct {
		name           string
		one, two, pod  string // addresses
		viaOnA, viaOnB string
		want           []string
		wantMost       int
	}{
		{"in order", "172.16.0.2/32", "172.16.4.2/32", "172.16.4.3/32", "192.0.2.3", "192.0.2.3", nil, 3},
		{"two containers", "172.16.0.2/32", "172.16.0.2/32", "172.16.4.3/32", "192.0.2.3", "192.0.2.3", []string{"172.16.0.2 in mate on a and two on b"}, 2},
		{"a container and another namespace", "172.16.0.2/32", "172.16.4.2/32", "172.16.0.2/32", "192.0.2.3", "192.0.2.3", []string{"172.16.0.2 in " + pod.Name + " and mate on a", "172.16.0.2 in " + pod.Name + " and one on a"}, 2},
		{"two next hops", "172.16.0.2/32", "172.16.4.2/32", "172.16.4.3/32", "192.0.2.3", "192.0.2.4", []string{"172.16.8.0/22 via 192.0.2.3 and 192.0.2.4"}, 3},
	} {
		address(one, tt.one)
		address(two, tt.two)
		address(pod, tt.pod)
		route(nodes[0], tt.viaOnA)
		route(nodes[1], tt.viaOnB)
		k := newKernels(t, nodes...)
		k.add(t, pod)
		k.nextHops()
		k.addresses()
		want := slices.Sorted(slices.Values(tt.want))
		if got := k.wrong(); !slices.Equal(got, want) {
			t.Errorf("%s: seen %q, want %q", tt.name, got, want)
		}
		if k.most != tt.wantMost {
			t.Errorf("%s: %d addresses, want %d", tt.name, k.most, tt.wantMost)
		}
	}
}
