package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/client"
	"stellar.io/stellar/internal/config"
	"stellar.io/stellar/internal/failpoint"
	"stellar.io/stellar/internal/failpoint/failctl"
	"stellar.io/stellar/internal/nlx"
	"stellar.io/stellar/internal/testx"
	"stellar.io/stellar/internal/testx/faults"
)

// crashBinary is the program with failpoints, built when it is first needed.
var crashBinary = sync.OnceValues(func() (string, error) {
	path := binary + "-failpoints"
	return path, buildBinary(path, "-tags", "hashicorpmetrics failpoints")
})

// crashCoolDown is short, so that a leaked or doubled address shows within a case.
const crashCoolDown = time.Second

// crashBed is a node whose agent has failpoints, and what was acknowledged there.
type crashBed struct {
	*node
	table        *failctl.Table
	api          *client.Client
	pod, keptPod *testx.NetNS // of nobody: one for each case, one that is attached all the time
	// held is what has an address by right, by what `endpoint ls` calls it.
	held     map[string]netip.Addr
	netns    map[string]string // paths of those that containerd does not know
	requests int               // that are to be on disk
	rules    string            // the nftables of the host
}

// newCrashBed makes a node of the LAN without an agent yet.
func newCrashBed(t testing.TB, lan *testx.LAN, host int) *crashBed {
	t.Helper()
	build, err := crashBinary()
	if err != nil {
		t.Fatal(err)
	}
	b := &crashBed{node: newNode(t, lan, host, nodeOptions{}), held: map[string]netip.Addr{}, netns: map[string]string{}}
	b.build = build
	b.flags = []string{"--config", writeConfig(t, fmt.Sprintf("cool-down = %q", crashCoolDown))}
	path := filepath.Join(b.dir, "failpoints")
	b.agentEnv = []string{failpoint.EnvFile + "=" + path}
	if b.table, err = failctl.Open(path, failpoint.Names()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.table.Close() })
	b.api = b.client()
	return b
}

// ctx is for one call of the API.
func (b *crashBed) ctx() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 20*time.Second)
}

// arm has something happen at a failpoint: at its n-th arrival, or at each for 0.
func (b *crashBed) arm(p failpoint.Name, a failctl.Action, n int, pause time.Duration) {
	b.t.Helper()
	if err := b.table.Arm(string(p), a, n, pause); err != nil {
		b.t.Fatal(err)
	}
}

// running reports whether the agent has not ended.
func (b *crashBed) running() bool {
	if b.agent == nil {
		return false
	}
	select {
	case err := <-b.ended:
		b.ended <- err
		return false
	default:
		return true
	}
}

// awaitCrash waits until the agent has died at a failpoint.
func (b *crashBed) awaitCrash(p failpoint.Name) {
	b.t.Helper()
	select {
	case err := <-b.ended:
		b.agent = nil
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			b.t.Fatalf("the agent has ended otherwise than at %s: %v\n%s", p, err, b.tail())
		}
	case <-time.After(quiet):
		b.t.Fatalf("%s is not reached\n%s", p, b.tail())
	}
}

// restart starts the agent, which must come up by itself.
func (b *crashBed) restart(extra ...string) {
	b.t.Helper()
	b.table.Disarm()
	b.startAgent(extra...)
	b.cli("status", "--wait", "--timeout", "30s")
}

// runs starts a labelled container and waits until it has its network.
func (b *crashBed) runs(id string) {
	b.t.Helper()
	b.runContainer(testx.Run{ID: id, Labels: networked()})
	b.settled(id)
}

// settled waits until a container has its network, which it has by right from now on.
func (b *crashBed) settled(id string) {
	b.t.Helper()
	e := b.await(id, "attached")
	addr := netip.MustParseAddr(e.Address)
	if had, ok := b.held[key(id)]; ok && had != addr {
		faults.Safety(b.t, "%s has %s, it was given %s", id, addr, had)
	}
	b.held[key(id)] = addr
}

// removes deletes a container and waits until nothing of it is known.
func (b *crashBed) removes(id string) {
	b.t.Helper()
	if err := b.containerd.Remove("default", id); err != nil {
		b.t.Fatal(err)
	}
	b.vanished(id)
}

