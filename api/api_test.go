package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"
)

func TestParseTarget(t *testing.T) {
	t.Parallel()
	tests := []struct{ in, want string }{
		{"172.16.0.9", "172.16.0.9"},
		{"172.16.0.9/32", "172.16.0.9"},
		{"172.17.0.0/16", "172.17.0.0/16"},
		{"::ffff:172.16.0.9", "172.16.0.9"},
		{"fd00::/64", "fd00::/64"},
		{"172.16.0.9/22", ""},
		{"fe80::1%eth0", ""},
		{"172.16.0.256", ""},
		{"172.16.0.0/33", ""},
		{"", ""},
		{"web", ""},
	}
	for _, tt := range tests {
		p, err := ParseTarget(tt.in)
		if tt.want == "" {
			if CodeOf(err) != CodeInvalid {
				t.Errorf("ParseTarget(%q) = %s, %v; want it invalid", tt.in, p, err)
			}
			continue
		}
		if err != nil || TargetText(p) != tt.want {
			t.Errorf("ParseTarget(%q) = %s, %v; want %s", tt.in, TargetText(p), err, tt.want)
		}
	}
}

func TestWorst(t *testing.T) {
	t.Parallel()
	tests := []struct {
		in   []CheckState
		want CheckState
	}{
		{nil, OK},
		{[]CheckState{OK, OK}, OK},
		{[]CheckState{OK, Warn, OK}, Warn},
		{[]CheckState{Warn, Err, OK}, Err},
		{[]CheckState{"new"}, Warn},
	}
	for _, tt := range tests {
		var r StatusReport
		for i, s := range tt.in {
			r.Checks = append(r.Checks, Check{Name: fmt.Sprint(i), State: s})
		}
		if got := r.Worst(); got != tt.want {
			t.Errorf("worst of %v = %s, want %s", tt.in, got, tt.want)
		}
	}
}

func TestErrorKeepsCodeThroughWrapping(t *testing.T) {
	t.Parallel()
	cause := errors.New("cause")
	e := Errorf(CodeConflict, "taken: %w", cause)
	hinted := e.WithHint("look")
	wrapped := fmt.Errorf("bind: %w", hinted)
	if CodeOf(wrapped) != CodeConflict || !errors.Is(wrapped, cause) || e.Hint != "" || hinted.Hint != "look" {
		t.Errorf("code %s, hint %q of the original", CodeOf(wrapped), e.Hint)
	}
	if CodeOf(cause) != CodeInternal {
		t.Errorf("code of a plain error = %s", CodeOf(cause))
	}
}

func TestPhaseJSON(t *testing.T) {
	t.Parallel()
	got, err := json.Marshal(Phase{"bind", 1234567 * time.Nanosecond})
	if err != nil || string(got) != `{"name":"bind","ms":1.234}` {
		t.Errorf("phase = %s, %v", got, err)
	}
}

func TestParseEndpointRef(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]EndpointRef{
		"web":         {Container: "web"},
		"default/web": {Namespace: "default", Container: "web"},
		"/web":        {Container: "web"},
		"":            {},
	} {
		if got := ParseEndpointRef(in); got != want {
			t.Errorf("ParseEndpointRef(%q) = %+v, want %+v", in, got, want)
		}
	}
}
