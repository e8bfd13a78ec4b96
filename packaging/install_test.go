package packaging

import (
	"strings"
	"testing"
	"time"
)

// allowed is the limit for what an operator waits for, from the checkout to a
// container with an address.
const allowed = 60 * time.Second

// TestInstall follows a machine's life with the package: the README's first
// commands, upgrade, removal, purge. What runs keeps its network through all but
// the last, which leaves nothing.
func TestInstall(t *testing.T) {
	b := boot(t)
	new := b.put(debs(t)[1])
	b.registry()
	before := b.traces()
	container, addr, ready := b.follow(readmeCommands(t))
	if ready != "held" {
		t.Errorf("READY is %q under the unit's restrictions, want held", ready)
	}
	if page := b.run("busybox", "wget", "-q", "-O", "-", "http://"+addr+"/"); page != served {
		t.Errorf("the web server at %s says %q", addr, page)
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
	old := b.pidOfAgent()
	b.run("sh", "-c", "echo '# mine' >>/etc/stellar/config.toml")
	lossless("upgrade", func() { b.run("apt-get", "install", "-y", "-q", new) })
	if b.pidOfAgent() == old {
		t.Error("the agent of the old version still runs after the upgrade")
	}
	if a, _ := b.await(container); a != addr {
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
	if a, r := b.await(container); a != addr || r != "adopted" {
		t.Errorf("endpoint %s %s after removal and installation, want %s adopted", a, r, addr)
	}
	b.run("apt-get", "remove", "-y", "-q", "stellar")
	b.run("apt-get", "purge", "-y", "-q", "stellar")
	b.run("ctr", "task", "kill", "-s", "KILL", container)
	eventually(t, 10*time.Second, "the container ends", func() error {
		_, err := b.try("ctr", "task", "rm", container)
		return err
	})
	b.run("ctr", "container", "rm", container)
	b.same(before, b.traces())
}

func (b *bed) pidOfAgent() string {
	b.t.Helper()
	return b.run("systemctl", "show", "-P", "MainPID", "stellar")
}
