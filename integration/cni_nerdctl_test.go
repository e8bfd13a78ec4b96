package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"stellar.io/stellar/internal/testx"
	"stellar.io/stellar/internal/testx/faults"
)

const nerdctlRun = "../testdata/cni/nerdctl-run.txtar"

// hooked is a container whose OCI hooks call a CNI plugin as nerdctl's do: DEL and
// ADD in createRuntime, DEL in poststop.
type hooked struct {
	bed    *cniBed
	id     string
	values []string // KEY=VALUE for the recorded calls
	spec   string   // path of its config.json
}

// newHooked makes the container's specification. Its program looks at its network
// and, with hold, stays.
func newHooked(t *testing.T, b *cniBed, id, ip string, hold bool) *hooked {
	t.Helper()
	h := &hooked{bed: b, id: id, values: []string{"ID=" + id, "NAMESPACE=default", "ADDRESS=" + b.socket(), "IP=" + ip}}
	dir := t.TempDir()
	root := filepath.Join(dir, "rootfs")
	for _, sub := range []string{"bin", "proc", "dev", "sys", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(probe)
	if err == nil {
		err = os.WriteFile(filepath.Join(root, "bin/probe"), data, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	runc := exec.Command("runc", "spec", "--bundle", dir)
	runc.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if out, err := runc.CombinedOutput(); err != nil {
		t.Fatalf("runc spec: %v %s", err, out)
	}
	h.spec = filepath.Join(dir, "config.json")
	h.edit(t, func(spec map[string]any) {
		verb := "now"
		if hold {
			verb = "hold"
		}
		process := spec["process"].(map[string]any)
		process["args"], process["terminal"] = []string{"/bin/probe", verb}, false
		spec["root"] = map[string]any{"path": root}
		spec["linux"].(map[string]any)["cgroupsPath"] = "/stellar-test/" + filepath.Base(b.n.containerd.Dir) + "-" + id
	})
	h.hooks(t, "1,2", "3")
	return h
}

func (h *hooked) edit(t *testing.T, change func(map[string]any)) {
	t.Helper()
	data, err := os.ReadFile(h.spec)
	if err != nil {
		t.Fatal(err)
	}
	var spec map[string]any
	if err := json.Unmarshal(data, &spec); err != nil {
		t.Fatal(err)
	}
	change(spec)
	if data, err = json.Marshal(spec); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(h.spec, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// hooks says which of the recorded calls are made before the start and after the end.
func (h *hooked) hooks(t *testing.T, before, after string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	file, err := filepath.Abs(nerdctlRun)
	if err != nil {
		t.Fatal(err)
	}
	hook := func(calls string) []any {
		args := append([]string{self, hookVerb, filepath.Join(h.bed.bins, "stellar-cni"), file, calls}, h.values...)
		return []any{map[string]any{"path": self, "args": args, "env": []string{"GORACE=atexit_sleep_ms=0", "TMPDIR=" + os.TempDir()}}}
	}
	h.edit(t, func(spec map[string]any) {
		spec["hooks"] = map[string]any{"createRuntime": hook(before), "poststop": hook(after)}
	})
}

// run runs the container to its end and returns what its program saw.
func (h *hooked) run() (string, error) {
	return h.bed.n.containerd.Output(testx.Run{ID: h.id, Config: h.spec})
}

// calls makes further recorded calls, as nerdctl does without a container.
func (h *hooked) calls(t *testing.T, numbers ...string) {
	t.Helper()
	values := map[string]string{"RESULT": "null"}
	for _, kv := range h.values {
		key, value, _ := strings.Cut(kv, "=")
		values[key] = value
	}
	answers, err := replay(filepath.Join(h.bed.bins, "stellar-cni"), nerdctlRun, numbers, values)
	if err != nil {
		t.Fatal(err)
	}
	for name, a := range answers {
		if e := a.Error(); e != nil {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

// TestNerdctlSequence replays what nerdctl sends for run, stop, start and rm, from
// the hooks that it sends it from, under the real runtime.
func TestNerdctlSequence(t *testing.T) {
	for _, version := range testx.Versions() {
		t.Run("containerd "+string(version), func(t *testing.T) {
			n := startNode(t, nodeOptions{version: version})
			b := newCNIBed(n)
			ip := "172.16.0.77"
			for i := range 10 {
				h := newHooked(t, b, fmt.Sprintf("short%d", i), ip, false)
				out, err := h.run()
				if err != nil {
					t.Fatalf("%v\n%s", err, n.tail())
				}
				if got := readSight(t, out).address("eth0"); got.String() != ip {
					t.Errorf("asked for %s, the first instruction sees %s", ip, out)
				}
				h.calls(t, "6", "7") // nerdctl rm
				n.await("short"+fmt.Sprint(i), "")
				ip = fmt.Sprintf("172.16.0.%d", 78+i) // the old one cools down
			}
			h := newHooked(t, b, "web", "", true)
			n.runContainer(testx.Run{ID: "web", Config: h.spec})
			e := n.await("web", "attached")
			if e.Source != "cni" || e.Ready != "sync" {
				t.Errorf("endpoint %+v", e)
			}
			// Stopped, it keeps its address while its record is there; started, it has
			// it again.
			if err := n.containerd.KillTask("default", "web"); err != nil {
				t.Fatal(err)
			}
			if down := n.await("web", "bound"); down.Address != e.Address {
				faults.Safety(t, "stopped: %+v", down)
			}
			h.calls(t, "3", "4")
			if down := n.await("web", "bound"); down.Address != e.Address {
				faults.Safety(t, "after DEL: %+v", down)
			}
			if err := n.containerd.StartTask("default", "web"); err != nil {
				t.Fatal(err)
			}
			if again := n.await("web", "attached"); again.Address != e.Address {
				faults.Safety(t, "started again: %+v, before: %+v", again, e)
			} else if again.Ready != "sync" {
				t.Errorf("started again: %+v", again)
			}
			if err := n.containerd.Remove("default", "web"); err != nil {
				t.Fatal(err)
			}
			h.calls(t, "6", "7")
			n.await("web", "")
			n.checked()
		})
	}
}

// TestNerdctlRefused: what cannot be had is said, and the container does not start.
func TestNerdctlRefused(t *testing.T) {
	n := startNode(t, nodeOptions{})
	b := newCNIBed(n)
	other := n.start("other")
	h := newHooked(t, b, "web", other.Address, false)
	if out, err := h.run(); err == nil || !strings.Contains(err.Error()+out, other.Address) {
		t.Errorf("an address that is taken: %v %s", err, out)
	}
	for number, want := range map[string]string{"1": "portMappings is not supported", "2": "IPv6 is not supported"} {
		answers, err := replay(filepath.Join(b.bins, "stellar-cni"), "../testdata/cni/nerdctl-refused.txtar", []string{number}, map[string]string{
			"ID": "x", "NAMESPACE": "default", "ADDRESS": b.socket(), "IP": "172.16.0.99", "NETNS": testx.NewNetNS(t).Path,
		})
		if err != nil {
			t.Fatal(err)
		}
		for name, a := range answers {
			if e := a.Error(); e == nil || !strings.Contains(e.Msg, want) || e.Details == "" {
				t.Errorf("%s: %+v", name, e)
			}
		}
	}
	n.reaches("other", "172.16.0.1")
	if es := n.endpoints(); len(es) != 1 {
		t.Errorf("left behind: %+v", es)
	}
}
