package routes

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"stellar.io/stellar/internal/testx"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestGolden runs testdata/<case>/in.txt on a real kernel: lines for ip(8), and
// lines `peer NODE SUBNET ADDRESS [quarantined]`; `incomplete`. What ip(8) then
// shows and what the manager says is in want.golden.
func TestGolden(t *testing.T) {
	t.Parallel()
	cases, err := filepath.Glob("testdata/*/in.txt")
	if err != nil || len(cases) == 0 {
		t.Fatal(cases, err)
	}
	for _, in := range cases {
		t.Run(filepath.Base(filepath.Dir(in)), func(t *testing.T) {
			t.Parallel()
			host := testx.NewLAN(t, 1).Hosts[0]
			m := start(t, host, fixed(prepare(t, host, in)))
			if _, err := m.Sync(t.Context(), false); err != nil {
				t.Error(err)
			}
			if changes, err := m.Sync(t.Context(), true); err != nil || len(changes) > 0 {
				t.Errorf("once more: %v, %v", changes, err)
			}
			got := host.Run(t, "ip", "route") + "\n" + show(m.Manager)
			golden := filepath.Join(filepath.Dir(in), "want.golden")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func fixed(w Wants) func() Wants { return func() Wants { return w } }

// prepare reads the case in and does what it says to host.
func prepare(t *testing.T, host *testx.NetNS, in string) Wants {
	t.Helper()
	w := abc()
	w.Peers = nil
	text, err := os.ReadFile(in)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		switch {
		case len(f) == 0 || strings.HasPrefix(f[0], "#"):
		case f[0] == "ip" || f[0] == "sysctl":
			host.Run(t, f[0], f[1:]...)
		case f[0] == "peer":
			w.Peers = append(w.Peers, Peer{
				Node: f[1], Subnet: netip.MustParsePrefix(f[2]), Address: netip.MustParseAddr(f[3]), Quarantined: len(f) > 4,
			})
		case f[0] == "incomplete":
			w.Complete = false
		default:
			t.Fatalf("%s: what is %q?", in, line)
		}
	}
	return w
}

func show(m *Manager) string {
	var b strings.Builder
	for _, s := range m.Status() {
		fmt.Fprintln(&b, strings.Join(strings.Fields(fmt.Sprintf("%s %s %s %s %s", s.Destination, s.Device, s.Node, s.State, s.Reason)), " "))
	}
	for _, c := range m.Conditions() {
		fmt.Fprintf(&b, "%s %s: %s\n", c.Name, c.Subject, c.Reason)
	}
	return b.String()
}

func TestSyncNeedsRun(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := New(Config{Wants: abc}).Sync(ctx, true); err == nil {
		t.Error("no error")
	}
}
