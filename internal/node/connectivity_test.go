package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"stellar.io/stellar/api"
)

// fakeNode is a node that lends, probes and takes back as its fields say.
type fakeNode struct {
	loan    api.ConnectivityLoan
	lends   time.Duration // it takes
	refuses error
	fails   func(api.ConnectivityProbe) string
	dies    bool          // it answers one probe and no more
	returns time.Duration // taking back takes

	mu       sync.Mutex
	lent     bool
	limit    time.Duration
	givenIn  []string
	takeBack chan struct{}
}

func (f *fakeNode) tester() tester {
	f.takeBack = make(chan struct{})
	return tester{name: f.loan.Node.Node, address: f.loan.Node.Address, lend: f.lend, probe: f.probe, giveBack: f.giveBack}
}

func (f *fakeNode) lend(ctx context.Context, t api.ConnectivityTest, send func(api.ConnectivityLoan)) error {
	select {
	case <-time.After(f.lends):
	case <-ctx.Done():
		return ctx.Err()
	}
	if f.refuses != nil {
		return f.refuses
	}
	f.mu.Lock()
	f.lent, f.limit = true, t.Limit
	f.mu.Unlock()
	send(f.loan)
	select {
	case <-ctx.Done():
	case <-f.takeBack:
	}
	time.Sleep(f.returns)
	f.mu.Lock()
	f.lent = false
	f.mu.Unlock()
	return ctx.Err()
}

func (f *fakeNode) probe(ctx context.Context, probes []api.ConnectivityProbe, done func(api.ConnectivityProbed)) error {
	for i, p := range probes {
		if f.dies && i > 0 {
			return errors.New("connection lost")
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
		r := api.ConnectivityProbed{ID: p.ID, Sent: 3, Received: 3, MTU: p.MTU}
		if f.fails != nil {
			r.Problem = f.fails(p)
		}
		done(r)
	}
	return nil
}

func (f *fakeNode) giveBack(ctx context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.givenIn = append(f.givenIn, id)
	close(f.takeBack)
	return nil
}

// campaignOf runs a test of all pairs of the nodes.
func campaignOf(ctx context.Context, limit time.Duration, send func(api.ConnectivityMessage) error, nodes ...*fakeNode) error {
	c := campaign{test: api.ConnectivityTest{Limit: limit}, send: send, pairs: pairs(len(nodes), 0, nil)}
	for _, f := range nodes {
		c.testers = append(c.testers, f.tester())
	}
	return c.run(ctx)
}

func failures(r *api.ConnectivityReport) (out []string) {
	for _, t := range r.Results {
		if t.State == api.TestFail {
			out = append(out, t.From+"→"+t.To+" "+t.Test)
		}
	}
	return out
}

func TestCampaign(t *testing.T) {
	t.Parallel()
	drop := func(target string) func(api.ConnectivityProbe) string {
		return func(p api.ConnectivityProbe) string {
			if p.Target.String() == target {
				return "no answer"
			}
			return ""
		}
	}
	for _, tt := range []struct {
		name   string
		nodes  func() []*fakeNode
		failed []string
		ok     int
		absent string // a node and why
	}{
		{"healthy", func() []*fakeNode { return []*fakeNode{{loan: lent("a", 1, 2)}, {loan: lent("b", 2, 2)}} }, nil, 2*6 + 2*4, ""},
		{"alone", func() []*fakeNode { return []*fakeNode{{loan: lent("a", 1, 2)}} }, nil, 6, ""},
		{"one container is not reached from one node", func() []*fakeNode {
			return []*fakeNode{{loan: lent("a", 1, 2), fails: drop("172.16.2.2")}, {loan: lent("b", 2, 2)}}
		}, []string{"a→b containers", "a→b host-to-container", "a→b path-mtu"}, 17, ""},
		{"one does not lend", func() []*fakeNode {
			return []*fakeNode{{loan: lent("a", 1, 2)}, {loan: lent("b", 2, 2), refuses: errors.New("fenced")}}
		}, nil, 6 + 1, "b: fenced"}, // its host is reached all the same
		{"one is slow for ever", func() []*fakeNode {
			return []*fakeNode{{loan: lent("a", 1, 2)}, {loan: lent("b", 2, 2), lends: time.Hour}}
		}, nil, 6 + 1, "b: it lends nothing within 30s"},
		{"one dies", func() []*fakeNode { return []*fakeNode{{loan: lent("a", 1, 2), dies: true}, {loan: lent("b", 2, 2)}} },
			[]string{"a→a containers", "a→a host-to-container", "a→a container-to-host", "a→a path-mtu", "a→a way-out", "a→b containers", "a→b host-to-container", "a→b container-to-host", "a→b path-mtu"}, 11, ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			nodes := tt.nodes()
			var report *api.ConnectivityReport
			err := campaignOf(t.Context(), 5*time.Minute, func(m api.ConnectivityMessage) error {
				report = m.Report
				return nil
			}, nodes...)
			if err != nil || report == nil {
				t.Fatalf("%s: %v, report %v", tt.name, err, report)
			}
			if got := failures(report); !slices.Equal(got, tt.failed) {
				t.Errorf("%s: failed %q, want %q", tt.name, got, tt.failed)
			}
			if got := report.Count(api.TestOK); got != tt.ok {
				t.Errorf("%s: %d OK, want %d: %+v", tt.name, got, tt.ok, report.Results)
			}
			for i, n := range nodes {
				absent := report.Nodes[i].Node + ": " + report.Nodes[i].Error
				if n.lent || (report.Nodes[i].Error != "") != (absent == tt.absent) {
					t.Errorf("%s: node %d still lends: %t; %q", tt.name, i, n.lent, absent)
				}
				if n.limit != 0 && n.limit != 5*time.Minute+lendGrace {
					t.Errorf("%s: lent for %s", tt.name, n.limit)
				}
			}
		})
	}
}