func (b *crashBed) vanished(id string) {
	b.t.Helper()
	delete(b.held, key(id))
	b.await(id, "")
}

// check is what must be true whenever everything has come to rest.
func (b *crashBed) check() {
	b.t.Helper()
	b.checkAll(false)
}

// checkAll also waits until what was released has cooled off and is forgotten.
func (b *crashBed) checkAll(cooled bool) {
	b.t.Helper()
	b.eventually(quiet, "everything is as it was acknowledged", func() error {
		es, err := b.list()
		if err != nil {
			return err
		}
		var errs []error
		for name, e := range es {
			switch want, ok := b.held[name]; {
			case !ok || e.Address != want.String():
				errs = append(errs, faults.Violation("%s is %s with %s, by right it has %v", name, e.State, e.Address, want))
			case e.State != "attached":
				errs = append(errs, fmt.Errorf("%s is %s", name, e.State))
			}
		}
		for name := range b.held {
			if _, ok := es[name]; !ok {
				errs = append(errs, faults.Violation("%s is not listed", name))
			}
		}
		return errors.Join(append(errs, b.addresses(es), b.links(es), b.leases(cooled), b.files(), b.host0())...)
	})
}

// addresses: every live namespace has the address of its endpoint, and no two the same.
func (b *crashBed) addresses(es map[string]endpoint) error {
	out, err := b.containerd.Ctr("-n", "default", "tasks", "ls")
	if err != nil {
		return err
	}
	paths := maps.Clone(b.netns)
	for line := range strings.Lines(out) {
		var id, status string
		var pid int
		if _, err := fmt.Sscan(line, &id, &pid, &status); err == nil && status == "RUNNING" {
			paths[key(id)] = fmt.Sprintf("/proc/%d/ns/net", pid)
		}
	}
	seen := map[netip.Addr]string{}
	var errs []error
	for name, path := range paths {
		addrs, err := addressesIn(path)
		if err != nil {
			errs = append(errs, err)
		}
		for _, a := range addrs {
			if other, twice := seen[a]; twice {
				errs = append(errs, faults.Violation("%s and %s both have %s", other, name, a))
			}
			seen[a] = name
			if es[name].Address != a.String() {
				errs = append(errs, faults.Violation("%s has %s in its namespace, listed is %q", name, a, es[name].Address))
			}
		}
		if _, listed := es[name]; listed && len(addrs) != 1 {
			errs = append(errs, faults.Violation("%s has %v in its namespace", name, addrs))
		}
	}
	return errors.Join(errs...)
}

