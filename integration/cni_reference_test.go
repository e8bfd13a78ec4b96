package integration

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"stellar.io/stellar/internal/testx"
)

// documented returns a network's configuration as docs/cni.md has it, with the
// agent's address put in.
func documented(t *testing.T, name, address string) string {
	t.Helper()
	doc, err := os.ReadFile("../docs/cni.md")
	if err != nil {
		t.Fatal(err)
	}
	for block := range strings.SplitSeq(string(doc), "```json\n") {
		conf, _, ok := strings.Cut(block, "```")
		if ok && strings.Contains(conf, fmt.Sprintf(`"name": %q`, name)) {
			return strings.Replace(conf, `"type": "stellar-cni-ipam"`, fmt.Sprintf(`"type": "stellar-cni-ipam", "address": %q`, address), 1)
		}
	}
	t.Fatalf("docs/cni.md has no network %s", name)
	return ""
}

// TestReferencePlugins: bridge and ptp with addresses of ours. The first
// instruction sees address and default route, and the reach is what docs/cni.md
// says.
func TestReferencePlugins(t *testing.T) {
	for _, tt := range []struct {
		name      string
		neighbour bool // reaches a container on stellar0 of its own node
	}{
		{"bridge", true},
		{"ptp", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			nodes := startCluster(t, 2)
			n, far := nodes[0], nodes[1]
			b := newCNIBed(n)
			b.write("10-"+tt.name+".conflist", documented(t, "stellar-"+tt.name, b.socket())) // ctr takes the first
			for i := range 5 {
				if s := b.ran(fmt.Sprintf("short%d", i)); !s.address("eth0").IsValid() {
					t.Errorf("the first instruction saw %+v", s)
				}
			}
			neighbour, remote := n.start("neighbour"), far.start("remote")
			n.runContainer(testx.Run{ID: "web", Through: b.through(), Flags: []string{"--cni"}})
			for what, addr := range map[string]string{"the gateway": "172.16.0.1", "the world": "192.0.2.254", "another node's container": remote.Address} {
				t.Log(what)
				n.reaches("web", addr)
			}
			e := n.endpoints()["stellar-"+tt.name+"/default-web"]
			if e.Address == "" || e.Source != "cni" || e.State != "bound" {
				t.Errorf("endpoint %+v of %+v", e, n.endpoints())
			}
			far.reaches("remote", e.Address)
			_, err := n.exec("web", "ping", "-c", "1", "-w", "2", neighbour.Address)
			if (err == nil) != tt.neighbour {
				t.Errorf("reaches a container on stellar0: %v", err)
			}
			if err := n.containerd.Remove("default", "web"); err != nil {
				t.Fatal(err)
			}
			// ctr has no DEL for what it started with --detach; its addresses are freed by GC.
			gc := fmt.Sprintf(`{"cniVersion":"1.1.0","name":"stellar-%s","type":%q,"ipam":{"type":"stellar-cni-ipam","address":%q},"cni.dev/valid-attachments":[]}`,
				tt.name, tt.name, b.socket())
			if e := callPlugin(t, b.bins+"/stellar-cni-ipam", gc, "GC", "", ""); e != nil {
				t.Errorf("GC: %+v", e)
			}
			for id := range n.endpoints() {
				if strings.HasPrefix(id, "stellar-") {
					t.Errorf("left behind: %s", id)
				}
			}
			n.checked()
		})
	}
}
