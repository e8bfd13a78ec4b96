package integration

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"stellar.io/stellar/internal/testx"
)

// TestCtrCNI: with `ctr run --cni` a container without any label has its network
// at its first instruction, each time, and gives everything back at its end.
func TestCtrCNI(t *testing.T) {
	for _, version := range testx.Versions() {
		t.Run("containerd "+string(version), func(t *testing.T) {
			n := startNode(t, nodeOptions{version: version})
			b := newCNIBed(n)
			for i := range 20 {
				id := fmt.Sprintf("short-%d", i) // a dash: the namespace has to be found
				if s := b.ran(id); !s.address("eth0").IsValid() {
					t.Errorf("%s saw %+v", id, s)
				}
			}
			n.runContainer(testx.Run{ID: "web", Through: b.through(), Flags: []string{"--cni"}})
			e := n.await("web", "attached")
			if e.Source != "cni" || e.Ready != "sync" || e.Ifname != "eth0" {
				t.Errorf("endpoint %+v", e)
			}
			n.reaches("web", "192.0.2.254")
			labelled := n.start("labelled")
			n.reaches("web", labelled.Address)
			// A label on a container with CNI counts: the two ask for one network.
			n.runContainer(testx.Run{ID: "both", Labels: networked("ip", "172.16.0.200"), Through: b.through(), Flags: []string{"--cni"}})
			if e := n.await("both", "attached"); e.Address != "172.16.0.200" || e.Source != "cni" || e.Ready != "sync" && e.Ready != "held" {
				t.Errorf("labelled as well: %+v", e)
			}
			// A killed agent comes back to what it had; a container that starts meanwhile
			// fails with the reason.
			n.stopAgent(syscall.SIGKILL)
			out, err := n.containerd.Output(testx.Run{ID: "early", Image: testx.ProbeName, Through: b.through(), Flags: []string{"--cni"}})
			if err == nil || !strings.Contains(err.Error()+out, "no agent at") {
				t.Errorf("without an agent: %v %s", err, out)
			}
			n.startAgent()
			n.await("web", "attached")
			n.reaches("web", labelled.Address)
			for _, id := range []string{"web", "both", "labelled"} {
				if err := n.containerd.Remove("default", id); err != nil {
					t.Error(err)
				}
				n.await(id, "")
			}
			if es := n.endpoints(); len(es) > 0 {
				t.Errorf("left behind: %+v", es)
			}
			n.checked()
		})
	}
}

// TestCNITool: a client without containerd, with a namespace that it has made.
func TestCNITool(t *testing.T) {
	n := startNode(t, nodeOptions{})
	b := newCNIBed(n)
	must := func(args ...string) string {
		t.Helper()
		out, err := b.cnitool(args...)
		if err != nil {
			t.Fatalf("%v\n%s", err, n.tail())
		}
		return out
	}
	pod := testx.NewNetNS(t)
	must("status", "stellar", pod.Path)
	if out := must("add", "stellar", pod.Path); !strings.Contains(out, `"address": "172.16.0.2/22"`) || !strings.Contains(out, `"0.0.0.0/0"`) {
		t.Errorf("ADD: %s", out)
	}
	pod.Run(t, "ping", "-c", "1", "-w", "3", "192.0.2.254")
	must("check", "stellar", pod.Path)
	// Killed between ADD and anything else: the agent knows what it gave.
	n.stopAgent(syscall.SIGKILL)
	if _, err := b.cnitool("del", "stellar", pod.Path); err == nil || !strings.Contains(err.Error(), "no agent at") {
		t.Errorf("DEL without an agent, which would leak: %v", err)
	}
	n.startAgent()
	must("check", "stellar", pod.Path)
	pod.Run(t, "ping", "-c", "1", "-w", "3", "192.0.2.254")
	pod.Run(t, "ip", "link", "set", "eth0", "down")
	must("del", "stellar", pod.Path)
	if out, err := pod.Output("ip", "link", "show", "eth0"); err == nil {
		t.Errorf("after DEL: %s", out)
	}
	must("del", "stellar", pod.Path)
	// Its cache is empty now, and CHECK has nothing to compare with.
	if _, err := b.cnitool("check", "stellar", pod.Path); err == nil {
		t.Error("CHECK of what never was")
	}
	for name, path := range map[string]string{"the host": n.host.Path, "a file": "/proc/version", "of process 1": "/proc/1/ns/net"} {
		if out, err := b.cnitool("add", "stellar", path); err == nil {
			t.Errorf("ADD in %s: %s", name, out)
		}
	}
	if es := n.endpoints(); len(es) > 0 {
		t.Errorf("left behind: %+v", es)
	}
}

