package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"stellar.io/stellar/agent"
	"stellar.io/stellar/api"
)

func recorder() *agent.Agent { return agent.New(agent.Config{NodeName: "a"}) }

// What an agent remembers is what is documented.
func TestEventHistorySize(t *testing.T) {
	t.Parallel()
	a := recorder()
	for i := range api.EventHistory + 100 {
		a.Record("x", "y", fmt.Sprint(i))
	}
	var got []string
	err := readEvents(t.Context(), a.Events, "a", api.EventQuery{}, func(e api.Event) error {
		got = append(got, e.Message)
		return nil
	})
	if err != nil || len(got) != api.EventHistory || got[0] != "100" || got[len(got)-1] != fmt.Sprint(api.EventHistory+99) {
		t.Errorf("%d events from %s, %v; nothing is lost for who was not there", len(got), got[0], err)
	}
}

func TestReadEvents(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		q    api.EventQuery
		want string
	}{
		{"all", api.EventQuery{}, "attach/web detach/web attach/db"},
		{"marked", api.EventQuery{Mark: true}, "attach/web detach/web attach/db MARK"},
		{"the newest", api.EventQuery{Tail: 1}, "attach/db"},
		{"the newest of a type", api.EventQuery{Tail: 1, Types: []string{"detach"}}, "detach/web"},
		{"none", api.EventQuery{Tail: -1, Mark: true}, "MARK"},
		{"a subject", api.EventQuery{Subject: "web"}, "attach/web detach/web"},
		{"of the future", api.EventQuery{Since: time.Now().Add(time.Hour)}, ""},
	} {
		a := recorder()
		for _, e := range [][2]string{{"attach", "default/web"}, {"detach", "default/web"}, {"attach", "default/db"}} {
			a.Record(e[0], e[1], "")
		}
		var got []string
		err := readEvents(t.Context(), a.Events, "a", tt.q, func(e api.Event) error {
			got = append(got, eventText(e))
			return nil
		})
		if diff := cmp.Diff(tt.want, strings.Join(got, " ")); diff != "" || err != nil {
			t.Errorf("%s: %v\n%s", tt.name, err, diff)
		}
	}
}

func eventText(e api.Event) string {
	if e == (api.Event{}) {
		return "MARK"
	}
	return e.Type + strings.Replace(e.Subject, "default", "", 1)
}

// A follower that does not read holds up nobody, and is told how many events it
// missed.
func TestSlowFollowerIsToldWhatItMissed(t *testing.T) {
	t.Parallel()
	a := recorder()
	a.Record("first", "s", "")
	reading, goOn, done := make(chan struct{}), make(chan struct{}), errors.New("enough")
	var got []api.Event
	ended := make(chan error, 1)
	go func() {
		ended <- readEvents(t.Context(), a.Events, "a", api.EventQuery{Follow: true, Types: []string{"first", "last"}}, func(e api.Event) error {
			if got = append(got, e); len(got) == 1 {
				close(reading)
				<-goOn
			}
			if e.Type == "last" {
				return done
			}
			return nil
		})
	}()
	<-reading
	for range api.EventHistory + 41 { // all at once, though nobody reads
		a.Record("more", "s", "")
	}
	a.Record("last", "s", "")
	close(goOn)
	if err := <-ended; !errors.Is(err, done) {
		t.Fatal(err)
	}
	if len(got) != 3 || got[1].Type != api.EventLost || !strings.HasPrefix(got[1].Message, "42 events") || got[1].Node != "a" {
		t.Errorf("got %+v", got)
	}
}

