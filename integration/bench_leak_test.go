package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"stellar.io/stellar/internal/testx"
	"stellar.io/stellar/internal/testx/bench"
)

const (
	leakCycles = 1000
	leakSlack  = 5                // goroutines and descriptors that come and go
	leakWait   = 60 * time.Second // for cooling, for what the kernel does later, for idle connections
)

// belongings are what an agent has: numbers of its own, and what is in the
// kernel and in the replicated state.
type belongings struct {
	Goroutines, Descriptors int
	Links, Rules, Routes    []string
	Leases                  map[string]leaseCount
	resident                float64
}

// leaseCount is how a subnet is used.
type leaseCount struct{ Used, Cooling, Free, Reserved int }

// benchLeak runs many containers that end at once and compares.
func benchLeak(b *testing.B, t *table, n *node, before belongings) {
	cycles := scaled(leakCycles)
	const attached = `stellar_attach_total{result="attached",source="label"}`
	had := n.metric(b, attached)
	each(b, "ctr run --rm /bin/true", cycles, func(i int) error {
		_, err := n.containerd.Output(testx.Run{ID: fmt.Sprintf("cycle%d", i), Labels: networked(), Args: []string{"/bin/true"}})
		return err
	})
	tell("waiting until everything has cooled …")
	var after belongings
	for deadline := time.Now().Add(leakWait); ; time.Sleep(time.Second) {
		after = n.belongings(b)
		if before.beside(after) == "" || time.Now().After(deadline) {
			break
		}
	}
	if diff := before.beside(after); diff != "" {
		b.Logf("left after %d cycles (- before, + after):\n%s", cycles, diff)
	}
	same := func(what string, d int, limit bar) {
		t.value("  "+what+" more or fewer than before", "", cycles, float64(max(d, -d)), limit)
	}
	few, none := bar{p50: leakSlack}, bar{none: true}
	t.value(fmt.Sprintf("created and deleted: VmRSS then, %s before", bench.Figure(before.resident, "MB")), "MB", cycles, after.resident, bar{})
	t.value("  of them attached before they ended", "%", cycles, 100*float64(n.metric(b, attached)-had)/float64(cycles), bar{})
	same("goroutines", after.Goroutines-before.Goroutines, few)
	same("descriptors", after.Descriptors-before.Descriptors, few)
	same("links", changed(before.Links, after.Links), none)
	same("lines of nft rules", changed(before.Rules, after.Rules), none)
	same("routes", changed(before.Routes, after.Routes), none)
	same("leases", leaseChange(before.Leases, after.Leases), none)
}

// beside tells how two belongings differ, "" when as good as not.
func (was belongings) beside(is belongings) string {
	if d := is.Goroutines - was.Goroutines; d >= -leakSlack && d <= leakSlack {
		is.Goroutines = was.Goroutines
	}
	if d := is.Descriptors - was.Descriptors; d >= -leakSlack && d <= leakSlack {
		is.Descriptors = was.Descriptors
	}
	is.resident = was.resident
	return cmp.Diff(was, is, cmp.AllowUnexported(belongings{}))
}

// changed counts the lines that only one of the two has.
func changed(a, b []string) (n int) {
	count := map[string]int{}
	for _, s := range a {
		count[s]++
	}
	for _, s := range b {
		count[s]--
	}
	for _, c := range count {
		n += max(c, -c)
	}
	return n
}

func leaseChange(a, b map[string]leaseCount) (n int) {
	for subnet, was := range a {
		n += max(was.Free-b[subnet].Free, b[subnet].Free-was.Free)
	}
	return n + max(len(a)-len(b), len(b)-len(a))
}

// rested is what the agent has once nothing cools any more.
func (n *node) rested(b *testing.B) (have belongings) {
	b.Helper()
	n.eventually(leakWait, "all addresses have cooled", func() error {
		have = n.belongings(b)
		for subnet, l := range have.Leases {
			if l.Cooling+l.Used > 0 {
				return fmt.Errorf("%s: %+v", subnet, l)
			}
		}
		return nil
	})
	return have
}

func (n *node) belongings(b *testing.B) belongings {
	b.Helper()
	pid := n.agent.Process.Pid
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		b.Fatal(err)
	}
	have := belongings{
		Goroutines: n.metric(b, "go_goroutines"), Descriptors: len(fds), Leases: map[string]leaseCount{},
		Links:    n.lines(b, "ip", "-o", "link"),
		Rules:    n.lines(b, "nft", "list", "ruleset"),
		Routes:   n.lines(b, "ip", "route", "show", "table", "all"),
		resident: residentMB(b, pid),
	}
	var list struct {
		Items []struct {
			Subnet string
			leaseCount
		}
	}
	if err := json.Unmarshal([]byte(n.cli("ipam", "ls", "-o", "json")), &list); err != nil || len(list.Items) == 0 {
		b.Fatalf("ipam ls -o json: %d subnets, %v", len(list.Items), err)
	}
	for _, s := range list.Items {
		have.Leases[s.Subnet] = s.leaseCount
	}
	return have
}

// lines runs a program on the host and sorts what it prints.
func (n *node) lines(b *testing.B, name string, args ...string) []string {
	b.Helper()
	return slices.Sorted(strings.Lines(n.host.Run(b, name, args...)))
}

// metric reads one value of the agent's, from inside its host.
func (n *node) metric(b testing.TB, name string) int {
	b.Helper()
	dial := func(ctx context.Context, network, address string) (conn net.Conn, err error) {
		err = n.host.Do(func() error {
			conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
			return err
		})
		return conn, err
	}
	client := http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}, Timeout: 10 * time.Second}
	resp, err := client.Get("http://127.0.0.1:9642/metrics")
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(body)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == name {
			v, err := strconv.ParseFloat(f[1], 64)
			if err != nil {
				b.Fatal(err)
			}
			return int(v)
		}
	}
	b.Fatalf("no metric %s", name)
	return 0
}
