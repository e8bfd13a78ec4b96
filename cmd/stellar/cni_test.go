package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"stellar.io/stellar/api"
	"stellar.io/stellar/internal/cniinstall"
	"stellar.io/stellar/internal/config"
)

// builtPlugins builds the CNI plugins once and returns their content by name.
var builtPlugins = sync.OnceValues(func() (map[string][]byte, error) {
	dir, err := os.MkdirTemp("", "stellar-cni-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := map[string][]byte{}
	for _, name := range cniinstall.Plugins {
		build := exec.Command("go", "build", "-buildvcs=false", "-o", dir, "stellar.io/stellar/cmd/"+name)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if msg, err := build.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%w: %s", err, msg)
		}
		if out[name], err = os.ReadFile(filepath.Join(dir, name)); err != nil {
			return nil, err
		}
	}
	return out, nil
})

// runPlugins puts the CNI plugins into a directory.
func runPlugins(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: plugins DIR")
	}
	built, err := builtPlugins()
	ts.Check(err)
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o755))
	for name, data := range built {
		ts.Check(os.WriteFile(filepath.Join(dir, name), data, 0o755))
	}
}

// TestDefaultAddress: the small programs and the agent agree on it.
func TestDefaultAddress(t *testing.T) {
	if got := config.DefaultConfig().SocketAddress(); got != api.DefaultAddress {
		t.Errorf("the agent serves at %s, the plugins call %s", got, api.DefaultAddress)
	}
}
