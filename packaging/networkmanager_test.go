package packaging

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestNetworkManager: NetworkManager reads its drop-in, and adds our links to those that
// somebody else keeps from it. It is the program that `make deps` brings, which prints
// what it would do and ends; what it does not know it leaves out.
func TestNetworkManager(t *testing.T) {
	t.Parallel()
	program, err := filepath.Abs("../.cache/NetworkManager/usr/sbin/NetworkManager")
	if err != nil {
		t.Fatal(err)
	}
	libs, err := filepath.Glob("../.cache/NetworkManager/usr/lib/*-linux-*")
	if err != nil || len(libs) == 0 {
		t.Fatalf("make deps brings NetworkManager: %q, %v", libs, err)
	}
	ours, err := os.ReadFile("systemd/10-stellar-nm.conf")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"main": "", "conf.d/00-theirs.conf": "[keyfile]\nunmanaged-devices=mac:02:00:00:00:00:01\n", "conf.d/10-stellar.conf": string(ours)} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(program, "--print-config", "--config="+filepath.Join(dir, "main"), "--config-dir="+filepath.Join(dir, "conf.d"),
		"--system-config-dir="+filepath.Join(dir, "none"), "--intern-config="+filepath.Join(dir, "intern"))
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+libs[0])
	out, err := cmd.CombinedOutput()
	const want = "\nunmanaged-devices=mac:02:00:00:00:00:01,interface-name:stellar0,interface-name:veth???????????\n"
	if err != nil || !strings.Contains(string(out), want) {
		t.Errorf("%v\n%s\nwant%s", err, out, want)
	}
}
