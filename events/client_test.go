package events

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	eventtypes "github.com/containerd/containerd/api/events"
	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"google.golang.org/grpc/codes"
)

// The server registers a subscriber long after Subscribe has returned. What is
// created meanwhile must be in the listing, what comes later must be hinted.
func TestSlowSubscribeMissesNothing(t *testing.T) {
	f := newFake(t)
	f.subscribeDelay = 400 * time.Millisecond
	f.start(t)
	_, r := watch(t, quick(f))
	var keys []Key
	for i := range 100 {
		key := Key{"default", fmt.Sprintf("c%d", i)}
		keys = append(keys, key)
		f.create(key, uint32(1000+i))
		time.Sleep(8 * time.Millisecond)
	}
	r.wait(t, "trace of every container", func() bool {
		if len(r.listings) == 0 {
			return false
		}
		return !slices.ContainsFunc(keys, func(k Key) bool {
			return !r.hinted(k, TaskCreate) && !slices.ContainsFunc(r.listings[0].Containers, func(c Container) bool { return c.Key == k })
		})
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.listings[0].Containers) == 0 || len(r.hints) == 0 {
		t.Errorf("%d listed, %d hints: the test did not straddle the subscription", len(r.listings[0].Containers), len(r.hints))
	}
	if !r.listings[0].First || r.listings[0].ServerID != "fake-1" {
		t.Errorf("listing: %+v", r.listings[0])
	}
}

func TestReconnect(t *testing.T) {
	for _, tc := range []struct {
		name  string
		fault func(t *testing.T, f *fake)
		heal  func(t *testing.T, f *fake)
		want  error
	}{
		{name: "stream cut", fault: func(_ *testing.T, f *fake) { f.cut() }},
		{name: "server gone", fault: func(_ *testing.T, f *fake) { f.stop() }, heal: func(t *testing.T, f *fake) {
			time.Sleep(300 * time.Millisecond)
			f.start(t)
		}, want: ErrNotConnected},
		{name: "silent stream", fault: func(_ *testing.T, f *fake) { f.deaf.Store(true) }, heal: func(_ *testing.T, f *fake) {
			time.Sleep(300 * time.Millisecond)
			f.deaf.Store(false)
		}, want: ErrStreamSilent},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFake(t)
			f.start(t)
			f.create(Key{"default", "a"}, 1)
			cfg := quick(f)
			cfg.ConnectTimeout = 200 * time.Millisecond
			c, r := watch(t, cfg)
			r.waitSynced(t, 1)
			tc.fault(t, f)
			r.wait(t, "report of the outage", func() bool { return slices.Contains(r.states, false) })
			if _, err := c.Look(t.Context(), Key{"default", "nobody"}); !errors.Is(err, ErrNotConnected) && tc.name != "stream cut" {
				t.Errorf("Look during the outage: %v", err)
			}
			if tc.heal != nil {
				tc.heal(t, f)
			}
			r.waitSynced(t, 2)
			f.create(Key{"default", "b"}, 2)
			r.wait(t, "hint after the outage", func() bool { return r.hinted(Key{"default", "b"}, TaskCreate) })
			r.mu.Lock()
			defer r.mu.Unlock()
			if want := []string{"up", "synced", "down", "up", "synced"}; !slices.Equal(slices.DeleteFunc(slices.Clone(r.order), func(s string) bool { return s == "hint" }), want) {
				t.Errorf("order %v, want %v", r.order, want)
			}
			if tc.want != nil && !errors.Is(r.errs[1], tc.want) {
				t.Errorf("reported %v, want %v", r.errs[1], tc.want)
			}
			if !r.listings[1].First {
				t.Error("the listing after a reconnect is not marked as the first")
			}
			if s := c.Stats(); s.Reconnects != 1 || !s.Connected || s.Relists != 2 {
				t.Errorf("stats %+v", s)
			}
		})
	}
}

func TestAbsentServer(t *testing.T) {
	f := newFake(t)
	c, r := watch(t, quick(f))
	r.wait(t, "report", func() bool { return len(r.states) > 0 })
	if _, err := c.Look(t.Context(), Key{"default", "a"}); !errors.Is(err, ErrNotConnected) || errors.Is(err, ErrNotFound) {
		t.Errorf("Look: %v", err)
	}
	if _, err := c.Version(t.Context()); !errors.Is(err, ErrNotConnected) {
		t.Errorf("Version: %v", err)
	}
	time.Sleep(300 * time.Millisecond) // several tries
	f.start(t)
	r.waitSynced(t, 1)
	r.mu.Lock()
	defer r.mu.Unlock()
	if want := []bool{false, true}; !slices.Equal(r.states, want) {
		t.Errorf("states %v, want %v", r.states, want)
	}
}

