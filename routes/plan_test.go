package routes

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func route(kind Kind, destination, gateway, device string, metric uint32) Route {
	r := Route{Kind: kind, Destination: netip.MustParsePrefix(destination), Device: device, Metric: metric}
	if gateway != "" {
		r.Gateway = netip.MustParseAddr(gateway)
	}
	return r
}

func tableOf(ours, foreign []Route) table {
	t := table{ours: map[key]Route{}, foreign: map[key]Route{}}
	for _, r := range ours {
		t.ours[r.key()] = r
	}
	for _, r := range foreign {
		t.foreign[r.key()] = r
	}
	return t
}

var equate = cmp.Options{cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{}), cmpopts.EquateEmpty()}

func TestPlan(t *testing.T) {
	t.Parallel()
	want := route(Via, "172.16.4.0/22", "192.0.2.2", "eth0", 0)
	network := route(Unreachable, "172.16.0.0/12", "", "", worstMetric)
	tests := []struct {
		name     string
		want     []Route
		have     table
		add, del []Route
		states   []State
	}{
		{"nothing there", []Route{want, network}, tableOf(nil, nil), []Route{network, want}, nil, []State{Missing, Missing}},
		{"all there", []Route{want, network}, tableOf([]Route{want, network}, nil), nil, nil, []State{OK, OK}},
		{"another next hop", []Route{want}, tableOf([]Route{route(Via, "172.16.4.0/22", "192.0.2.9", "eth0", 0)}, nil),
			[]Route{want}, nil, []State{Missing}},
		{"one too many", []Route{want}, tableOf([]Route{want, route(Via, "172.16.8.0/22", "192.0.2.3", "eth0", 0)}, nil),
			nil, []Route{route(Via, "172.16.8.0/22", "192.0.2.3", "eth0", 0)}, []State{OK, Stray}},
		{"same destination, another metric", []Route{want}, tableOf([]Route{want, route(Via, "172.16.4.0/22", "192.0.2.2", "eth0", 7)}, nil),
			nil, []Route{route(Via, "172.16.4.0/22", "192.0.2.2", "eth0", 7)}, []State{OK, Stray}},
		{"foreign route in the way", []Route{want}, tableOf(nil, []Route{route(Via, "172.16.4.0/22", "192.0.2.9", "eth1", 0)}),
			nil, nil, []State{Conflict}},
		{"foreign route elsewhere", []Route{want}, tableOf(nil, []Route{route(Via, "172.16.4.0/22", "192.0.2.9", "eth1", 100)}),
			[]Route{want}, nil, []State{Missing}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			add, del := plan(tt.want, tt.have)
			if d := cmp.Diff(tt.add, add, equate); d != "" {
				t.Errorf("add (-want +got):\n%s", d)
			}
			if d := cmp.Diff(tt.del, del, equate); d != "" {
				t.Errorf("delete (-want +got):\n%s", d)
			}
			var states []State
			for _, s := range compare(tt.want, tt.have) {
				states = append(states, s.State)
			}
			if d := cmp.Diff(tt.states, states); d != "" {
				t.Errorf("states (-want +got):\n%s", d)
			}
		})
	}
}
