package web_test

import (
	"context"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"stellar.io/stellar/api"
	"stellar.io/stellar/internal/web"
)

const token = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

// TestMain is the tests, or, for those that measure, the agent's part alone.
func TestMain(m *testing.M) {
	if os.Getenv(serveEnv) != "" {
		if err := serveCluster(); err != nil {
			log.Fatal(err)
		}
		return
	}
	os.Exit(m.Run())
}

// do asks a handler as a browser on this machine does, unless change says otherwise.
func do(t *testing.T, h http.Handler, url string, change func(*http.Request)) *http.Response {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, url, nil)
	r.Host, r.RemoteAddr = "127.0.0.1:9643", "127.0.0.1:50000"
	r.Header.Set("Authorization", "Bearer "+token)
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func TestWhoIsRefused(t *testing.T) {
	t.Parallel()
	h := web.New(cluster(3, 10), token, nil).Handler(t.Context())
	header := func(k, v string) func(*http.Request) { return func(r *http.Request) { r.Header.Set(k, v) } }
	host := func(v string) func(*http.Request) { return func(r *http.Request) { r.Host = v } }
	from := func(v string) func(*http.Request) { return func(r *http.Request) { r.RemoteAddr = v } }
	method := func(v string) func(*http.Request) { return func(r *http.Request) { r.Method = v } }
	tests := []struct {
		name   string
		url    string
		change func(*http.Request)
		want   int
	}{
		{"the page", "/", nil, 200},
		{"its script", "/app.js", nil, 200},
		{"data", "/api/summary", nil, 200},
		{"the page needs no token", "/", func(r *http.Request) { r.Header.Del("Authorization") }, 200},
		{"no token", "/api/summary", func(r *http.Request) { r.Header.Del("Authorization") }, 401},
		{"no token, no such data", "/api/nothing", func(r *http.Request) { r.Header.Del("Authorization") }, 401},
		{"wrong token", "/api/summary", header("Authorization", "Bearer "+token[1:]+"A"), 401},
		{"longer token", "/api/summary", header("Authorization", "Bearer "+token+"A"), 401},
		{"empty token", "/api/summary", header("Authorization", "Bearer "), 401},
		{"token without its scheme", "/api/summary", header("Authorization", token), 401},
		{"basic", "/api/summary", header("Authorization", "Basic "+token), 401},
		{"token in the query", "/api/summary?token=" + token, func(r *http.Request) { r.Header.Del("Authorization") }, 401},
		{"token as a cookie", "/api/summary", func(r *http.Request) {
			r.Header.Del("Authorization")
			r.Header.Set("Cookie", "token="+token)
		}, 401},
		{"localhost", "/api/summary", host("localhost:9643"), 200},
		{"through a tunnel with another port", "/api/summary", host("127.0.0.1:8080"), 200},
		{"without a port", "/api/summary", host("localhost"), 200},
		{"IPv6 end of a tunnel", "/api/summary", host("[::1]:9643"), 200},
		{"rebound name", "/api/summary", host("evil.example:9643"), 421},
		{"rebound name, the page", "/", host("evil.example:9643"), 421},
		{"name that begins well", "/", host("127.0.0.1.evil.example:9643"), 421},
		{"name that ends well", "/", host("evil.localhost:9643"), 421},
		{"the node's address", "/", host("192.168.1.5:9643"), 421},
		{"no host", "/", host(""), 421},
		{"a container, by route_localnet", "/", from("172.16.0.9:41000"), 403},
		{"a mapped loopback", "/", from("[::ffff:127.0.0.1]:41000"), 200},
		{"nonsense", "/", from("@"), 403},
		{"POST", "/api/summary", method("POST"), 405},
		{"HEAD", "/", method("HEAD"), 405},
		{"OPTIONS, as before a cross-origin request", "/api/summary", method("OPTIONS"), 405},
		{"no such file", "/nothing", nil, 404},
		{"no way up", "/../web.go", nil, 307},
		{"no such data", "/api/nothing", nil, 404},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := do(t, h, tt.url, tt.change)
			if r.StatusCode != tt.want {
				t.Errorf("status %d, want %d", r.StatusCode, tt.want)
			}
			for k, want := range map[string]string{
				"Content-Security-Policy": "default-src 'self'; ", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
				"Cross-Origin-Resource-Policy": "same-origin", "X-Frame-Options": "DENY",
			} {
				if got := r.Header.Get(k); !strings.HasPrefix(got, want) {
					t.Errorf("%s is %q, want %q…", k, got, want)
				}
			}
			if got := r.Header.Get("Access-Control-Allow-Origin"); got != "" {
				t.Errorf("another origin is allowed: %q", got)
			}
			if len(r.Cookies()) > 0 {
				t.Errorf("a cookie is set: %v", r.Cookies())
			}
		})
	}
}

