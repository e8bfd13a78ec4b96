package events

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/anypb"
)

func TestReadSpec(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, spec string
		kind       NetNSKind
		path       string
		bad        bool
	}{
		{name: "new", spec: `{"linux":{"namespaces":[{"type":"pid"},{"type":"network"}]}}`, kind: NetNSNew},
		{name: "host", spec: `{"linux":{"namespaces":[{"type":"pid"}]}}`, kind: NetNSHost},
		{name: "no namespaces", spec: `{"linux":{}}`, kind: NetNSHost},
		{name: "path", spec: `{"linux":{"namespaces":[{"type":"network","path":"/run/netns/x"}]}}`, kind: NetNSPath, path: "/run/netns/x"},
		{name: "not linux", spec: `{"windows":{}}`, bad: true},
		{name: "empty", bad: true},
		{name: "garbage", spec: `{"linux":`, bad: true},
	} {
		var c Container
		err := c.readSpec(&anypb.Any{TypeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Spec", Value: []byte(tc.spec)})
		if (err != nil) != tc.bad || c.NetNS != tc.kind || c.NetNSPath != tc.path {
			t.Errorf("%s: %s %q, %v", tc.name, c.NetNS, c.NetNSPath, err)
		}
	}
	if err := new(Container).readSpec((*anypb.Any)(nil)); err == nil {
		t.Error("a missing spec is no error")
	}
}

func TestHasCNI(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, label, extension string
		want                   bool
	}{
		{name: "nothing"},
		{name: "bridge", label: `["bridge"]`, want: true},
		{name: "none", label: `["none"]`},
		{name: "host", label: `["host"]`},
		{name: "container", label: `["container:abc"]`},
		{name: "namespace path", label: `["ns:/run/netns/x"]`},
		{name: "several", label: `["none","mynet"]`, want: true},
		{name: "empty list", label: `[]`},
		{name: "unreadable label", label: `bridge`, want: true},
		{name: "ctr --cni", extension: `{"EnableCni":true}`, want: true},
		{name: "ctr without", extension: `{"EnableCni":false}`},
		{name: "unreadable extension", extension: `?`, want: true},
	} {
		labels := map[string]string{"other": "x"}
		if tc.label != "" {
			labels[nerdctlNetworks] = tc.label
		}
		var ext map[string]*anypb.Any
		if tc.extension != "" {
			ext = map[string]*anypb.Any{ctrCNI: {Value: []byte(tc.extension)}}
		}
		if got := hasCNI(labels, ext); got != tc.want {
			t.Errorf("%s: %v", tc.name, got)
		}
	}
}

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		cfg  Config
		want []string // in the error; nil: valid
	}{
		{name: "default", cfg: DefaultConfig()},
		{name: "url", cfg: Config{Address: "unix:///run/x.sock"}},
		{name: "empty", want: []string{"is empty"}},
		{name: "relative", cfg: Config{Address: "x.sock"}, want: []string{"absolute"}},
		{name: "tcp", cfg: Config{Address: "tcp://127.0.0.1:1"}, want: []string{"absolute"}},
		{name: "long", cfg: Config{Address: "/" + strings.Repeat("x", 108)}, want: []string{"longer"}},
		{
			name: "all at once", cfg: Config{IgnoreNamespaces: []string{`a",topic!=b`}, ProbeEvery: -1, RelistEvery: -time.Second},
			want: []string{"is empty", "ignored namespace", "probe interval", "relist interval -1s"},
		},
	} {
		c, newErr := New(tc.cfg)
		if (newErr != nil) != (tc.want != nil) {
			t.Errorf("%s: New: %v", tc.name, newErr)
		}
		if c != nil {
			c.Close()
		}
		err := tc.cfg.Validate()
		if (err != nil) != (tc.want != nil) {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		for _, want := range tc.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v does not say %q", tc.name, err, want)
			}
		}
	}
}

func TestValidIdentifier(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]bool{
		"a": true, "A-b_c.1": true, "0": true, strings.Repeat("a", 76): true,
		"": false, "-a": false, "a-": false, "a--b": false, "a/b": false, "a b": false, "ä": false, strings.Repeat("a", 77): false,
	} {
		if got := validIdentifier(s); got != want {
			t.Errorf("%q: %v", s, got)
		}
	}
}

func TestPauses(t *testing.T) {
	t.Parallel()
	p := newPauses(5 * time.Second)
	limit := firstPause
	for range 20 {
		if d := p.next(); d < limit/2 || d > limit {
			t.Fatalf("pause %s, want within %s and %s", d, limit/2, limit)
		}
		limit = min(2*limit, 5*time.Second)
	}
	p.reset()
	if d := p.next(); d > firstPause {
		t.Errorf("pause after a reset: %s", d)
	}
}

func TestLagBuckets(t *testing.T) {
	t.Parallel()
	var c Client
	at := time.Unix(100, 0)
	for _, lag := range []time.Duration{-time.Second, time.Millisecond, 3 * time.Millisecond, time.Hour} {
		c.stats.hint(Hint{Topic: TaskExit, Time: at, Received: at.Add(lag)})
	}
	c.stats.hint(Hint{Topic: TaskExit, Received: at})
	s := c.Stats()
	if s.Lag.Count != 4 || s.Lag.Last != time.Hour || s.Lag.Max != time.Hour || s.Received[TaskExit] != 5 {
		t.Errorf("stats %+v", s)
	}
	b := s.Lag.Buckets
	if len(b) != len(LagBounds())+1 || b[0] != 1 || b[1] != 1 || b[3] != 1 || b[len(b)-1] != 1 {
		t.Errorf("buckets %v", b)
	}
}