// TestCNIGC: what a client that crashed has left is freed, and nothing else. With
// the reference plugins nobody would.
func TestCNIGC(t *testing.T) {
	n := startNode(t, nodeOptions{})
	b := newCNIBed(n)
	plugin := filepath.Join(b.bins, "stellar-cni")
	conf := func(more string) string {
		return fmt.Sprintf(`{"cniVersion":"1.1.0","name":"stellar","type":"stellar-cni","address":%q%s}`, b.socket(), more)
	}
	pods := map[string]*testx.NetNS{"kept": testx.NewNetNS(t), "crashed": testx.NewNetNS(t), "gone": testx.NewNetNS(t)}
	for id, ns := range pods {
		if e := callPlugin(t, plugin, conf(""), "ADD", id, ns.Path); e != nil {
			t.Fatalf("ADD %s: %+v", id, e)
		}
	}
	if err := pods["gone"].Close(); err != nil {
		t.Fatal(err)
	}
	n.stopAgent(syscall.SIGKILL)
	n.startAgent()
	valid := `,"cni.dev/valid-attachments":[{"containerID":"kept","ifname":"eth0"}]`
	if e := callPlugin(t, plugin, conf(valid), "GC", "", ""); e != nil {
		t.Fatalf("GC: %+v", e)
	}
	n.eventually(quiet, "only what is valid is left", func() error {
		es, err := n.list()
		if err == nil && (len(es) != 1 || es["stellar/kept"].State != "attached") {
			err = fmt.Errorf("%+v", es)
		}
		return err
	})
	pods["kept"].Run(t, "ping", "-c", "1", "-w", "3", "192.0.2.254")
	if out, err := pods["crashed"].Output("ip", "link", "show", "eth0"); err == nil {
		t.Errorf("after GC: %s", out)
	}
	n.checked()
}

// TestCNIAddsAtOnce: many clients at a time, as with CRI, each get their own.
func TestCNIAddsAtOnce(t *testing.T) {
	n := startNode(t, nodeOptions{})
	b := newCNIBed(n)
	plugin := filepath.Join(b.bins, "stellar-cni")
	conf := fmt.Sprintf(`{"cniVersion":"1.1.0","name":"stellar","type":"stellar-cni","timeout":"30s","address":%q}`, b.socket())
	const pods = 30
	var spaces []*testx.NetNS
	for range pods {
		spaces = append(spaces, testx.NewNetNS(t))
	}
	began := time.Now()
	done := make(chan error, pods)
	for i, ns := range spaces {
		go func() {
			if e := callPlugin(t, plugin, conf, "ADD", fmt.Sprintf("pod%d", i), ns.Path); e != nil {
				done <- fmt.Errorf("pod%d: %+v", i, e)
				return
			}
			done <- nil
		}()
	}
	for range pods {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d ADDs at once took %v", pods, time.Since(began))
	addresses := map[string]string{}
	for id, e := range n.endpoints() {
		if other, taken := addresses[e.Address]; taken || e.State != "attached" {
			t.Errorf("%s and %s: %+v", id, other, e)
		}
		addresses[e.Address] = id
	}
	if len(addresses) != pods {
		t.Errorf("%d addresses", len(addresses))
	}
}
