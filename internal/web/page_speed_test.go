package web_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"stellar.io/stellar/internal/testx/chrome"
	"stellar.io/stellar/internal/web"
)

// The promise for a cluster of 1,024 nodes with 10,000 endpoints.
const (
	nodes, endpoints = 1024, 10000
	rowsWithin       = time.Second
	shareOfCore      = 0.05
	measured         = 20 * time.Second // of the view that costs most; the others: a quarter
	eventsEvery      = 50 * time.Millisecond
)

// serveEnv, when it is set, makes the test's program the server that is measured: the
// agent's part without the browser's.
const serveEnv = "STELLAR_TEST_WEB"

func serveCluster() error {
	f := cluster(nodes, endpoints)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go func() {
		for i := 0; ctx.Err() == nil; i++ {
			time.Sleep(eventsEvery)
			f.happen("attach", fmt.Sprintf("default/web-%d", i), "172.16.0.9 on eth0, held, 5.8ms")
			f.set(func() { // the answers change, too
				f.endpoints[i%endpoints].Since = time.Now()
				f.subnets[i%nodes].Used ^= 1
			})
		}
	}()
	fmt.Println(l.Addr())
	return web.New(f, token, nil).Run(ctx, l)
}

// startServer starts it and returns its address and pid.
func startServer(t *testing.T) (base string, pid int) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), serveEnv+"=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait() // it was told to go
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return "http://" + strings.TrimSpace(line), cmd.Process.Pid
}

// cpu returns the processor time that a process has used.
func cpu(t *testing.T, pid int) time.Duration {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	var ticks int
	for _, f := range fields[11:13] { // utime and stime, fields 14 and 15 of proc(5)
		n, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / 100
}

// whenShown notes in the page when 50 rows are there and were painted.
const whenShown = `new MutationObserver((_, o) => {
  if (document.querySelectorAll("tbody tr").length < 50) return;
  o.disconnect();
  requestAnimationFrame(() => setTimeout(() => { window.shown = performance.now(); }));
}).observe(document, { childList: true, subtree: true })`

// TestPageSpeed measures what the page promises for a large cluster.
func TestPageSpeed(t *testing.T) {
	base, pid := startServer(t)
	b := chrome.Start(t, nil)
	cold, _ := openTimed(t, b, base, "map")
	t.Logf("map: 50 rows visible after %s in a browser that was just started", cold.Round(time.Millisecond))
	for _, view := range []string{"map", "endpoints", "routes"} {
		var took []time.Duration
		for range 3 {
			shown, p := openTimed(t, b, base, view)
			took = append(took, shown.Round(time.Millisecond))
			if view == "endpoints" {
				measureSearch(t, p)
			}
			p.Open("about:blank")
		}
		slices.Sort(took)
		t.Logf("%s: 50 rows visible after %s", view, took)
		if took[1] > rowsWithin {
			t.Errorf("%s: 50 rows visible after %s, want %s", view, took[1], rowsWithin)
		}
	}
	for _, view := range viewNames {
		p := b.Page(t)
		p.Open(base + "/#token=" + token)
		p.Until(patience, "live", live)
		show(p, view)
		time.Sleep(2 * time.Second) // what opening it has cost is over
		used, start := cpu(t, pid), time.Now()
		if view == "endpoints" {
			time.Sleep(measured * 3 / 4)
		}
		time.Sleep(measured / 4)
		share := float64(cpu(t, pid)-used) / float64(time.Since(start))
		t.Logf("%s open, %d events a second: the agent's part uses %.1f%% of a core", view, time.Second/eventsEvery, 100*share)
		if share > shareOfCore && !raceEnabled {
			t.Errorf("%s: %.1f%% of a core, want %.0f%%", view, 100*share, 100*shareOfCore)
		}
		p.Open("about:blank")
	}
}

// openTimed opens a view in a tab without cache or storage, and returns how long after
// the navigation's start 50 rows were painted.
func openTimed(t *testing.T, b *chrome.Browser, base, view string) (time.Duration, *chrome.Page) {
	t.Helper()
	p := b.Page(t)
	p.Call("Page.addScriptToEvaluateOnNewDocument", map[string]any{"source": whenShown}, nil)
	p.Open(base + "/#token=" + token)
	if view != "map" { // the address takes the place of the token's
		p.Until(patience, "live", live)
		p.Eval(`window.shown = 0; location.hash = "#/`+view+`"; location.reload()`, nil)
	}
	p.Until(patience, "50 rows are visible", `location.hash === "#/`+view+`" && window.shown`)
	var ms float64
	p.Eval(`window.shown`, &ms)
	return time.Duration(ms * float64(time.Millisecond)), p
}

func measureSearch(t *testing.T, p *chrome.Page) {
	p.Eval(`document.querySelector(".listing input").focus()`, nil)
	start := time.Now()
	p.Type("cache-004")
	p.Until(patience, "a search is answered", `/^\d+ of 10,000/.test(document.querySelector(".listing .count").innerText)`)
	t.Logf("a search in %d endpoints is answered after %s", endpoints, time.Since(start).Round(time.Millisecond))
}
