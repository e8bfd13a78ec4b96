package netsetup

import (
	"bytes"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/testx/faults"
)

// elements are those of the kernel's set, as text.
func (b *bed) elements() []string {
	b.t.Helper()
	g := newGuard(b.host.FD, b.n.cfg, true)
	s, err := g.read()
	if err != nil {
		b.t.Fatal(err)
	}
	var out []string
	for key := range s.elements {
		name, mac, addr, _ := splitKey([]byte(key))
		out = append(out, fmt.Sprint(name, " ", mac, " ", addr))
	}
	return out
}

// onlyElement returns nil when the set has exactly the endpoint's element.
func (b *bed) onlyElement(ep Endpoint) error {
	want := fmt.Sprint(ep.HostIfname, " ", ep.MAC, " ", ep.Addr)
	if got := b.elements(); len(got) != 1 || got[0] != want {
		return fmt.Errorf("elements %q, want %q", got, want)
	}
	return nil
}

// TestAdmitAgain: an owner that comes back has the rights of its new endpoint
// and none of its former, under the same name, too.
func TestAdmitAgain(t *testing.T) {
	t.Parallel()
	b := newBed(t).ensure()
	c := b.container("172.16.0.2")
	for i, change := range []func(){
		func() {},
		func() { c.spec.MAC = net.HardwareAddr{2, 0, 0, 0, 0, 7} },
		func() { c.spec.MAC = net.HardwareAddr{2, 0, 0, 0, 0, 8} }, // adopted with another MAC
		func() { c.spec.Addr = c.spec.Addr.Next() },
		func() {
			if err := b.n.Detach(t.Context(), c.spec.Owner); err != nil {
				t.Fatal(err)
			}
			if got := b.elements(); len(got) > 0 {
				t.Errorf("after Detach: %q", got)
			}
			c.spec.MAC = nil
		},
	} {
		change()
		ep, _, err := b.n.Attach(t.Context(), c.spec)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.onlyElement(ep); err != nil {
			t.Errorf("change %d: %v", i, err)
		}
		mustPing(t, c, "172.16.0.1")
	}
}

// TestAdmitNothing: an attach that fails leaves no rights.
func TestAdmitNothing(t *testing.T) {
	t.Parallel()
	b := newBed(t).ensure()
	c := b.container("172.16.0.2")
	c.run("sh", "-c", "ip link add other type bridge; ip address add 10.9.0.2/24 dev other; ip link set other up; ip route add default via 10.9.0.1")
	if _, _, err := b.n.Attach(t.Context(), c.spec); err == nil {
		t.Fatal("attached")
	}
	if got := b.elements(); len(got) > 0 {
		t.Errorf("elements %q", got)
	}
}

// TestAdmitStale: what the kernel deletes with a namespace loses its rights, at
// once when it is watched, else with the next agent.
func TestAdmitStale(t *testing.T) {
	t.Parallel()
	for _, watched := range []bool{true, false} {
		t.Run(fmt.Sprintf("watched=%v", watched), func(t *testing.T) {
			t.Parallel()
			b := newBed(t).ensure()
			if watched {
				b.run()
			}
			c, other := b.attach("172.16.0.2"), b.attach("172.16.0.3")
			c.ns.Close()
			c.kill()
			eventually(t, repairLimit, "end of the link", func() error { return b.gone(c.ep.HostIfname) })
			if !watched {
				b.n = b.network()
				b.ensure()
			}
			eventually(t, repairLimit, "end of its rights", func() error { return b.onlyElement(other.ep) })
		})
	}
}

// TestAdmitUpgrade: endpoints that a version without the guard has made go on
// without losing a packet, and cannot forge from then on.
func TestAdmitUpgrade(t *testing.T) {
	t.Parallel()
	b := newBed(t).ensure()
	one, static, liar := b.attach("172.16.0.2"), b.container("172.16.0.3"), b.attach("172.16.0.4")
	static.spec.MAC = net.HardwareAddr{2, 0, 0, 0, 0, 7}
	if _, _, err := b.n.Attach(t.Context(), static.spec); err != nil {
		t.Fatal(err)
	}
	mustPing(t, static, "172.16.0.2")
	if err := b.n.guard.remove(); err != nil {
		t.Fatal(err)
	}
	// While there was no guard this one has taken the gateway's MAC.
	liar.run("sh", "-c", "ip link set eth0 down; ip link set eth0 address "+bridgeMACFor(testNode).String()+"; ip link set eth0 up")
	ping, start := b.host.Command("nsenter", "--net=/proc/"+strconv.Itoa(static.pid)+"/ns/net", "ping", "-n", "-q", "-i", "0.002", "172.16.0.2")
	out := new(bytes.Buffer)
	ping.Stdout = out
	if err := start(); err != nil {
		t.Fatal(err)
	}
	b.n = b.network()
	b.ensure()
	got := strings.Join(b.elements(), "\n")
	for _, want := range []string{
		one.ep.HostIfname + " 02:73:ac:10:00:02 172.16.0.2", "02:00:00:00:00:07 172.16.0.3", liar.ep.HostIfname + " 02:73:ac:10:00:04 172.16.0.4",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %q", want, got)
		}
	}
	mustPing(t, one, "172.16.0.3", "172.16.0.1")
	_ = ping.Process.Signal(unix.SIGINT)
	_ = ping.Wait()
	if !strings.Contains(out.String(), " 0% packet loss") {
		faults.Safety(t, "packets lost: %s", out)
	}
}

// TestAdmitWithoutTables: somebody deletes the tables and nobody watches.
func TestAdmitWithoutTables(t *testing.T) {
	t.Parallel()
	b := newBed(t).ensure()
	one := b.attach("172.16.0.2")
	b.host.Run(t, "nft", "flush", "ruleset")
	two := b.attach("172.16.0.3")
	if got := b.elements(); len(got) != 2 {
		t.Errorf("elements %q", got)
	}
	mustPing(t, two, "172.16.0.2", "172.16.0.1")
	mustPing(t, one, "172.16.0.1")
	if !b.repaired("filter") {
		t.Error("not reported")
	}
}

// TestDamageDuringSync: what somebody takes away while the tables are compared is not
// taken for right.
func TestDamageDuringSync(t *testing.T) {
	t.Parallel()
	b := newBed(t).ensure()
	b.attach("172.16.0.2")
	g := b.n.guard
	b.host.Run(t, "nft", "add table ip somebody") // so that there is something to compare
	if damage, err := g.sync(func(admitted map[string]admission, _ map[string]bool) map[string]admission {
		b.host.Run(t, "nft", "delete table bridge stellar")
		return admitted
	}); damage != "" || err != nil {
		t.Fatal(damage, err)
	}
	if damage, err := g.sync(func(admitted map[string]admission, _ map[string]bool) map[string]admission { return admitted }); damage != "rules" || err != nil {
		t.Errorf("found %q, %v", damage, err)
	}
	if got := b.lookGuard(); !got.Complete() {
		t.Errorf("lacking: %+v", got)
	}
}
