package integration

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"stellar.io/stellar/internal/testx"
	"stellar.io/stellar/internal/testx/faults"
)

// answers reads what ping(8) prints while it prints it.
type answers struct {
	mu      sync.Mutex
	rest    []byte // a line that has not ended
	count   int    // each number once
	highest int    // number that was answered; they count on where icmp_seq starts again
	doubled bool   // an answer came twice
	sent    int    // as ping says at its end, 0 before
}

var (
	answerLine = regexp.MustCompile(`^\d+ bytes from .* icmp_seq=(\d+) `)
	endLine    = regexp.MustCompile(`^(\d+) packets transmitted, `)
)

func (a *answers) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.rest = append(a.rest, p...)
	for {
		line, rest, whole := bytes.Cut(a.rest, []byte("\n"))
		if !whole {
			return len(p), nil
		}
		a.rest = rest
		if m := answerLine.FindSubmatch(line); m != nil {
			if bytes.Contains(line, []byte("(DUP!)")) {
				a.doubled = true
				continue
			}
			seq, _ := strconv.Atoi(string(m[1]))
			a.count++
			// icmp_seq has 16 bits: the number nearest to the highest so far is meant.
			a.highest = max(a.highest, a.highest+int(int16(uint16(seq-a.highest))))
		} else if m := endLine.FindSubmatch(line); m != nil {
			a.sent, _ = strconv.Atoi(string(m[1]))
		}
	}
}

func (a *answers) answered() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.count
}

// missing is how many were sent up to the highest number that was answered, and not
// answered. With tail those after it are missing too.
func (a *answers) missing(tail bool) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	if tail {
		return a.sent - a.count
	}
	return a.highest - a.count
}

// pinging sends a ping each 10 ms, which ping rounds up to ticks of the kernel (17 to 20
// ms with 100 a second; asked for less it does not sleep, and takes a processor of the
// two), from a container's namespace to addr, not through containerd. The returned
// function ends it and returns how many were sent and how many of them were lost.
func (n *node) pinging(id, addr string) (lost func() (sent, missing int)) {
	n.t.Helper()
	pid, err := n.containerd.TaskPID("default", id)
	if err != nil {
		n.t.Fatal(err)
	}
	return pinging(n.t, n.host, "nsenter", "-t", strconv.Itoa(pid), "-n", "ping", "-i", "0.01", addr)
}

// pinging runs ping. Nothing that was sent before lost is called is forgiven: lost first
// waits for some answers more, and for enough of them to say something, so that only what
// is sent after those is left out, which may be on its way. If no more answers come, all
// that is missing counts.
func pinging(t testing.TB, host *testx.NetNS, name string, args ...string) (lost func() (sent, missing int)) {
	t.Helper()
	const more, enough, patience = 5, 60, 5 * time.Second
	var out answers
	cmd, start := host.Command(name, args...)
	cmd.Stdout = &out
	if err := start(); err != nil {
		t.Fatal(err)
	}
	stop := sync.OnceFunc(func() {
		_ = cmd.Process.Signal(syscall.SIGINT)
		_ = cmd.Wait()
	})
	t.Cleanup(stop)
	return func() (int, int) {
		t.Helper()
		count, progress, silent := out.answered(), time.Now(), false
		for want := max(enough, count+more); count < want && !silent; {
			time.Sleep(5 * time.Millisecond)
			if now := out.answered(); now > count {
				count, progress = now, time.Now()
			}
			silent = time.Since(progress) > patience
		}
		stop()
		if out.sent == 0 {
			t.Fatalf("ping ended without a summary: %s", out.rest)
		}
		if out.doubled {
			faults.Safety(t, "duplicate answers")
		}
		return out.sent, out.missing(silent)
	}
}

func wantNoLoss(t *testing.T, what string, lost func() (int, int)) {
	t.Helper()
	sent, missing := lost()
	if missing > 0 {
		faults.Safety(t, "%s: %d of %d pings lost", what, missing, sent)
	}
	if sent < 50 {
		t.Errorf("%s: %d pings prove nothing", what, sent)
	}
	t.Logf("%s: %d of %d pings lost", what, missing, sent)
}

