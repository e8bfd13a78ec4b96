package node

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"stellar.io/stellar/api"
)

func get(h http.Handler, path string) (code int, body string) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

func TestReadyz(t *testing.T) {
	t.Parallel()
	check := func(name string, state api.CheckState, reason string) api.Check {
		return api.Check{Name: name, State: state, Reason: reason}
	}
	ready, leader := check("ready", api.OK, ""), check("leader", api.OK, "")
	away := check("leader", api.Warn, "no leader answers")
	disk, full := check("disk", api.Warn, "slow"), check("disk", api.Err, "full")
	starting := check("ready", api.Warn, "waiting for containerd")
	for _, tt := range []struct {
		name              string
		checks            []api.Check
		noleader, verbose bool
		code              int
		body              string
	}{
		{"ready", []api.Check{ready, leader, disk}, false, false, 200, "ready\n"},
		{"verbose", []api.Check{ready, leader, disk}, false, true, 200, "OK   ready\nOK   leader\nWARN disk: slow\nready\n"},
		{"no leader", []api.Check{ready, away}, false, false, 503, "WARN leader: no leader answers\nnot ready\n"},
		{"no leader, ignored", []api.Check{ready, away}, true, false, 200, "ready\n"},
		{"no leader, ignored, verbose", []api.Check{ready, away}, true, true, 200, "OK   ready\nWARN leader: no leader answers\nready\n"},
		{"starting", []api.Check{starting, away}, true, false, 503, "WARN ready: waiting for containerd\nnot ready\n"},
		{"an error", []api.Check{ready, leader, full}, true, false, 503, "ERR  disk: full\nnot ready\n"},
		{"nothing is known", nil, false, false, 503, "ERR  ready: not known\nERR  leader: not known\nnot ready\n"},
	} {
		w := httptest.NewRecorder()
		writeReady(w, api.StatusReport{Checks: tt.checks}, tt.noleader, tt.verbose)
		if w.Code != tt.code || w.Body.String() != tt.body {
			t.Errorf("%s: %d\n%s", tt.name, w.Code, w.Body)
		}
	}
}

func TestLivezOfAWedgedAgent(t *testing.T) {
	t.Parallel()
	calls, wedged := make(chan struct{}, 10), make(chan struct{})
	h := livez(func() { calls <- struct{}{}; <-wedged }, 20*time.Millisecond)
	for range 3 {
		if code, body := get(h, "/livez"); code != http.StatusServiceUnavailable || !strings.Contains(body, "bugreport") {
			t.Errorf("%d %s", code, body)
		}
	}
	if len(calls) != 1 {
		t.Errorf("%d goroutines hang in a part that does", len(calls))
	}
	close(wedged)
	deadline := time.Now().Add(10 * time.Second)
	for {
		if code, _ := get(h, "/livez"); code == http.StatusOK {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it stays dead")
		}
		time.Sleep(time.Millisecond)
	}
}

func TestHealthWithoutACluster(t *testing.T) {
	t.Parallel()
	n := lone(t)
	h := n.metricsHandler()
	for path, want := range map[string]int{"/livez": 200, "/healthz": 200, "/readyz": 503, "/readyz?noleader": 503, "/metrics": 200, "/debug/pprof/": 404} {
		if code, body := get(h, path); code != want {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	if _, body := get(h, "/readyz?verbose"); !strings.HasPrefix(body, "WARN ready: ") || !strings.Contains(body, "\nWARN leader: no leader yet") || !strings.HasSuffix(body, "not ready\n") {
		t.Errorf("verbose:\n%s", body)
	}
	if _, body := get(h, "/metrics"); !strings.Contains(body, `stellar_check_state{check="ready"} 1`) || !strings.Contains(body, "raft_apply ") {
		t.Errorf("metrics before there is a cluster:\n%s", body)
	}
}
