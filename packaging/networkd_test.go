package packaging

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// networkd is told to manage every link of our kinds, and one of another name.
func (b *bed) networkd(ours []string) {
	b.t.Helper()
	const theirs = "spare"
	b.run("ip", "link", "add", theirs, "type", "bridge")
	all := b.path("/etc/systemd/network/99-all.network")
	if err := os.MkdirAll(filepath.Dir(all), 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(all, []byte("[Match]\nName="+theirs+" stellar0 veth*\n\n[Network]\nKeepConfiguration=yes\nLinkLocalAddressing=no\n"), 0o644); err != nil {
		b.t.Fatal(err)
	}
	b.run("systemctl", "start", "systemd-networkd")
	state := func(link string) string {
		out, _ := b.try("sh", "-c", "grep ^ADMIN_STATE= /run/systemd/netif/links/$(cat /sys/class/net/"+link+"/ifindex)")
		return strings.TrimSpace(out)
	}
	eventually(b.t, 20*time.Second, "networkd has looked at all links", func() error {
		for _, link := range append([]string{theirs}, ours...) {
			if s := state(link); s == "" || strings.HasSuffix(s, "=pending") || strings.HasSuffix(s, "=initialized") {
				return fmt.Errorf("%s: %q", link, s)
			}
		}
		return nil
	})
	if s := state(theirs); s == "ADMIN_STATE=unmanaged" {
		b.t.Errorf("%s: %s, so that it shows nothing that ours are", theirs, s)
	}
	for _, link := range ours {
		if s := state(link); s != "ADMIN_STATE=unmanaged" {
			b.t.Errorf("networkd manages %s: %s", link, s)
		}
	}
	b.run("systemctl", "stop", "systemd-networkd.socket", "systemd-networkd")
	b.run("ip", "link", "del", theirs)
	if err := os.Remove(all); err != nil {
		b.t.Fatal(err)
	}
}

// uplink is what networkd is told of the uplink; docs/systemd.md advises the last line.
const uplink = `[Match]
Name=eth0

[Network]
Address=192.0.2.1/24
Gateway=192.0.2.254
LinkLocalAddressing=no
KeepConfiguration=static
`

// asOnAMachine starts networkd as it is started where there is udev, until it has looked
// at the uplink. Where /sys cannot be written it takes itself to be in a container, and
// looks at its links before it knows of any route.
const asOnAMachine = `
mount -o remount,rw /sys
index=$(cat /sys/class/net/eth0/ifindex)
mkdir -p /run/udev/data && echo I:1 >/run/udev/data/n$index
rm -f /run/systemd/netif/links/$index
SYSTEMD_LOG_TARGET=console /lib/systemd/systemd-networkd &
for i in $(seq 300); do
  ! grep -qs ^ADMIN_STATE=configured /run/systemd/netif/links/$index || break
  sleep 0.1
done
grep ^ADMIN_STATE= /run/systemd/netif/links/$index
kill $! && wait $!
`

// TestNetworkdLeavesRoutes: a networkd that manages the uplink starts anew while there is
// no agent, and the routes to the other nodes stay, since the package has told it so.
func TestNetworkdLeavesRoutes(t *testing.T) {
	b := boot(t)
	b.run("apt-get", "install", "-y", "-q", b.put(debs(t)[0]))
	b.run("stellar", "cluster", "init")
	routes := func() string { return b.run("ip", "route", "show", "proto", "stellar") }
	eventually(t, 30*time.Second, "the agent's own route", func() error {
		if out := routes(); !strings.Contains(out, "unreachable 172.16.0.0/12") {
			return fmt.Errorf("routes: %s", out)
		}
		return nil
	})
	if err := os.WriteFile(b.path("/etc/systemd/network/50-uplink.network"), []byte(uplink), 0o644); err != nil {
		t.Fatal(err)
	}
	b.run("systemctl", "stop", "stellar", "systemd-networkd.socket", "systemd-networkd")
	start := func() string {
		t.Helper()
		out := b.run("unshare", "--mount", "sh", "-c", asOnAMachine)
		if !strings.Contains(out, "ADMIN_STATE=configured") {
			t.Fatalf("networkd is not done with the uplink:\n%s", out)
		}
		return out
	}
	b.run("ip", "address", "flush", "dev", "eth0") // so that it is networkd that gives the address
	start()
	b.run("ip", "route", "add", "172.16.4.0/22", "via", "192.0.2.2", "proto", "stellar") // as to a second node
	for _, tt := range []struct {
		does string
		stay bool
	}{
		{"test -e /usr/lib/systemd/networkd.conf.d/10-stellar.conf", true},
		{"mkdir -p /etc/systemd/networkd.conf.d; ln -s /dev/null /etc/systemd/networkd.conf.d/10-stellar.conf", false}, // what it does by itself
	} {
		b.run("sh", "-c", tt.does)
		before := routes()
		out := start()
		if after := routes(); tt.stay != (after == before) || strings.Count(before, "\n") != 2 {
			t.Errorf("%s: routes before\n%safter\n%snetworkd said\n%s", tt.does, before, after, out)
		}
	}
}
