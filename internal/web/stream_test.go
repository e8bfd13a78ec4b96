package web_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"stellar.io/stellar/api"
)

// follower reads a stream of events.
type follower struct {
	t *testing.T
	r *http.Response
	s *bufio.Scanner
}

func follow(t *testing.T, base, query string) *follower {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/api/events"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Body.Close() })
	f := &follower{t: t, r: r, s: bufio.NewScanner(r.Body)}
	f.s.Buffer(nil, 1<<20)
	return f
}

// next returns the next thing that is told; "" at the end.
func (f *follower) next() (name string, data []byte) {
	for f.s.Scan() {
		line := f.s.Text()
		if v, ok := strings.CutPrefix(line, "event: "); ok {
			name = v
		}
		if v, ok := strings.CutPrefix(line, "data: "); ok {
			return name, []byte(v)
		}
	}
	return "", nil
}

type told struct {
	Items  []api.Event
	Missed int
}

func (f *follower) events() told {
	f.t.Helper()
	for {
		name, data := f.next()
		switch name {
		case "":
			f.t.Fatal("the stream has ended")
		case "events":
			var v told
			if err := json.Unmarshal(data, &v); err != nil {
				f.t.Fatal(err)
			}
			return v
		}
	}
}

func TestStream(t *testing.T) {
	t.Parallel()
	f := cluster(3, 10)
	base, stop := serve(t, f, "127.0.0.1:0")
	s := follow(t, base, "")
	if name, _ := s.next(); name != "clock" {
		t.Fatalf("the first word is %q, want the clock", name)
	}
	if got := s.events(); len(got.Items) != len(f.happened) {
		t.Errorf("%d events at first, want the %d remembered", len(got.Items), len(f.happened))
	}
	f.happen("attach", "default/new", "now")
	got := s.events()
	if len(got.Items) != 1 || got.Items[0].Subject != "default/new" {
		t.Errorf("then %+v", got)
	}
	since := got.Items[0].Time.Format(time.RFC3339Nano)
	if late := follow(t, base, "?since="+since).events(); len(late.Items) != 1 {
		t.Errorf("since then %d events, want that one", len(late.Items))
	}
	stop() // a stream does not hold up the end
	if name, _ := s.next(); name != "" {
		t.Errorf("after the end: %q", name)
	}
}

// A page that reads slowly costs a bounded memory and is told what it has missed.
func TestStreamFlood(t *testing.T) {
	t.Parallel()
	f := newFake()
	base, _ := serve(t, f, "127.0.0.1:0")
	s := follow(t, base, "")
	const flood = 5000
	for i := range flood {
		f.happen("attach", fmt.Sprint(i), "")
	}
	seen, last := 0, ""
	for seen < flood {
		got := s.events()
		seen += len(got.Items) + got.Missed
		last = got.Items[len(got.Items)-1].Subject
	}
	if seen != flood || last != fmt.Sprint(flood-1) {
		t.Errorf("%d events accounted for up to %s, want %d", seen, last, flood)
	}
}

func TestStreamProblem(t *testing.T) {
	t.Parallel()
	f := newFake()
	f.fail["Events"] = api.Errorf(api.CodeNotInitialized, "no cluster yet")
	base, _ := serve(t, f, "127.0.0.1:0")
	s := follow(t, base, "")
	s.next()
	if name, data := s.next(); name != "problem" || !strings.Contains(string(data), "no cluster yet") {
		t.Errorf("%s %s", name, data)
	}
	if name, _ := s.next(); name != "" {
		t.Errorf("then %s, want the end", name)
	}
}

func TestStreamsAreBounded(t *testing.T) {
	t.Parallel()
	base, _ := serve(t, newFake(), "127.0.0.1:0")
	for range 32 {
		if s := follow(t, base, ""); s.r.StatusCode != http.StatusOK {
			t.Fatalf("status %d", s.r.StatusCode)
		}
	}
	last := follow(t, base, "")
	if last.r.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("status %d, want 503", last.r.StatusCode)
	}
}