// However a test ends, nothing stays lent.
func TestCampaignGivesBack(t *testing.T) {
	t.Parallel()
	gone := errors.New("the caller is gone")
	for _, at := range []string{phasePreparing, phaseTesting, phaseCleaningUp} {
		for _, how := range []string{"interrupted", "not read", "too slow"} {
			synctest.Test(t, func(t *testing.T) {
				nodes := []*fakeNode{{loan: lent("a", 1, 2), returns: time.Second}, {loan: lent("b", 2, 2), lends: 2 * time.Second}}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				limit := time.Hour
				if how == "too slow" {
					limit = time.Second
					nodes[1].fails = func(api.ConnectivityProbe) string { time.Sleep(time.Minute); return "" }
				}
				err := campaignOf(ctx, limit, func(m api.ConnectivityMessage) error {
					if m.Progress == nil || m.Progress.Phase != at {
						return nil
					}
					switch how {
					case "interrupted":
						cancel()
					case "not read":
						return gone
					}
					return nil
				}, nodes...)
				switch {
				case how == "interrupted" && at != phaseCleaningUp && !errors.Is(err, context.Canceled),
					how == "not read" && !errors.Is(err, gone), how == "too slow" && api.CodeOf(err) != api.CodeTimeout:
					t.Errorf("%s at %s: %v", how, at, err)
				}
				for _, n := range nodes {
					if n.lent {
						t.Errorf("%s at %s: %s is lent still", how, at, n.loan.Node.Node)
					}
				}
			})
		}
	}
}

// The progress of a long test comes every half second, and counts.
func TestCampaignProgress(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		slow := func(api.ConnectivityProbe) string { time.Sleep(time.Second); return "no answer" }
		var lines []string
		begun := time.Now()
		err := campaignOf(t.Context(), time.Hour, func(m api.ConnectivityMessage) error {
			if p := m.Progress; p != nil {
				lines = append(lines, fmt.Sprintf("%s %s %d/%d %d", time.Since(begun).Round(time.Second), p.Phase, p.Done, p.Total, p.Failed))
			}
			return nil
		}, &fakeNode{loan: lent("a", 1, 2), fails: slow, lends: time.Second})
		all := strings.Join(lines, "\n")
		for _, want := range []string{"0s preparing 0/1 0", "1s preparing 0/1 0", "1s testing 0/7 0", "3s testing 1/7 1", "8s cleaning up 0/1 5"} {
			if !strings.Contains(all, want) {
				t.Errorf("no %q in\n%s", want, all)
			}
		}
		if err != nil || len(lines) > 20 {
			t.Errorf("%v, %d lines:\n%s", err, len(lines), all)
		}
	})
}

func TestInvolved(t *testing.T) {
	t.Parallel()
	testers := []tester{{name: "a"}, {name: "b"}, {name: "c"}, {name: "d"}}
	got, p := involved(testers, [][2]int{{1, 3}})
	if len(got) != 2 || got[0].name != "b" || got[1].name != "d" || !slices.Equal(p, [][2]int{{0, 1}}) {
		t.Errorf("%d testers, pairs %v", len(got), p)
	}
	if got, p := involved(testers[:1], nil); len(got) != 1 || len(p) != 0 {
		t.Errorf("%d testers, pairs %v", len(got), p)
	}
}

func TestLoans(t *testing.T) {
	t.Parallel()
	l := newLoans()
	var ends []func()
	var last string
	for range maxLoans {
		id, end, err := l.begin(func() {})
		if err != nil {
			t.Fatal(err)
		}
		ends, last = append(ends, end), id
	}
	if _, _, err := l.begin(func() {}); api.CodeOf(err) != api.CodeConflict || hintOf(err) == "" {
		t.Errorf("one too many: %v", err)
	}
	if !l.lives(last+"-1") || l.lives("other-1") || l.lives(last[:4]+"-1") {
		t.Error("what lives is not told from what does not")
	}
	for _, end := range ends {
		end()
	}
	if l.lives(last + "-1") {
		t.Error("a loan outlives its end")
	}
	n := &Node{loans: l}
	if err := n.GiveBackEndpoints(t.Context(), last); err != nil {
		t.Errorf("given back twice: %v", err)
	}
	id, end, err := l.begin(func() {})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := n.GiveBackEndpoints(ctx, id); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("given back before it was: %v", err)
	}
	end()
}
