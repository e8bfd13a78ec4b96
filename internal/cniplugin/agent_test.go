package cniplugin

import (
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/apitest"
	"stellar.io/stellar/api/server"
	"stellar.io/stellar/internal/testx/cnicall"
)

// TestMain lets the test's binary be the plugins, so that what is tested is a
// process with an environment and streams.
func TestMain(m *testing.M) {
	switch name := filepath.Base(os.Args[0]); name {
	case "stellar-cni", "stellar-cni-ipam":
		os.Exit(Main(Config{Name: name, Version: "test", IPAMOnly: name == "stellar-cni-ipam"}))
	}
	os.Exit(m.Run())
}

// agent is a fake one that a plugin calls: a backend that keeps real state, and
// what it was asked.
type agent struct {
	*apitest.Backend
	address string
	plugins string // directory of the plugins
	netns   string // a network namespace other than the plugin's

	mu    sync.Mutex // guards what follows
	added []api.AttachmentSpec
	check []api.AttachmentCheck
	delay time.Duration
	face  func(*api.AttachmentResult) // changes what is answered
}

func (a *agent) AddAttachment(ctx context.Context, s api.AttachmentSpec) (api.AttachmentResult, error) {
	a.mu.Lock()
	a.added = append(a.added, s)
	delay, face := a.delay, a.face
	a.mu.Unlock()
	select {
	case <-time.After(delay):
	case <-ctx.Done():
		return api.AttachmentResult{}, ctx.Err()
	}
	r, err := a.Backend.AddAttachment(ctx, s)
	r.Network = netip.MustParsePrefix("172.16.0.0/12")
	if err == nil && face != nil {
		face(&r)
	}
	return r, err
}

func (a *agent) CheckAttachment(ctx context.Context, c api.AttachmentCheck) error {
	a.mu.Lock()
	a.check = append(a.check, c)
	a.mu.Unlock()
	return a.Backend.CheckAttachment(ctx, c)
}

// start serves a fake agent of an initialised node until the test ends.
func start(t *testing.T) *agent {
	t.Helper()
	dir, err := os.MkdirTemp("", "stellar-cni-") // t.TempDir can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	a := &agent{Backend: apitest.New(nil), address: "unix://" + filepath.Join(dir, "s"), plugins: filepath.Join(dir, "bin"), netns: makeNamespace(t)}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(a.plugins, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"stellar-cni", "stellar-cni-ipam"} {
		if err := os.Symlink(self, filepath.Join(a.plugins, name)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.InitCluster(t.Context(), api.ClusterSpec{}); err != nil {
		t.Fatal(err)
	}
	l, err := server.Listen(filepath.Join(dir, "s"), "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.New(a, nil).Run(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return a
}

// call describes one call; zero fields have the values of an ordinary one.
type call struct {
	plugin  string // stellar-cni
	command string
	id      string // default-web
	ifname  string // eth0
	netns   string // the agent's; "-": empty
	args    string
	conf    string         // the whole configuration; else it is made of:
	version string         // 1.1.0
	keys    map[string]any // beside type, name, address
	ipam    map[string]any // of the section ipam
	env     []string
}

// run executes the plugin.
func (a *agent) run(t *testing.T, c call) cnicall.Answer {
	t.Helper()
	or := func(s, other string) string {
		if s == "" {
			return other
		}
		return s
	}
	c.plugin = or(c.plugin, "stellar-cni")
	if c.conf == "" {
		m := map[string]any{"cniVersion": or(c.version, "1.1.0"), "name": "stellar", "type": c.plugin}
		if c.plugin == "stellar-cni-ipam" {
			m["type"] = "bridge"
			section := map[string]any{"type": c.plugin, "address": a.address}
			for k, v := range c.ipam {
				section[k] = v
			}
			m["ipam"] = section
		} else {
			m["address"] = a.address
		}
		for k, v := range c.keys {
			m[k] = v
		}
		data, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		c.conf = string(data)
	}
	env := []string{"CNI_COMMAND=" + c.command, "CNI_CONTAINERID=" + or(c.id, "default-web"), "CNI_IFNAME=" + or(c.ifname, "eth0"),
		"CNI_NETNS=" + strings.TrimSuffix(or(c.netns, a.netns), "-"), "CNI_ARGS=" + c.args}
	return a.exec(t, c.plugin, cnicall.Call{Name: c.command, Env: append(env, c.env...), Stdin: c.conf})
}

func (a *agent) exec(t *testing.T, plugin string, c cnicall.Call) cnicall.Answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	// With -race each process would take a second to end.
	got, err := c.Run(ctx, filepath.Join(a.plugins, plugin), "GORACE=atexit_sleep_ms=0")
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// mustSucceed fails the test unless the plugin succeeded.
func mustSucceed(t *testing.T, a cnicall.Answer) string {
	t.Helper()
	if e := a.Error(); e != nil {
		t.Fatalf("code %d: %s (%s) %s", e.Code, e.Msg, e.Details, a.Stderr)
	}
	return a.Stdout
}

func decoded(t *testing.T, s string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(s), &v); err != nil {
		t.Fatalf("%v: %q", err, s)
	}
	return v
}