// A server that accepts and never answers must not stop Run from ending.
func TestMuteServer(t *testing.T) {
	f := newFake(t)
	l, err := net.Listen("unix", f.address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg := quick(f)
	cfg.ConnectTimeout = 100 * time.Millisecond
	_, r := watch(t, cfg)
	r.wait(t, "report", func() bool { return len(r.states) > 0 })
}

func TestRelist(t *testing.T) {
	f := newFake(t)
	f.start(t)
	f.create(Key{"default", "a"}, 1)
	cfg := quick(f)
	cfg.RelistEvery = 50 * time.Millisecond
	c, r := watch(t, cfg)
	r.waitSynced(t, 2)
	f.failLists.Store(2)
	r.waitSynced(t, 4)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.states) != 1 || r.listings[1].First {
		t.Errorf("a failed relist must not end the connection: %v", r.order)
	}
	if s := c.Stats(); s.RelistErrors != 2 {
		t.Errorf("stats %+v", s)
	}
}

func TestFirstListingMustSucceed(t *testing.T) {
	f := newFake(t)
	f.start(t)
	f.create(Key{"default", "a"}, 1)
	f.failLists.Store(1)
	_, r := watch(t, quick(f))
	r.waitSynced(t, 1)
	r.mu.Lock()
	defer r.mu.Unlock()
	if want := []string{"up", "down", "up", "synced"}; !slices.Equal(r.order, want) {
		t.Errorf("order %v, want %v", r.order, want)
	}
}

func TestListing(t *testing.T) {
	f := newFake(t)
	f.start(t)
	f.create(Key{"default", "runs"}, 7)
	f.create(Key{"default", "idle"}, 0)
	f.create(Key{"other", "runs"}, 8)
	f.create(Key{"k8s.io", "pod"}, 9)
	f.mu.Lock()
	delete(f.tasks, Key{"default", "idle"})
	f.tasks[Key{"default", "lost"}] = &tasktypes.Process{ID: "lost", Pid: 10, Status: tasktypes.Status_PAUSING}
	f.mu.Unlock()
	_, r := watch(t, quick(f))
	r.waitSynced(t, 1)
	r.mu.Lock()
	defer r.mu.Unlock()
	got := make(map[Key]string)
	for _, c := range r.listings[0].Containers {
		got[c.Key] = "none"
		if c.Task != nil {
			got[c.Key] = fmt.Sprint(c.Task.PID, c.Task.Status)
		}
		if c.Created.IsZero() || c.Runtime == "" {
			t.Errorf("%s: record is incomplete: %+v", c.Key, c)
		}
	}
	want := map[Key]string{{"default", "runs"}: "7 running", {"default", "idle"}: "none", {"other", "runs"}: "8 running"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("listed %v, want %v", got, want)
	}
	if o := r.listings[0].Orphans; len(o) != 1 || o[0] != (Orphan{Key{"default", "lost"}, Task{10, TaskPaused}}) {
		t.Errorf("orphans %v", o)
	}
}

// All records in one message would pass containerd's limit for messages.
func TestLargeListing(t *testing.T) {
	f := newFake(t)
	f.start(t)
	for i := range 40 {
		key := Key{"default", fmt.Sprintf("c%d", i)}
		f.create(key, 1)
		f.mu.Lock()
		f.containers[key].Labels = map[string]string{"big": strings.Repeat("x", 1<<20)}
		f.mu.Unlock()
	}
	_, r := watch(t, quick(f))
	r.wait(t, "listing", func() bool { return len(r.listings) > 0 && len(r.listings[0].Containers) == 40 })
}

func TestHints(t *testing.T) {
	f := newFake(t)
	f.start(t)
	c, r := watch(t, quick(f))
	r.waitSynced(t, 1)
	f.emit("default", "/tasks/exit", &eventtypes.TaskExit{ContainerID: "a", ID: "exec-1", Pid: 3})
	f.emit("default", "/tasks/oom", &eventtypes.TaskOOM{ContainerID: "a"})
	f.emit("default", "/tasks/exit", &eventtypes.ContainerDelete{ID: "a"})
	f.emit("k8s.io", "/tasks/exit", &eventtypes.TaskExit{ContainerID: "pod", ID: "pod", Pid: 4})
	f.emit("default", "/tasks/exit", &eventtypes.TaskExit{ContainerID: "a", ID: "a", Pid: 5})
	r.wait(t, "hint", func() bool { return len(r.hints) > 0 })
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.hints[0]
	if len(r.hints) != 1 || h.Key != (Key{"default", "a"}) || h.Topic != TaskExit || h.PID != 5 {
		t.Errorf("hints %+v", r.hints)
	}
	if lag := h.Received.Sub(h.Time); lag <= 0 || lag > 5*time.Second {
		t.Errorf("lag %s", lag)
	}
	s := c.Stats()
	if s.Execs != 1 || s.Unknown != 1 || s.DecodeErrors != 1 || s.Received[TaskExit] != 1 || s.Lag.Count != 1 || s.LastProbe.IsZero() {
		t.Errorf("stats %+v", s)
	}
}

