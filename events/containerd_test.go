package events

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	"github.com/google/go-cmp/cmp"

	"stellar.io/stellar/internal/testx"
)

// These tests run against real containerds and need root.

// eachContainerd runs a test with a private containerd of each version.
func eachContainerd(t *testing.T, test func(t *testing.T, ctrd *testx.Containerd)) {
	t.Helper()
	for _, v := range testx.Versions() {
		t.Run("v"+string(v), func(t *testing.T) {
			t.Parallel()
			test(t, testx.StartContainerd(t, testx.Options{Version: v, Images: []testx.Image{testx.MustBusybox(t)}}))
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestContainerdLifecycle(t *testing.T) {
	eachContainerd(t, func(t *testing.T, ctrd *testx.Containerd) {
		c, r := watch(t, Config{Address: ctrd.Address})
		r.waitSynced(t, 1)
		key := Key{"default", "life"}
		must(t, ctrd.Run(testx.Run{ID: key.ID}))
		pid, err := ctrd.TaskPID(key.Namespace, key.ID)
		must(t, err)
		for _, topic := range []Topic{ContainerCreate, TaskCreate, TaskStart} {
			r.wait(t, string(topic), func() bool { return r.hinted(key, topic) })
		}
		r.mu.Lock()
		for _, h := range r.hints {
			if h.Topic == TaskCreate && (int(h.PID) != pid || h.Bundle == "" || h.Checkpoint) {
				t.Errorf("task create: %+v, want pid %d", h, pid)
			}
		}
		before := len(r.hints)
		r.mu.Unlock()

		execs(t, ctrd, key, 200)
		// The events come a moment after the answers, and make no hints to wait for.
		for end := time.Now().Add(20 * time.Second); c.Stats().Execs < 200; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d exec events were counted, want 200 at least", c.Stats().Execs)
			}
		}
		r.mu.Lock()
		if after := len(r.hints); after != before {
			t.Errorf("execs made hints: %+v", r.hints[before:])
		}
		r.mu.Unlock()

		_, err = ctrd.Ctr("containers", "label", key.ID, "a=b")
		must(t, err)
		_, err = ctrd.Ctr("task", "kill", "-s", "KILL", key.ID)
		must(t, err)
		r.wait(t, "task exit", func() bool { return r.hinted(key, TaskExit) })
		_, err = ctrd.Ctr("task", "rm", key.ID)
		must(t, err)
		_, err = ctrd.Ctr("containers", "rm", key.ID)
		must(t, err)
		// A shim of 2.x that has no task left may end before its last event is out,
		// so /tasks/delete is not waited for here.
		for _, topic := range []Topic{ContainerUpdate, ContainerDelete} {
			r.wait(t, string(topic), func() bool { return r.hinted(key, topic) })
		}
		_, err = ctrd.Ctr("namespaces", "create", "short")
		must(t, err)
		_, err = ctrd.Ctr("namespaces", "rm", "short")
		must(t, err)
		r.wait(t, "namespace delete", func() bool { return r.hinted(Key{Namespace: "short"}, NamespaceDelete) })
		s := c.Stats()
		if s.DecodeErrors != 0 || s.Unknown != 0 {
			t.Errorf("stats %+v", s)
		}
		t.Logf("event lag: mean %s, max %s of %d", s.Lag.Sum/time.Duration(s.Lag.Count), s.Lag.Max, s.Lag.Count)
	})
}

// execs runs n execs, a few at a time.
func execs(t *testing.T, ctrd *testx.Containerd, key Key, n int) {
	t.Helper()
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for i := worker; i < n; i += 4 {
				if _, err := ctrd.Exec(key.Namespace, key.ID, "true"); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// A hundred containers are created while a client starts: each is listed or hinted.
func TestContainerdNothingMissed(t *testing.T) {
	eachContainerd(t, func(t *testing.T, ctrd *testx.Containerd) {
		const n = 100
		created := make(chan error, 1)
		started := make(chan struct{})
		go func() {
			var wg sync.WaitGroup
			var once sync.Once
			errs := make([]error, n)
			for worker := range 4 {
				wg.Go(func() {
					for i := worker; i < n; i += 4 {
						errs[i] = ctrd.Create(testx.Run{ID: fmt.Sprintf("many-%d", i)})
						if i >= n/4 {
							once.Do(func() { close(started) })
						}
					}
				})
			}
			wg.Wait()
			created <- errors.Join(errs...)
		}()
		<-started
		_, r := watch(t, Config{Address: ctrd.Address})
		must(t, <-created)
		r.wait(t, "trace of every container", func() bool {
			if len(r.listings) == 0 {
				return false
			}
			for i := range n {
				key := Key{"default", fmt.Sprintf("many-%d", i)}
				listed := slices.ContainsFunc(r.listings[0].Containers, func(c Container) bool { return c.Key == key })
				if !listed && !r.hinted(key, ContainerCreate) {
					return false
				}
			}
			return true
		})
		r.mu.Lock()
		defer r.mu.Unlock()
		listed, hinted := len(r.listings[0].Containers), len(r.hints)
		t.Logf("%d listed, %d hinted", listed, hinted)
		if listed == 0 || hinted == 0 {
			t.Error("the test did not straddle the listing")
		}
	})
}

func TestContainerdLook(t *testing.T) {
	eachContainerd(t, func(t *testing.T, ctrd *testx.Containerd) {
		busybox := testx.MustBusybox(t)
		brings := busybox.WithLabels("docker.io/stellar/brings:test", map[string]string{"stellar.io/network": "true", "other": "x"})
		must(t, ctrd.Import("default", brings))
		several := busybox.WithLabels("docker.io/stellar/several:test", map[string]string{"here": "yes"})
		several.Others = []testx.Variant{{Architecture: "s390x", Labels: map[string]string{"here": "no"}}}
		must(t, ctrd.Import("default", several))
		ns := pinNetNS(t)
		rootfs := filepath.Join(ctrd.Dir, "rootfs")
		must(t, os.MkdirAll(rootfs, 0o755))

		for _, r := range []testx.Run{
			{ID: "plain", Labels: map[string]string{"stellar.io/network": "true"}, Annotations: map[string]string{"stellar.io/ip": "172.16.0.9"}},
			{ID: "brings", Image: brings.Name, Labels: map[string]string{"mine": "1"}},
			{ID: "several", Image: several.Name},
			{ID: "host", HostNet: true},
			{ID: "path", NetNSPath: ns},
			{ID: "bare", RootFS: rootfs},
			{ID: "cni", Labels: map[string]string{nerdctlNetworks: `["bridge"]`}},
		} {
			must(t, ctrd.Create(r))
		}
		must(t, ctrd.Run(testx.Run{ID: "runs"}))

		c, r := watch(t, Config{Address: ctrd.Address})
		r.waitSynced(t, 1)
		look := func(id string) Container {
			t.Helper()
			ctr, err := c.Look(t.Context(), Key{"default", id})
			must(t, err)
			if age := time.Since(ctr.Created); age < 0 || age > time.Hour || ctr.Runtime != "io.containerd.runc.v2" {
				t.Errorf("%s: created %s ago with %q", id, age, ctr.Runtime)
			}
			return ctr
		}

		plain := look("plain")
		if plain.Labels["stellar.io/network"] != "true" || plain.Annotations["stellar.io/ip"] != "172.16.0.9" ||
			!plain.HasImage || !plain.ImageKnown || len(plain.ImageLabels) != 0 || plain.NetNS != NetNSNew || plain.CNI || plain.Task != nil {
			t.Errorf("plain: %+v", plain)
		}
		// ctr has merged the image's labels into the container's; the image shows which.
		br := look("brings")
		want := map[string]string{"stellar.io/network": "true", "other": "x"}
		if diff := cmp.Diff(want, br.ImageLabels); diff != "" || br.Labels["stellar.io/network"] != "true" || br.Labels["mine"] != "1" {
			t.Errorf("brings: %v %s", br.Labels, diff)
		}
		if sv := look("several"); sv.ImageLabels["here"] != "yes" || sv.Labels["here"] != "yes" {
			t.Errorf("several: %v %v", sv.ImageLabels, sv.Labels)
		}
		if h := look("host"); h.NetNS != NetNSHost {
			t.Errorf("host: %+v", h)
		}
		if p := look("path"); p.NetNS != NetNSPath || p.NetNSPath != ns {
			t.Errorf("path: %+v", p)
		}
		if b := look("bare"); b.HasImage || b.ImageKnown || b.NetNS != NetNSNew {
			t.Errorf("bare: %+v", b)
		}
		if !look("cni").CNI {
			t.Error("cni: not seen")
		}
		pid, err := ctrd.TaskPID("default", "runs")
		must(t, err)
		if task := look("runs").Task; task == nil || *task != (Task{uint32(pid), TaskRunning}) {
			t.Errorf("runs: %+v, want pid %d", task, pid)
		}
		_, err = ctrd.Ctr("images", "rm", brings.Name)
		must(t, err)
		if gone := look("brings"); !gone.HasImage || gone.ImageKnown {
			t.Errorf("image removed: %+v", gone)
		}
		for _, key := range []Key{{"other", "plain"}, {"default", "nobody"}, {"no-such-namespace", "x"}} {
			if _, err := c.Look(t.Context(), key); !errors.Is(err, ErrNotFound) {
				t.Errorf("%s: %v", key, err)
			}
		}
		lookLatency(t, c, Key{"default", "runs"})
	})
}

// lookLatency logs the time of a Look; it must not be far from what is promised.
func lookLatency(t *testing.T, c *Client, key Key) {
	t.Helper()
	measure := func(what string, call func() error) {
		var times []time.Duration
		for range 200 {
			start := time.Now()
			must(t, call())
			times = append(times, time.Since(start))
		}
		slices.Sort(times)
		t.Logf("%s: p50 %s, p99 %s", what, times[len(times)/2], times[len(times)*99/100])
		if times[len(times)/2] > 20*time.Millisecond {
			t.Errorf("%s takes %s", what, times[len(times)/2])
		}
	}
	measure("Look", func() error {
		_, err := c.Look(t.Context(), key)
		return err
	})
	measure("LookTask", func() error {
		_, err := c.LookTask(t.Context(), key)
		return err
	})
}

// pinNetNS makes a network namespace and returns a path to it. The thread that
// entered it is given up with its goroutine.
func pinNetNS(t *testing.T) string {
	t.Helper()
	paths, done := make(chan string), make(chan struct{})
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := syscall.Unshare(syscall.CLONE_NEWNET); err != nil {
			t.Error(err)
		}
		paths <- fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), syscall.Gettid())
		<-done
	}()
	t.Cleanup(func() { close(done) })
	return <-paths
}

// containerd dies and comes back: the outage is reported, the listing is
// complete again, tasks have lived on.
func TestContainerdRestart(t *testing.T) {
	eachContainerd(t, func(t *testing.T, ctrd *testx.Containerd) {
		c, r := watch(t, Config{Address: ctrd.Address})
		r.waitSynced(t, 1)
		if pid := c.ServerPID(); pid != ctrd.PID() {
			t.Errorf("server pid %d, want %d", pid, ctrd.PID())
		}
		version, err := c.Version(t.Context())
		must(t, err)
		if want := map[testx.Version]string{testx.V1: "1.6.", testx.V2: "2.4."}[ctrd.Version]; !strings.HasPrefix(strings.TrimPrefix(version, "v"), want) {
			t.Errorf("version %q, want %s", version, want)
		}
		key := Key{"default", "survivor"}
		must(t, ctrd.Run(testx.Run{ID: key.ID}))
		pid, err := ctrd.TaskPID(key.Namespace, key.ID)
		must(t, err)
		must(t, ctrd.Kill9())
		r.wait(t, "report of the outage", func() bool { return slices.Contains(r.states, false) })
		if _, err := c.Look(t.Context(), key); !errors.Is(err, ErrNotConnected) {
			t.Errorf("Look during the outage: %v", err)
		}
		must(t, ctrd.Start())
		back := time.Now()
		r.waitSynced(t, 2)
		t.Logf("listed %s after containerd answered", time.Since(back))
		r.mu.Lock()
		first, second := r.listings[0], r.listings[1]
		r.mu.Unlock()
		if first.ServerID == "" || first.ServerID != second.ServerID || first.ServerPID == second.ServerPID || second.ServerPID != ctrd.PID() {
			t.Errorf("servers %s %d and %s %d", first.ServerID, first.ServerPID, second.ServerID, second.ServerPID)
		}
		if len(second.Containers) != 1 || second.Containers[0].Key != key || second.Containers[0].Task == nil ||
			*second.Containers[0].Task != (Task{uint32(pid), TaskRunning}) {
			t.Errorf("listed %+v", second.Containers)
		}
		must(t, ctrd.Remove(key.Namespace, key.ID))
		r.wait(t, "hint after the restart", func() bool { return r.hinted(key, ContainerDelete) })
	})
}

// A containerd that has stopped answering, its socket open, counts as gone.
func TestContainerdFrozen(t *testing.T) {
	eachContainerd(t, func(t *testing.T, ctrd *testx.Containerd) {
		_, r := watch(t, Config{Address: ctrd.Address, ProbeEvery: 200 * time.Millisecond, ConnectTimeout: time.Second, MaxBackoff: time.Second})
		r.waitSynced(t, 1)
		must(t, syscall.Kill(ctrd.PID(), syscall.SIGSTOP))
		r.wait(t, "report", func() bool { return slices.Contains(r.states, false) })
		must(t, syscall.Kill(ctrd.PID(), syscall.SIGCONT))
		r.waitSynced(t, 2)
	})
}

// A record can be deleted while its task runs.
func TestContainerdOrphan(t *testing.T) {
	eachContainerd(t, func(t *testing.T, ctrd *testx.Containerd) {
		c, r := watch(t, Config{Address: ctrd.Address, RelistEvery: 200 * time.Millisecond})
		key := Key{"default", "orphan"}
		must(t, ctrd.Run(testx.Run{ID: key.ID}))
		pid, err := ctrd.TaskPID(key.Namespace, key.ID)
		must(t, err)
		_, err = c.containers.Delete(inNamespace(t.Context(), key.Namespace), &containersapi.DeleteContainerRequest{ID: key.ID})
		must(t, err)
		r.wait(t, "hint", func() bool { return r.hinted(key, ContainerDelete) })
		r.wait(t, "orphan", func() bool {
			last := r.listings[len(r.listings)-1]
			return len(last.Containers) == 0 && slices.Equal(last.Orphans, []Orphan{{key, Task{uint32(pid), TaskRunning}}})
		})
		if _, err := c.Look(t.Context(), key); !errors.Is(err, ErrNotFound) {
			t.Errorf("Look: %v", err)
		}
		// containerd does not tell of a task whose record is gone, except in a list.
		if task, err := c.LookTask(t.Context(), key); !errors.Is(err, ErrNotFound) {
			t.Errorf("LookTask: %+v, %v", task, err)
		}
	})
}

// Probes make no namespace, and whoever else reads events can decode them.
func TestContainerdProbesDisturbNobody(t *testing.T) {
	eachContainerd(t, func(t *testing.T, ctrd *testx.Containerd) {
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		type answer struct {
			out string
			err error
		}
		done := make(chan answer, 1)
		go func() {
			out, err := ctrd.CtrContext(ctx, "events")
			done <- answer{out, err}
		}()
		c, r := watch(t, Config{Address: ctrd.Address, ProbeEvery: 50 * time.Millisecond})
		r.waitSynced(t, 1)
		events := <-done // ended by its deadline; the error holds what it complained about
		if !strings.Contains(events.out, probeTopic) || strings.Contains(events.err.Error(), "unmarshal") {
			t.Errorf("ctr events: %q, %v", events.out, events.err)
		}
		namespaces, err := ctrd.Ctr("namespaces", "ls", "-q")
		must(t, err)
		if got := strings.Fields(namespaces); !slices.Equal(got, []string{"default"}) {
			t.Errorf("namespaces %v", got)
		}
		if s := c.Stats(); !s.Connected || s.Reconnects != 0 {
			t.Errorf("stats %+v", s)
		}
	})
}
