package api

import (
	"strings"
	"testing"
	"time"
)

func TestEventMatch(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	long := strings.Repeat("0123456789abcdef", 4)
	web := Event{Time: noon, Type: "attach", Subject: "default/web"}
	for _, tt := range []struct {
		name string
		q    EventQuery
		e    Event
		want bool
	}{
		{"everything", EventQuery{}, web, true},
		{"at the time", EventQuery{Since: noon}, web, true},
		{"before the time", EventQuery{Since: noon.Add(1)}, web, false},
		{"its type", EventQuery{Types: []string{"detach", "attach"}}, web, true},
		{"another type", EventQuery{Types: []string{"detach"}}, web, false},
		{"its name", EventQuery{Subject: "default/web"}, web, true},
		{"its id", EventQuery{Subject: "web"}, web, true},
		{"the beginning of a chosen name", EventQuery{Subject: "we"}, web, false},
		{"another namespace", EventQuery{Subject: "other/web"}, web, false},
		{"a pattern of the id", EventQuery{Subject: "w?b*"}, web, true},
		{"a pattern of the whole", EventQuery{Subject: "default/*"}, web, true},
		{"a pattern of another namespace", EventQuery{Subject: "other/*"}, web, false},
		{"the beginning of a long id", EventQuery{Subject: "012345"}, Event{Subject: "default/" + long}, true},
		{"the inside of a long id", EventQuery{Subject: "123456"}, Event{Subject: "default/" + long}, false},
		{"a route", EventQuery{Subject: "172.16.4.0/22"}, Event{Subject: "172.16.4.0/22"}, true},
		{"a pattern of routes", EventQuery{Subject: "172.16.*/*"}, Event{Subject: "172.16.4.0/22"}, true},
		{"type and subject", EventQuery{Subject: "web", Types: []string{"detach"}}, web, false},
		{"a loss is told in any case", EventQuery{Types: []string{"attach"}, Subject: "x", Since: noon.Add(time.Hour)}, Event{Type: EventLost, Time: noon}, true},
		{"so is a silent node", EventQuery{Types: []string{"attach"}, Subject: "x"}, Event{Type: EventUnreachable}, true},
	} {
		if got := tt.q.Match(tt.e); got != tt.want {
			t.Errorf("%s: %t, want %t", tt.name, got, tt.want)
		}
	}
}

func TestEventNewest(t *testing.T) {
	t.Parallel()
	list := []Event{{Type: "1"}, {Type: "2"}, {Type: "3"}}
	for tail, want := range map[int]string{0: "123", -1: "", 2: "23", 3: "123", 9: "123"} {
		got := ""
		for _, e := range (EventQuery{Tail: tail}).Newest(list) {
			got += e.Type
		}
		if got != want {
			t.Errorf("tail %d: %q, want %q", tail, got, want)
		}
	}
}

func TestEventQueryValidate(t *testing.T) {
	t.Parallel()
	for _, q := range []EventQuery{{Subject: "[a"}, {Tail: -2}} {
		if err := q.Validate(); CodeOf(err) != CodeInvalid {
			t.Errorf("%+v: %v", q, err)
		}
	}
	if err := (EventQuery{Subject: "a*", Tail: 3}).Validate(); err != nil {
		t.Error(err)
	}
}
