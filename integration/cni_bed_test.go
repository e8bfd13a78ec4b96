package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"stellar.io/stellar/internal/testx"
	"stellar.io/stellar/internal/testx/cnicall"
)

// cniPlugins builds the plugins as they are shipped, beside the agent, where
// `stellar cni install` finds them.
var cniPlugins = sync.OnceValue(func() error {
	for _, name := range []string{"stellar-cni", "stellar-cni-ipam"} {
		build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Dir(binary), "stellar.io/stellar/cmd/"+name)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
	}
	return nil
})

// cniBed is what clients of CNI on a node find in /opt/cni, /etc/cni and
// /var/lib/cni. The machine's own are not touched: the clients run with mounts of
// their own.
type cniBed struct {
	n    *node
	dir  string // holds etc, opt and lib
	bins string // opt/cni/bin
	conf string // etc/cni/net.d
}

// newCNIBed installs Stellar's plugins and network, and the reference plugins.
func newCNIBed(n *node) *cniBed {
	n.t.Helper()
	if err := cniPlugins(); err != nil {
		n.t.Fatal(err)
	}
	tools, err := testx.CNITools()
	if err != nil {
		n.t.Fatal(err)
	}
	b := &cniBed{n: n, dir: n.t.TempDir()}
	b.bins, b.conf = filepath.Join(b.dir, "opt/cni/bin"), filepath.Join(b.dir, "etc/cni/net.d")
	for _, dir := range []string{b.bins, b.conf, filepath.Join(b.dir, "lib")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			n.t.Fatal(err)
		}
	}
	for _, name := range []string{"bridge", "ptp", "host-local"} {
		if err := os.Symlink(filepath.Join(tools, name), filepath.Join(b.bins, name)); err != nil {
			n.t.Fatal(err)
		}
	}
	n.cli("cni", "install", "--bin-dir", b.bins, "--conf-dir", b.conf)
	return b
}

// through is a program that runs another on the node with the bed's directories.
func (b *cniBed) through() []string {
	const mounts = `mount --bind "$0/etc" /etc && mount --bind "$0/opt" /opt && mount --bind "$0/lib" /var/lib && exec "$@"`
	return []string{"nsenter", "--net=" + b.n.host.Path, "unshare", "-m", "--propagation", "private", "sh", "-c", mounts, b.dir}
}

// write writes a network's configuration; the first by name is ctr's.
func (b *cniBed) write(name, text string) {
	b.n.t.Helper()
	if err := os.WriteFile(filepath.Join(b.conf, name), []byte(text), 0o644); err != nil {
		b.n.t.Fatal(err)
	}
}

// socket is the agent's address.
func (b *cniBed) socket() string { return "unix://" + filepath.Join(b.n.dir, "run", "stellar.sock") }

// cnitool runs cnitool and returns what it printed.
func (b *cniBed) cnitool(args ...string) (string, error) {
	tools, err := testx.CNITools()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	argv := append(append(b.through(), filepath.Join(tools, "cnitool")), args...)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "CNI_PATH=/opt/cni/bin", "NETCONFPATH=/etc/cni/net.d")
	var out, problems strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("cnitool %s: %w: %s %s", strings.Join(args, " "), err, out.String(), problems.String())
	}
	return out.String(), nil
}

// ran runs a container with `ctr run --cni` to its end and returns what its
// program saw at its first instruction.
func (b *cniBed) ran(id string) sight {
	b.n.t.Helper()
	out, err := b.n.containerd.Output(testx.Run{
		ID: id, Image: testx.ProbeName, Through: b.through(), Flags: []string{"--cni"}, Args: []string{"probe", "now"},
	})
	if err != nil {
		b.n.t.Fatalf("%v\n%s\n%s", err, out, b.n.tail())
	}
	return readSight(b.n.t, out)
}

// sight is what the probe says of the network it has.
type sight struct {
	Interfaces map[string]struct {
		MAC   string
		MTU   int
		Up    bool
		Addrs []string
	}
	Default []string
}

func readSight(t testing.TB, out string) sight {
	t.Helper()
	var s sight
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return s
}

// address is that of an interface that is up beside a default route; invalid if
// there is none.
func (s sight) address(ifname string) netip.Addr {
	dev := s.Interfaces[ifname]
	if !dev.Up || len(s.Default) == 0 {
		return netip.Addr{}
	}
	for _, a := range dev.Addrs {
		if p, err := netip.ParsePrefix(a); err == nil && p.Addr().Is4() {
			return p.Addr()
		}
	}
	return netip.Addr{}
}

// hookVerb makes the test's binary an OCI hook that replays CNI calls:
//
//	TEST cni-hook PLUGIN FILE FIRST,SECOND… KEY=VALUE…
//
// It makes the named calls of the file with the values, and with NETNS as that of
// the container's process.
const hookVerb = "cni-hook"

func cniHook(args []string, stdin io.Reader) error {
	if len(args) < 3 {
		return errors.New("too few arguments")
	}
	var state struct{ Pid int }
	if err := json.NewDecoder(stdin).Decode(&state); err != nil {
		return err
	}
	values := map[string]string{"NETNS": fmt.Sprintf("/proc/%d/ns/net", state.Pid), "RESULT": "null"}
	for _, kv := range args[3:] {
		key, value, _ := strings.Cut(kv, "=")
		values[key] = value
	}
	answers, err := replay(args[0], args[1], strings.Split(args[2], ","), values)
	if err != nil {
		return err
	}
	for name, a := range answers {
		if e := a.Error(); e != nil {
			return fmt.Errorf("%s: code %d: %s (%s)", name, e.Code, e.Msg, e.Details)
		}
	}
	return nil
}

// replay makes the calls of a recorded sequence whose names begin with the given
// numbers.
func replay(plugin, file string, numbers []string, values map[string]string) (map[string]cnicall.Answer, error) {
	calls, err := cnicall.Load(file)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out := map[string]cnicall.Answer{}
	for _, number := range numbers {
		for _, c := range calls {
			if strings.HasPrefix(c.Name, number+" ") {
				if out[c.Name], err = c.With(values).Run(ctx, plugin); err != nil {
					return nil, err
				}
			}
		}
	}
	if len(out) != len(numbers) {
		return nil, fmt.Errorf("%s has not all of the calls %v", file, numbers)
	}
	return out, nil
}

// callPlugin makes one call for the interface eth0 and returns the plugin's error.
func callPlugin(t testing.TB, plugin, conf, command, id, netns string) *cnicall.Error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c := cnicall.Call{Name: command, Command: command, Stdin: conf, Env: []string{
		"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + id, "CNI_NETNS=" + netns, "CNI_IFNAME=eth0",
	}}
	answer, err := c.Run(ctx, plugin)
	if err != nil {
		return &cnicall.Error{Msg: err.Error()}
	}
	return answer.Error()
}