// The page asks no other host for anything.
func TestNoOtherHosts(t *testing.T) {
	t.Parallel()
	paths, err := filepath.Glob("page/*")
	if err != nil || len(paths) < 10 {
		t.Fatal(paths, err)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(string(data), "http://www.w3.org/2000/svg", "")
		for _, bad := range []string{"http:", "https:", `"//`, "'//", "@import", "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", " style="} {
			if strings.Contains(text, bad) {
				t.Errorf("%s has %q", path, bad)
			}
		}
	}
}

func decode[T any](t *testing.T, r *http.Response) (v T) {
	t.Helper()
	if err := json.NewDecoder(r.Body).Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

type rows struct {
	Items                         []map[string]any
	Offset, Matched, Total, Drift int
	States                        map[string]int
}

func TestTables(t *testing.T) {
	t.Parallel()
	h := web.New(cluster(30, 2000), token, nil).Handler(t.Context())
	tests := []struct {
		name, url     string
		matched, len  int
		offset        int
		column, first string
	}{
		{"first page", "/api/endpoints", 2000, 50, 0, "container", "api-00001"},
		{"second page", "/api/endpoints?offset=50", 2000, 50, 50, "container", "api-00401"},
		{"past the end is the last page", "/api/endpoints?offset=99999", 2000, 50, 1950, "container", "worker-01605"},
		{"larger page", "/api/endpoints?limit=400", 2000, 400, 0, "container", "api-00001"},
		{"too large a page", "/api/endpoints?limit=100000", 2000, 500, 0, "container", "api-00001"},
		{"search", "/api/endpoints?q=db-0001", 2, 2, 0, "container", "db-00010"},
		{"all words", "/api/endpoints?q=DB+00010", 1, 1, 0, "container", "db-00010"},
		{"a reason", "/api/endpoints?q=not+an+ip", 3, 3, 0, "state", "rejected"},
		{"nothing", "/api/endpoints?q=zzz", 0, 0, 0, "", ""},
		{"state", "/api/endpoints?state=rejected", 3, 3, 0, "container", "cron-01999"},
		{"node", "/api/endpoints?node=node-0002&limit=5", 36, 5, 0, "node", "node-0002"},
		{"by address, downwards", "/api/endpoints?sort=address&order=desc", 2000, 50, 0, "address", "172.16.100.67"},
		{"nodes", "/api/nodes", 30, 30, 0, "name", "node-0001"},
		{"the fullest", "/api/nodes?sort=full&order=desc&limit=1", 30, 1, 0, "name", "node-0011"},
		{"routes", "/api/routes", 30, 30, 0, "destination", "172.16.0.0/22"},
		{"drift first", "/api/routes?sort=state&limit=1", 30, 1, 0, "state", "conflict"},
		{"drift only", "/api/routes?drift=true", 2, 2, 0, "destination", "172.16.8.0/22"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := do(t, h, tt.url, nil)
			got := decode[rows](t, r)
			if got.Matched != tt.matched || len(got.Items) != tt.len || got.Offset != tt.offset {
				t.Errorf("%d matched, %d shown from %d; want %d, %d from %d", got.Matched, len(got.Items), got.Offset, tt.matched, tt.len, tt.offset)
			}
			if tt.len > 0 && len(got.Items) > 0 && got.Items[0][tt.column] != tt.first {
				t.Errorf("first %s is %v, want %s", tt.column, got.Items[0][tt.column], tt.first)
			}
		})
	}
	for _, url := range []string{"/api/endpoints?sort=nothing", "/api/nodes?offset=-1", "/api/routes?limit=x"} {
		if r := do(t, h, url, nil); r.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: status %d, want 400", url, r.StatusCode)
		}
	}
	if got := decode[rows](t, do(t, h, "/api/endpoints?state=rejected", nil)); got.States[api.StateAttached] == 0 {
		t.Errorf("states %v leave out what the filter does", got.States)
	}
}

