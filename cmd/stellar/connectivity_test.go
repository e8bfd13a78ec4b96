package main

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"stellar.io/stellar/api"
)

// connectivityReport makes what a cluster of two nodes would report.
func connectivityReport(what string) api.ConnectivityReport {
	r := api.ConnectivityReport{Time: fixedTime(), Node: "alpha", Pairs: 1, AllPairs: 1}
	hosts, endpoints := map[string]string{}, map[string]string{}
	for i, name := range []string{"alpha", "beta"} {
		n := api.ConnectivityNode{Node: name, Address: netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})}
		if what == "absent" && name == "beta" {
			n.Error = "node beta cannot be reached"
		} else {
			n.Endpoints = []api.ConnectivityEndpoint{
				{Namespace: "default", Container: "web-" + name, Ifname: "eth0", Address: netip.AddrFrom4([4]byte{172, 16, byte(4 * i), 2}), MTU: 1500},
				{Namespace: "stellar-connectivity-test", Container: "0a1b2c3d4e5f-1", Ifname: "eth0", Address: netip.AddrFrom4([4]byte{172, 16, byte(4 * i), 3}), MTU: 1500, Own: true},
			}
			endpoints[name] = "default/web-" + name + " (" + n.Endpoints[0].Address.String() + ")"
		}
		hosts[name] = "host (" + n.Address.String() + ")"
		r.Nodes = append(r.Nodes, n)
	}
	for _, from := range []string{"alpha", "beta"} {
		for _, to := range []string{"alpha", "beta"} {
			for _, test := range []string{api.TestContainers, api.TestHostToContainer, api.TestContainerToHost, api.TestPathMTU, api.TestWayOut} {
				t := api.ConnectivityResult{From: from, To: to, Test: test, State: api.TestOK, Source: endpoints[from], Target: endpoints[to], Sent: 3, Received: 3, RTT: api.Millis(123 * time.Microsecond)}
				switch test {
				case api.TestHostToContainer:
					t.Source = hosts[from]
				case api.TestContainerToHost:
					t.Target = hosts[to]
				case api.TestPathMTU:
					t.Sent, t.Received, t.RTT, t.MTU = 0, 0, 0, 1500
				case api.TestWayOut:
					if t.Target = "192.0.2.254"; from != to {
						continue
					}
				}
				switch {
				case what == "absent" && (from == "beta" || to == "beta"):
					t = api.ConnectivityResult{From: from, To: to, Test: test, State: api.TestSkip, Source: t.Source, Target: t.Target, Reason: "node beta took no part: node beta cannot be reached"}
				case what == "filtered" && from == "alpha" && to == "beta" && test == api.TestContainers:
					t.State, t.Received, t.RTT, t.Reason = api.TestFail, 0, 0, "no answer"
				case what == "filtered" && from == "beta" && to == "alpha" && test == api.TestPathMTU:
					t.State, t.MTU, t.Reason = api.TestFail, 1400, "packets of 1400 bytes pass in one piece, not of 1500"
				}
				r.Results = append(r.Results, t)
			}
		}
	}
	return r
}

func TestProgressLine(t *testing.T) {
	t.Parallel()
	for _, screen := range []bool{false, true} {
		var buf bytes.Buffer
		now := fixedTime()
		p := progressLine{w: &buf, screen: screen, now: func() time.Time { return now }, begun: now}
		for i := range 11 { // five seconds
			p.show(api.ConnectivityProgress{Phase: "testing", Done: i, Total: 20, Failed: i / 8})
			now = now.Add(500 * time.Millisecond)
		}
		p.clear()
		want := "stellar: testing: 4 of 20\nstellar: testing: 8 of 20, 1 failed\n"
		if screen {
			want = ""
			for i, failed := range []string{"", "", "", "", ", 1 failed", ", 1 failed", ", 1 failed"} {
				want += "\rstellar: testing: " + []string{"4", "5", "6", "7", "8", "9", "10"}[i] + " of 20" + failed + "\x1b[K"
			}
			want += "\r\x1b[K"
		}
		if buf.String() != want {
			t.Errorf("screen %t:\n%q, want\n%q", screen, buf.String(), want)
		}
	}
	var quick bytes.Buffer
	p := progressLine{w: &quick, screen: true, now: fixedTime, begun: fixedTime()}
	p.show(api.ConnectivityProgress{Phase: "testing"})
	if p.clear(); quick.Len() > 0 {
		t.Errorf("what is quick says %q", quick.String())
	}
}

func TestMilliseconds(t *testing.T) {
	t.Parallel()
	for in, want := range map[time.Duration]string{
		0: "0.000", 41 * time.Microsecond: "0.041", 999 * time.Microsecond: "0.999", 1234 * time.Microsecond: "1.23", 12345 * time.Microsecond: "12.3", 1234 * time.Millisecond: "1234",
	} {
		if got := milliseconds(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

// A test that could try nothing is no success.
func TestConnectivityVerdict(t *testing.T) {
	t.Parallel()
	for what, want := range map[string]string{"healthy": "", "filtered": "2 of 18 paths failed", "absent": "nodes that took no part: beta", "nothing": "nothing could be tried"} {
		r := connectivityReport(what)
		if what == "nothing" {
			r = api.ConnectivityReport{}
		}
		err := connectivityVerdict(r)
		if want == "" && err != nil || want != "" && (api.CodeOf(err) != api.CodeUnhealthy || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", what, err, want)
		}
	}
}