// at is a source of events that happened in these seconds, and then of live ones.
func at(node string, live <-chan api.Event, seconds ...int) eventSource {
	return func(ctx context.Context, q api.EventQuery, send func(api.Event) error) error {
		var list []api.Event
		for _, s := range seconds {
			list = append(list, api.Event{Time: time.Unix(int64(s), 0), Type: fmt.Sprint(s), Node: node})
		}
		for _, e := range append(q.Newest(q.Filter(list)), api.Event{}) {
			if err := send(e); err != nil {
				return err
			}
		}
		for q.Follow {
			select {
			case <-ctx.Done():
				return nil
			case e, ok := <-live:
				if !ok {
					return errors.New("connection lost")
				}
				if err := send(e); err != nil {
					return err
				}
			}
		}
		return nil
	}
}

func TestMergedHistory(t *testing.T) {
	t.Parallel()
	down := func(context.Context, api.EventQuery, func(api.Event) error) error {
		return errors.New("cannot be reached")
	}
	for _, tt := range []struct {
		name    string
		q       api.EventQuery
		sources map[string]eventSource
		want    string
	}{
		{"in the order of time", api.EventQuery{}, map[string]eventSource{"a": at("a", nil, 1, 4), "b": at("b", nil, 2, 3)}, "1a 2b 3b 4a"},
		{"the newest of all", api.EventQuery{Tail: 2}, map[string]eventSource{"a": at("a", nil, 1, 4), "b": at("b", nil, 2, 3)}, "3b 4a"},
		{"one is away", api.EventQuery{}, map[string]eventSource{"a": at("a", nil, 1), "b": down}, "1a unreachableb"},
	} {
		synctest.Test(t, func(t *testing.T) {
			var got []string
			m := merge{query: tt.q, sources: tt.sources}
			err := m.run(t.Context(), func(e api.Event) error { got = append(got, e.Type+e.Node); return nil })
			if diff := cmp.Diff(tt.want, strings.Join(got, " ")); diff != "" || err != nil {
				t.Errorf("%s: %v\n%s", tt.name, err, diff)
			}
		})
	}
}

// A node that cannot be asked is told once, and followed again when it is back, from
// where it was left.
func TestMergedFollowingSurvivesANode(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		live := make(chan api.Event)
		var calls atomic.Int32
		var since []time.Time
		b := func(ctx context.Context, q api.EventQuery, send func(api.Event) error) error {
			since = append(since, q.Since)
			switch calls.Add(1) {
			case 1:
				lost := make(chan api.Event)
				close(lost)
				return at("b", lost, 2)(ctx, q, send)
			case 2, 3:
				return errors.New("cannot be reached")
			}
			return at("b", live, 2, 5)(ctx, q, send)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var got []string
		ended := make(chan error, 1)
		go func() {
			m := merge{query: api.EventQuery{Follow: true}, sources: map[string]eventSource{"a": at("a", nil, 1, 3), "b": b}}
			ended <- m.run(ctx, func(e api.Event) error { got = append(got, e.Type+e.Node); return nil })
		}()
		time.Sleep(time.Minute)
		live <- api.Event{Time: time.Unix(9, 0), Type: "9", Node: "b"}
		synctest.Wait()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if want := "1a 2b 3a unreachableb 5b 9b"; strings.Join(got, " ") != want {
			t.Errorf("got %q, want %q", strings.Join(got, " "), want)
		}
		if want := time.Unix(2, 1); !since[3].Equal(want) {
			t.Errorf("asked again from %v, want %v", since[3], want)
		}
	})
}

// A node whose history never ends does not keep the others' from a follower.
func TestMergedFollowingHasPatience(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		stuck := func(ctx context.Context, _ api.EventQuery, _ func(api.Event) error) error {
			<-ctx.Done()
			return ctx.Err()
		}
		var got []string
		ended := make(chan error, 1)
		go func() {
			m := merge{query: api.EventQuery{Follow: true}, sources: map[string]eventSource{"a": at("a", nil, 1), "b": stuck}}
			ended <- m.run(ctx, func(e api.Event) error { got = append(got, e.Type+e.Node); return nil })
		}()
		time.Sleep(historyPatience + time.Second)
		synctest.Wait()
		if strings.Join(got, " ") != "1a" {
			t.Errorf("got %q", got)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