// Probes are published in a namespace of their own, under a topic of the
// connection's own, and their payload is one that every reader can decode.
func TestProbes(t *testing.T) {
	f := newFake(t)
	f.start(t)
	_, r1 := watch(t, quick(f))
	_, r2 := watch(t, quick(f))
	r1.waitSynced(t, 1)
	r2.waitSynced(t, 1)
	topics := slices.Compact(slices.Sorted(slices.Values(f.published())))
	if len(topics) != 2 || !strings.HasPrefix(topics[0], probeTopic) {
		t.Errorf("published %v, want one topic for each client", topics)
	}
	for _, topic := range topics {
		if part := strings.TrimPrefix(topic, probeTopic); !validIdentifier(part) {
			t.Errorf("%q is no topic that containerd takes", topic)
		}
	}
}

func TestLookNotFound(t *testing.T) {
	f := newFake(t)
	f.start(t)
	f.create(Key{"default", "a"}, 1)
	c, r := watch(t, quick(f))
	r.waitSynced(t, 1)
	for _, tc := range []struct {
		name string
		key  Key
		code codes.Code
		want error
	}{
		{"there", Key{"default", "a"}, codes.OK, nil},
		{"not there", Key{"default", "b"}, codes.OK, ErrNotFound},
		{"other namespace", Key{"other", "a"}, codes.OK, ErrNotFound},
		{"server unavailable", Key{"default", "a"}, codes.Unavailable, ErrNotConnected},
		{"server failing", Key{"default", "a"}, codes.Internal, ErrNotConnected},
	} {
		f.mu.Lock()
		f.brokenGet = tc.code
		f.mu.Unlock()
		if _, err := c.Look(t.Context(), tc.key); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}
}

// A NotFound of a server whose event stream was not proven is not a fact.
func TestLookWithoutRun(t *testing.T) {
	f := newFake(t)
	f.start(t)
	f.create(Key{"default", "a"}, 1)
	f.mu.Lock()
	delete(f.tasks, Key{"default", "a"})
	f.mu.Unlock()
	c, err := New(quick(f))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Look(t.Context(), Key{"default", "b"}); !errors.Is(err, ErrNotConnected) {
		t.Errorf("Look at nothing: %v", err)
	}
	ctr, err := c.Look(t.Context(), Key{"default", "a"})
	if err != nil || ctr.Task == nil || ctr.Task.Status != TaskUnknown {
		t.Errorf("Look: %+v, %v", ctr, err)
	}
}

func TestLookTask(t *testing.T) {
	f := newFake(t)
	f.start(t)
	key := Key{"default", "a"}
	f.create(key, 42)
	c, r := watch(t, quick(f))
	r.waitSynced(t, 1)
	ctr, err := c.Look(t.Context(), key)
	if err != nil || ctr.Task == nil || *ctr.Task != (Task{42, TaskRunning}) || ctr.NetNS != NetNSNew || ctr.Hostname != "h" {
		t.Fatalf("Look: %+v, %v", ctr, err)
	}

	f.mu.Lock()
	f.hangTasks = true
	f.mu.Unlock()
	ctr, err = c.Look(t.Context(), key)
	if err != nil || ctr.Task == nil || *ctr.Task != (Task{0, TaskUnknown}) {
		t.Errorf("Look at a hanging shim: %+v, %v", ctr, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err = c.Look(ctx, key); !errors.Is(err, context.Canceled) {
		t.Errorf("Look that is given up: %v", err)
	}

	f.mu.Lock()
	f.hangTasks = false
	delete(f.tasks, key)
	f.mu.Unlock()
	if ctr, err = c.Look(t.Context(), key); err != nil || ctr.Task != nil {
		t.Errorf("Look without a task: %+v, %v", ctr, err)
	}
	if task, err := c.LookTask(t.Context(), key); err != nil || task != nil {
		t.Errorf("LookTask without a task: %+v, %v", task, err)
	}
	f.mu.Lock()
	f.containers[key] = &containersapi.Container{ID: "somebody else"}
	f.mu.Unlock()
	if _, err := c.Look(t.Context(), key); err == nil || errors.Is(err, ErrNotFound) {
		t.Errorf("Look with an answer for another key: %v", err)
	}
}
