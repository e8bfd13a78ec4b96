package packaging

import (
	"os"
	"strings"
	"testing"
	"time"

	"stellar.io/stellar/internal/testx"
)

// allowed is the limit for what an operator waits for, from the package to a
// container with an address; the build comes on top.
const allowed = 60 * time.Second

// TestInstall follows a machine's life with the package: install, a labelled
// container, upgrade, removal, purge. What runs keeps its network through all but
// the last.
func TestInstall(t *testing.T) {
	old, new := debs(t)[0], debs(t)[1]
	b := boot(t)
	b.busybox()
	old, new = b.put(old), b.put(new)

	start := time.Now()
	b.run("apt-get", "install", "-y", "-q", old)
	b.run("stellar", "cluster", "init")
	b.run("ctr", "run", "-d", "--label", "stellar.io/network=true", testx.BusyboxName, "web", "sleep", "infinity")
	addr, ready := b.await("web")
	took := time.Since(start)
	t.Logf("installed, with a container at %s (%s) after %s", addr, ready, took.Round(10*time.Millisecond))
	if took > allowed {
		t.Errorf("an address after %s, want %s at most", took, allowed)
	}
	if ready != "held" {
		t.Errorf("READY is %q under the unit's restrictions, want held", ready)
	}
	b.installed()

	lossless := func(what string, do func()) {
		t.Helper()
		stop := b.pings(addr)
		do()
		sent, answered := stop()
		t.Logf("%s: %d of %d pings answered", what, answered, sent)
		if sent < 5 || answered != sent {
			t.Errorf("%s: %d of %d pings answered", what, answered, sent)
		}
	}
	before := b.pidOfAgent()
	b.run("sh", "-c", "echo '# mine' >>/etc/stellar/config.toml")
	lossless("upgrade", func() { b.run("apt-get", "install", "-y", "-q", new) })
	if b.pidOfAgent() == before {
		t.Error("the agent of the old version still runs after the upgrade")
	}
	if a, _ := b.await("web"); a != addr {
		t.Errorf("address %s after the upgrade, want %s", a, addr)
	}
	if text := b.run("cat", "/etc/stellar/config.toml"); !strings.Contains(text, "# mine") {
		t.Error("the upgrade replaced the operator's configuration")
	}
	b.run("stellar", "cni", "install")
	lossless("removal", func() { b.run("apt-get", "remove", "-y", "-q", "stellar") })
	if _, err := b.try("systemctl", "is-active", "stellar"); err == nil {
		t.Error("the agent runs after the removal")
	}
	lossless("installed again", func() { b.run("apt-get", "install", "-y", "-q", new) })
	if a, r := b.await("web"); a != addr || r != "adopted" {
		t.Errorf("endpoint %s %s after removal and installation, want %s adopted", a, r, addr)
	}
	b.run("apt-get", "remove", "-y", "-q", "stellar")
	b.run("apt-get", "purge", "-y", "-q", "stellar")
	b.purged()
}

func (b *bed) pidOfAgent() string {
	b.t.Helper()
	return b.run("systemctl", "show", "-P", "MainPID", "stellar")
}

// installed looks at what the package brought beside the programs.
func (b *bed) installed() {
	b.t.Helper()
	if out := b.run("systemctl", "is-enabled", "stellar"); strings.TrimSpace(out) != "enabled" {
		b.t.Errorf("the unit is %s", out)
	}
	if out := b.run("ip", "route", "show", "proto", "stellar"); !strings.Contains(out, "unreachable 172.16.0.0/12") {
		b.t.Errorf("routes of proto stellar: %s", out)
	}
	if out := b.run("stat", "-c", "%a %U %G", "/run/stellar/stellar.sock", "/var/lib/stellar", "/run/stellar"); out != "660 root stellar\n700 root root\n755 root root\n" {
		b.t.Errorf("modes of socket, data and run directory:\n%s", out)
	}
	if out, err := b.try("systemd-analyze", "verify", "stellar.service"); err != nil || strings.Contains(out, "stellar") {
		b.t.Errorf("systemd-analyze verify: %v %s", err, out)
	}
	if out := b.run("bash", "-c", ". /usr/share/bash-completion/bash_completion; . /usr/share/bash-completion/completions/stellar; complete -p stellar"); !strings.Contains(out, "__start_stellar") {
		b.t.Errorf("bash completes stellar by %s", out)
	}
	for _, file := range []string{"/usr/share/man/man1/stellar.1.gz", "/usr/share/man/man5/stellar.toml.5.gz"} {
		if out, err := b.try("sh", "-c", "gzip -dc "+file+" | head -1"); err != nil || !strings.HasPrefix(out, ".TH ") {
			b.t.Errorf("%s: %v %s", file, err, out)
		}
	}
}

// purged looks for what a purge may not leave.
func (b *bed) purged() {
	b.t.Helper()
	for _, file := range []string{"/var/lib/stellar", "/var/lib/stellar.removed", "/etc/stellar", "/run/stellar", "/opt/cni/bin/stellar-cni",
		"/etc/cni/net.d/90-stellar.conflist", "/etc/systemd/system/multi-user.target.wants/stellar.service", "/etc/iproute2/rt_protos.d/stellar.conf"} {
		if _, err := os.Lstat(b.path(file)); err == nil {
			b.t.Errorf("%s is still there", file)
		}
	}
	for what, show := range map[string]string{
		"links":  "ip -br link show group 147",
		"routes": "ip route show proto 147",
		"tables": "nft list tables | grep stellar || true",
		"group":  "getent group stellar || true",
		"rules":  "iptables -S FORWARD | grep stellar || true",
	} {
		if out := b.run("sh", "-c", show); strings.TrimSpace(out) != "" {
			b.t.Errorf("%s are still there: %s", what, out)
		}
	}
}