// Many questions are one for the node; an answer that is the same is not sent again.
func TestNodeIsAskedOnce(t *testing.T) {
	t.Parallel()
	f := cluster(3, 10)
	h := web.New(f, token, nil).Handler(t.Context())
	first := do(t, h, "/api/endpoints?q=web", nil)
	for _, q := range []string{"a", "b", "c"} {
		do(t, h, "/api/endpoints?q="+q, nil)
	}
	f.set(func() {
		if f.asked["ClusterEndpoints"] != 1 {
			t.Errorf("asked %d times, want once", f.asked["ClusterEndpoints"])
		}
	})
	again := do(t, h, "/api/endpoints?q=web", func(r *http.Request) { r.Header.Set("If-None-Match", first.Header.Get("ETag")) })
	if body, _ := io.ReadAll(again.Body); again.StatusCode != http.StatusNotModified || len(body) > 0 {
		t.Errorf("status %d with %d bytes, want 304 and none", again.StatusCode, len(body))
	}
}

func TestErrorsKeepTheirHint(t *testing.T) {
	t.Parallel()
	f := newFake()
	f.status = api.StatusReport{Node: "a", Checks: []api.Check{{Name: api.CheckReady, State: api.Warn, Reason: "waiting"}}}
	none := api.Errorf(api.CodeNotInitialized, "this node belongs to no cluster yet").WithHint("make one: stellar cluster init")
	for _, m := range []string{"Nodes", "ClusterEndpoints", "RouteDrift", "Routes", "RaftStats"} {
		f.fail[m] = none
	}
	h := web.New(f, token, nil).Handler(t.Context())
	for _, url := range []string{"/api/map", "/api/nodes", "/api/endpoints", "/api/routes", "/api/raft"} {
		r := do(t, h, url, nil)
		got := decode[map[string]map[string]string](t, r)["error"]
		if r.StatusCode != http.StatusServiceUnavailable || got["code"] != string(api.CodeNotInitialized) || got["hint"] != none.Hint {
			t.Errorf("%s: %d %v", url, r.StatusCode, got)
		}
	}
	r := do(t, h, "/api/summary", nil)
	if got := decode[map[string]any](t, r); r.StatusCode != 200 || got["problem"] == nil || got["state"] != "WARN" {
		t.Errorf("summary without a cluster: %d %v", r.StatusCode, got)
	}
}

// What the kernel cannot be asked for is said, with the routes as they were.
func TestRoutesWithoutKernel(t *testing.T) {
	t.Parallel()
	f := cluster(3, 0)
	f.fail["RouteDrift"] = api.Errorf(api.CodeTimeout, "the kernel is busy")
	got := decode[map[string]any](t, do(t, web.New(f, token, nil).Handler(t.Context()), "/api/routes", nil))
	if got["problem"] == nil || got["total"] != 3.0 {
		t.Errorf("%v", got)
	}
}

func TestToken(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "web-token")
	if _, err := web.ReadToken(path); err == nil {
		t.Error("a token was read that nobody made")
	}
	ensure := func() string {
		t.Helper()
		got, err := web.EnsureToken(path)
		if err != nil || len(got) < 26 {
			t.Fatalf("token %q: %v", got, err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("mode %v: %v", info.Mode(), err)
		}
		return got
	}
	first := ensure()
	if again := ensure(); again != first {
		t.Error("a restart made another token")
	}
	if got, err := web.ReadToken(path); err != nil || got != first {
		t.Errorf("read %q: %v", got, err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := web.ReadToken(path); err == nil {
		t.Error("a token that others can read was taken")
	}
	second := ensure()
	if second == first {
		t.Error("a token that others could read is still in use")
	}
	if err := os.WriteFile(path, []byte("short\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := web.EnsureToken(path); err == nil {
		t.Error("a short token was taken")
	}
	if got, want := web.URL(netip.MustParseAddrPort("127.0.0.1:9643"), "X"), "http://127.0.0.1:9643/#token=X"; got != want {
		t.Errorf("URL %s, want %s", got, want)
	}
}

// serve runs a server on a free port until the test ends, or stop is called.
func serve(t *testing.T, src web.Source, address string) (base string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp4", address)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- web.New(src, token, nil).Run(ctx, l) }()
	done := false
	stop = func() {
		if done {
			return
		}
		done = true
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(20 * time.Second):
			t.Error("the server does not end")
		}
	}
	t.Cleanup(stop)
	return "http://" + l.Addr().String(), stop
}