// TestAnswersCounted: one hole is one lost packet, wherever it is.
func TestAnswersCounted(t *testing.T) {
	text := func(from, to int, without ...int) string {
		var out strings.Builder
		holes := map[int]bool{}
		for _, w := range without {
			holes[w] = true
		}
		for i := from; i <= to; i++ {
			if !holes[i] {
				fmt.Fprintf(&out, "64 bytes from 172.16.0.3: icmp_seq=%d ttl=64 time=0.051 ms\n", i%(1<<16))
			}
		}
		return out.String()
	}
	end := func(sent int) string {
		return fmt.Sprintf("\n--- 172.16.0.3 ping statistics ---\n%d packets transmitted, 1 received, 0%% packet loss, time 11ms\n", sent)
	}
	for _, tt := range []struct {
		name, out     string
		missing, tail int
		doubled       bool
	}{
		{"all", text(1, 100) + end(100), 0, 0, false},
		{"the last is on its way", text(1, 99) + end(100), 0, 1, false},
		{"one in the middle", text(1, 100, 50) + end(100), 1, 1, false},
		{"the first", text(2, 100) + end(100), 1, 1, false},
		{"the last but one", text(1, 100, 99) + end(100), 1, 1, false},
		{"several, and the last on its way", text(1, 99, 7, 8, 50) + end(100), 3, 4, false},
		{"out of order", text(1, 5) + text(7, 7) + text(6, 6) + text(8, 9) + end(9), 0, 0, false},
		{"none", end(100), 0, 100, false},
		{"an error is no answer", text(1, 9) + "From 172.16.0.1 icmp_seq=10 Destination Host Unreachable\n" + text(11, 20) + end(20), 1, 1, false},
		{"twice", text(1, 9) + "64 bytes from 172.16.0.3: icmp_seq=9 ttl=64 time=0.051 ms (DUP!)\n" + text(11, 20) + end(20), 1, 1, true},
		{"more than 16 bits", text(1, 140000) + end(140000), 0, 0, false},
		{"more than 16 bits, one lost at the turn", text(1, 70000, 1<<16) + end(70001), 1, 2, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var a answers
			for part := range bytes.Lines([]byte(tt.out)) { // as it may come
				half := len(part) / 2
				_, _ = a.Write(part[:half])
				_, _ = a.Write(part[half:])
			}
			if m, tail := a.missing(false), a.missing(true); m != tt.missing || tail != tt.tail || a.doubled != tt.doubled {
				t.Errorf("missing %d, with the end %d, twice %v; want %d, %d, %v", m, tail, a.doubled, tt.missing, tt.tail, tt.doubled)
			}
		})
	}
}

// TestPingingSeesOneLost: the kernel drops one packet, the last ones, none.
func TestPingingSeesOneLost(t *testing.T) {
	lan := testx.NewLAN(t, 1)
	host := lan.Hosts[0]
	host.Run(t, "ping", "-c", "1", "-w", "3", "192.0.2.254")
	lan.Outside.Run(t, "nft", "add table ip one; add chain ip one in { type filter hook input priority 0; }")
	for _, tt := range []struct {
		name, rule string
		lost       func(sent, missing int) bool
	}{
		{"none", "", func(_, missing int) bool { return missing == 0 }},
		{"one", "icmp sequence 30 drop", func(_, missing int) bool { return missing == 1 }},
		{"the first", "icmp sequence 1 drop", func(_, missing int) bool { return missing == 1 }},
		{"all from one on", "icmp sequence >= 30 drop", func(sent, missing int) bool { return missing == sent-29 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lan.Outside.Run(t, "nft", "flush chain ip one in")
			if tt.rule != "" {
				lan.Outside.Run(t, "nft", "add rule ip one in icmp type echo-request "+tt.rule)
			}
			if sent, missing := pinging(t, host, "ping", "-i", "0.01", "192.0.2.254")(); sent < 50 || !tt.lost(sent, missing) {
				t.Errorf("%d of %d lost", missing, sent)
			}
		})
	}
}
