package server

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"stellar.io/stellar/api"
)

func TestPing(t *testing.T) {
	b, c, stop := fixture(t)
	if _, err := c.InitCluster(t.Context(), api.ClusterSpec{}); err != nil {
		t.Fatal(err)
	}
	if err := b.PutEndpoint(web()); err != nil {
		t.Fatal(err)
	}
	r := api.PingRequest{From: "web", Target: "192.0.2.9", Count: 2, Interval: api.MinPingInterval, Wait: time.Second, Size: 56}
	var got []api.PingMessage
	err := c.Ping(t.Context(), r, func(m api.PingMessage) error { got = append(got, m); return nil })
	if err != nil || len(got) != 3 || got[0].Start == nil || *got[0].Start != (api.PingStart{Node: "alpha", From: "default/web", Target: "192.0.2.9", Address: netip.MustParseAddr("192.0.2.9")}) {
		t.Fatalf("got %+v, %v", got, err)
	}
	for i, m := range got[1:] {
		if m.Reply == nil || m.Reply.Seq != i+1 || m.Reply.Bytes != 64 || m.Reply.RTT == 0 {
			t.Errorf("reply %+v", m.Reply)
		}
	}
	for name, bad := range map[string]api.PingRequest{
		"no target": {Interval: time.Second, Wait: time.Second}, "no pause": {Target: "web", Wait: time.Second},
		"no wait": {Target: "web", Interval: time.Second}, "too long a wait": {Target: "web", Interval: time.Second, Wait: time.Hour},
		"too large": {Target: "web", Interval: time.Second, Wait: time.Second, Size: api.MaxPingSize + 1},
	} {
		if err := c.Ping(t.Context(), bad, func(api.PingMessage) error { return nil }); api.CodeOf(err) != api.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	r.Target = "nobody"
	if err := c.Ping(t.Context(), r, nil); api.CodeOf(err) != api.CodeNotFound {
		t.Errorf("nobody: %v", err)
	}
	r.Target, r.Count = "web", 0
	enough := errors.New("enough")
	if err := c.Ping(t.Context(), r, func(api.PingMessage) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("err %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := c.Ping(ctx, r, func(api.PingMessage) error { cancel(); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("err %v", err)
	}
	begun := false
	err = c.Ping(t.Context(), r, func(api.PingMessage) error {
		if !begun {
			begun = true
			go stop()
		}
		return nil
	})
	if api.CodeOf(err) != api.CodeUnreachable {
		t.Errorf("a stop ended it with %v", err)
	}
	stop()
}

func TestConnectivityCalls(t *testing.T) {
	b, c, stop := fixture(t)
	want := api.ConnectivityReport{Time: time.Unix(1, 0).UTC(), Node: "alpha", Results: []api.ConnectivityResult{{From: "alpha", To: "alpha", Test: api.TestContainers, State: api.TestOK}}}
	b.SetConnectivity(want, 0)
	steps := 0
	got, err := c.TestConnectivity(t.Context(), api.ConnectivityTest{Limit: time.Minute}, func(api.ConnectivityProgress) { steps++ })
	if diff := cmp.Diff(want, got, equate); diff != "" || err != nil || steps == 0 {
		t.Errorf("%v, %d steps\n%s", err, steps, diff)
	}
	for _, bad := range []api.ConnectivityTest{{}, {Limit: 2 * api.MaxConnectivityLimit}, {Limit: time.Minute, Out: netip.MustParseAddr("::1")}} {
		if _, err := c.TestConnectivity(t.Context(), bad, func(api.ConnectivityProgress) {}); api.CodeOf(err) != api.CodeInvalid {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	if err := c.LendEndpoints(t.Context(), api.ConnectivityTest{}, func(api.ConnectivityLoan) {}); api.CodeOf(err) != api.CodeInvalid {
		t.Errorf("lent without end: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	loans := 0
	err = c.LendEndpoints(ctx, api.ConnectivityTest{Limit: time.Hour}, func(l api.ConnectivityLoan) {
		loans++
		if l.ID != "loan" || c.GiveBackEndpoints(ctx, l.ID) != nil {
			t.Errorf("loan %+v", l)
		}
		cancel()
	})
	if !errors.Is(err, context.Canceled) || loans != 1 {
		t.Errorf("%d loans, %v", loans, err)
	}
	probes := []api.ConnectivityProbe{{ID: 0, Target: netip.MustParseAddr("192.0.2.1")}, {ID: 1, Target: netip.MustParseAddr("192.0.2.2"), MTU: 1500}}
	var done []int
	if err := c.ProbePaths(t.Context(), probes, func(r api.ConnectivityProbed) { done = append(done, r.MTU) }); err != nil || !cmp.Equal(done, []int{0, 1500}) {
		t.Errorf("done %v, %v", done, err)
	}
	if err := c.ProbePaths(t.Context(), []api.ConnectivityProbe{{}}, nil); api.CodeOf(err) != api.CodeInvalid {
		t.Errorf("a probe without a target: %v", err)
	}
	// The node's end is the end of what it lent, at once.
	err = c.LendEndpoints(t.Context(), api.ConnectivityTest{Limit: time.Hour}, func(api.ConnectivityLoan) { go stop() })
	if api.CodeOf(err) != api.CodeUnreachable {
		t.Errorf("a stop ended the loan with %v", err)
	}
	stop()
}