// addressesIn returns the addresses of a namespace but that of lo.
func addressesIn(path string) (out []netip.Addr, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	c, err := nlx.Dial(int(f.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	addrs, err := c.Addrs(0)
	for _, a := range addrs {
		if a := a.Prefix.Addr(); a.Is4() && !a.IsLoopback() {
			out = append(out, a)
		}
	}
	return out, err
}

// links: the host has a veth for each endpoint, on the bridge or with a route of its own,
// and no other of ours.
func (b *crashBed) links(es map[string]endpoint) error {
	c, err := nlx.Dial(b.host.FD, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer c.Close()
	links, err := c.Links()
	if err != nil {
		return err
	}
	var errs []error
	var bridge int
	ours := map[string]nlx.Link{}
	for _, l := range links {
		switch {
		case l.Group != 147:
		case l.Name == "stellar0":
			bridge = l.Index
		default:
			ours[l.Name] = l
		}
	}
	for name, e := range es {
		if l, ok := ours[e.HostIfname]; !ok || !l.Up || l.Alias == "" || l.Master != bridge {
			errs = append(errs, fmt.Errorf("the interface of %s is %+v", name, l))
		}
		if route := b.host.Run(b.t, "ip", "route", "show", e.Address); b.mode == config.ModeRouted && !strings.Contains(route, "dev "+e.HostIfname+" ") {
			errs = append(errs, fmt.Errorf("the route to %s is %q", name, route))
		}
		delete(ours, e.HostIfname)
	}
	for name, l := range ours {
		errs = append(errs, fmt.Errorf("%s is nobody's: %q", name, l.Alias))
	}
	return errors.Join(errs...)
}

// leases: `ipam check` finds nothing, and as many addresses are used as are held.
func (b *crashBed) leases(cooled bool) error {
	ctx, cancel := b.ctx()
	defer cancel()
	report, err := b.api.CheckIpam(ctx, true)
	if err != nil {
		return err
	}
	for _, p := range report.Problems {
		err = errors.Join(err, faults.Violation("ipam check: %s %s: %s", p.Kind, p.Address, p.Message))
	}
	subnets, lsErr := b.api.Subnets(ctx)
	for _, s := range subnets {
		switch {
		case s.Node != b.name || s.State != api.SubnetHeld:
		case s.Used != len(b.held):
			err = errors.Join(err, faults.Violation("subnet %+v, held by right is %v", s, b.held))
		case cooled && s.Cooling != 0:
			err = errors.Join(err, fmt.Errorf("subnet %+v has not cooled off", s))
		}
	}
	return errors.Join(err, lsErr)
}

// files: the requests on disk can be read and are those of the attachments, and no
// half of a file is left of a write.
func (b *crashBed) files() error {
	var errs []error
	dir := filepath.Join(b.dir, "data")
	requests, err := filepath.Glob(filepath.Join(dir, "requests", "*.json"))
	if err != nil {
		return err
	}
	for _, path := range requests {
		data, err := os.ReadFile(path)
		if err != nil || !json.Valid(data) {
			errs = append(errs, fmt.Errorf("request %s: %q %w", path, data, err))
		}
	}
	if len(requests) != b.requests {
		errs = append(errs, fmt.Errorf("%d requests on disk, want %d", len(requests), b.requests))
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it was being written
		}
		if err == nil && (strings.HasPrefix(d.Name(), ".") || strings.HasSuffix(d.Name(), ".new") || strings.HasSuffix(d.Name(), ".tmp")) {
			errs = append(errs, fmt.Errorf("left over: %s", path))
		}
		return err
	})
	return errors.Join(append(errs, err)...)
}

// host0: routes and filter of the host are what they were when all was new.
func (b *crashBed) host0() error {
	rules, err := b.host.Output("nft", "list", "table", "inet", "stellar")
	if err != nil {
		return err
	}
	if b.rules == "" {
		b.rules = rules
	}
	if rules != b.rules {
		err = fmt.Errorf("nftables:\n%swere\n%s", rules, b.rules)
	}
	routes, routeErr := b.host.Output("ip", "route", "show", "proto", "147")
	if routeErr == nil && strings.Count(routes, "unreachable 172.16.0.0/12") != 1 {
		routeErr = fmt.Errorf("routes:\n%s", routes)
	}
	return errors.Join(err, routeErr)
}

// podAttachment is a CNI client's attachment of a namespace that containerd does
// not know.
func podAttachment(id string, pod *testx.NetNS) api.Attachment {
	return api.Attachment{Network: "stellar", ContainerID: id, Ifname: "eth0", NetNS: pod.Path}
}

// add is CNI's ADD; a success is an acknowledgement.
func (b *crashBed) add(id string, pod *testx.NetNS) error {
	ctx, cancel := b.ctx()
	defer cancel()
	added, err := b.api.AddAttachment(ctx, api.AttachmentSpec{Attachment: podAttachment(id, pod)})
	if err == nil {
		b.held["stellar/"+id], b.netns["stellar/"+id] = added.Address.Addr(), pod.Path
		b.requests++
	}
	return err
}

// del is CNI's DEL.
func (b *crashBed) del(id string, pod *testx.NetNS) error {
	ctx, cancel := b.ctx()
	defer cancel()
	_, err := b.api.DelAttachment(ctx, podAttachment(id, pod))
	if err == nil {
		if _, had := b.held["stellar/"+id]; had {
			b.requests--
		}
		delete(b.held, "stellar/"+id)
		delete(b.netns, "stellar/"+id)
	}
	return err
}

// pings fails the test unless a namespace gets an answer from an address.
func (b *crashBed) pings(from *testx.NetNS, to netip.Addr) {
	b.t.Helper()
	if out, err := from.Output("ping", "-c", "2", "-i", "0.1", "-w", "3", to.String()); err != nil {
		b.t.Errorf("%v\n%s", err, out)
	}
}
