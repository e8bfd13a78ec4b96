package hold

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"stellar.io/stellar/internal/testx"
)

// first prints the time of the first instruction, or nearly, in hundredths of a
// second after boot, and ends.
var first = []string{"cut", "-d", " ", "-f1", "/proc/uptime"}

func startContainerd(t *testing.T, v testx.Version) (*testx.Containerd, string) {
	t.Helper()
	c := testx.StartContainerd(t, testx.Options{Version: v, Images: []testx.Image{testx.MustBusybox(t)}})
	return c, filepath.Join(c.Dir, "state")
}

func onEach(t *testing.T, test func(t *testing.T, c *testx.Containerd, state string)) {
	for _, v := range testx.Versions() {
		t.Run("containerd "+string(v), func(t *testing.T) {
			c, state := startContainerd(t, v)
			test(t, c, state)
		})
	}
}

// releaser releases each held init some time after its seizure, as an agent does.
type releaser struct {
	after time.Duration
	h     *Holder
	rec   *recorder
	wg    sync.WaitGroup
	mu    sync.Mutex // guards held
	held  int        // how many were held when released
}

func (r *releaser) onHeld(k Key, pid int, at time.Time) {
	r.rec.onHeld(k, pid, at)
	r.wg.Go(func() {
		time.Sleep(time.Until(at.Add(r.after)))
		if r.h.Release(k, pid).Held {
			r.mu.Lock()
			r.held++
			r.mu.Unlock()
		}
	})
}

// TestBursts: in bursts of 20, each held for 100 ms, all are held, by the answer of Release.
func TestBursts(t *testing.T) {
	onEach(t, func(t *testing.T, c *testx.Containerd, state string) {
		const bursts, size = 2, 20
		r := &releaser{after: 100 * time.Millisecond}
		b := newBedOf(t, state, Config{Roots: []string{state}}, func(cfg *Config) { cfg.OnHeld = r.onHeld })
		r.h, r.rec = b.h, b.rec
		burst(t, c, b, bursts, size, nil)
		b.stop()
		r.wg.Wait()
		s := b.h.Status()
		if r.held != bursts*size || s.Holds != bursts*size || s.Ends[Released] != bursts*size {
			t.Errorf("%d of %d were held when released; %+v", r.held, bursts*size, s)
		}
		for _, e := range b.rec.ends {
			if !e.InTime || e.Held < 100*time.Millisecond {
				t.Errorf("end: %+v", e)
			}
		}
	})
}

// serial makes ids that are unique on the machine.
var serial atomic.Int64

// burst runs containers, size at a time, armed in b if that is not nil.
func burst(t *testing.T, c *testx.Containerd, b *bed, bursts, size int, flags []string) (took []time.Duration) {
	t.Helper()
	var mu sync.Mutex
	for range bursts {
		var wg sync.WaitGroup
		for range size {
			wg.Go(func() {
				id := fmt.Sprintf("%s-%d", filepath.Base(c.Dir), serial.Add(1))
				if b != nil {
					b.h.Arm(Key{Namespace: "default", ID: id}, 0)
					defer b.h.Disarm(Key{Namespace: "default", ID: id})
				}
				begin := time.Now()
				out, err := c.Output(testx.Run{ID: id, Flags: flags, Args: first})
				mu.Lock()
				defer mu.Unlock()
				took = append(took, time.Since(begin))
				// ctr loses the output of a program that has exited before ctr had the
				// pipe open, on a busy machine; that it ran shows by its exit status.
				if err != nil || out != "" && !strings.Contains(out, ".") {
					t.Errorf("run %s: %q, %v", id, out, err)
				}
			})
		}
		wg.Wait()
	}
	return took
}

// TestWhileHeld: a held task can be listed, paused, entered and killed as always.
func TestWhileHeld(t *testing.T) {
	onEach(t, func(t *testing.T, c *testx.Containerd, state string) {
		b := newBedOf(t, state, Config{Roots: []string{state}, Deadline: time.Minute})
		run := func(id string) int {
			t.Helper()
			b.h.Arm(Key{Namespace: "default", ID: id}, 0)
			must(t, c.Run(testx.Run{ID: id, Args: []string{"sh", "-c", "echo begun; exec sleep 1000"}}))
			pid, err := c.TaskPID("default", id)
			must(t, err)
			within(t, id+" stands in its exec", func() bool { return atShell(pid) })
			return pid
		}
		ctr := func(args ...string) string {
			t.Helper()
			begin := time.Now()
			out, err := c.Ctr(args...)
			must(t, err)
			t.Logf("ctr %s: %v", strings.Join(args, " "), time.Since(begin).Round(time.Millisecond))
			return out
		}
		silent := func(id string) {
			t.Helper()
			if out, err := c.Logs("default", id); err != nil || out != "" {
				t.Errorf("%s printed %q, %v", id, out, err)
			}
		}
		pid := run("all")
		listed := func(want string) {
			t.Helper()
			if out := ctr("task", "ls"); !slices.ContainsFunc(strings.Split(out, "\n"), func(l string) bool {
				return slices.Equal(strings.Fields(l), []string{"all", fmt.Sprint(pid), want})
			}) {
				t.Errorf("task ls: want %d %s in\n%s", pid, want, out)
			}
		}
		listed("RUNNING")
		if out := ctr("task", "ps", "all"); !strings.Contains(out, fmt.Sprint(pid)) {
			t.Errorf("task ps: %s", out)
		}
		if out, err := exec.Command("ps", "-o", "pid=", "-p", fmt.Sprint(pid)).CombinedOutput(); err != nil {
			t.Errorf("ps: %v: %s", err, out)
		}
		ctr("task", "pause", "all")
		listed("PAUSED")
		ctr("task", "resume", "all")
		listed("RUNNING")
		if out, err := c.Exec("default", "all", "echo", "inside"); err != nil || out != "inside\n" {
			t.Errorf("exec: %q, %v", out, err)
		}
		silent("all")
		ctr("task", "pause", "all")
		if r := b.h.Release(Key{Namespace: "default", ID: "all"}, pid); !r.Held {
			t.Errorf("Release while paused: %+v", r)
		}
		settle()
		silent("all")
		ctr("task", "resume", "all")
		within(t, "the program runs", func() bool { out, _ := c.Logs("default", "all"); return out == "begun\n" })
		must(t, c.Remove("default", "all"))

		pid = run("killed")
		ctr("task", "kill", "-s", "KILL", "killed")
		within(t, "it is gone", func() bool { e, ok := b.rec.end(pid); return ok && e.How == Exited })
		silent("killed")
		ctr("task", "rm", "killed")
		ctr("containers", "rm", "killed")

		pid = run("deleted")
		ctr("task", "rm", "-f", "deleted")
		within(t, "it is gone", func() bool { e, ok := b.rec.end(pid); return ok && e.How == Exited })
		ctr("containers", "rm", "deleted")

		run("terminated")
		ctr("task", "kill", "-s", "TERM", "terminated") // process 1 of its namespace ignores it
		silent("terminated")
		must(t, c.Remove("default", "terminated"))
	})
}

// atShell reports whether pid is in a tracing stop with the program in place.
func atShell(pid int) bool {
	args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return state(pid) == 't' && strings.HasPrefix(string(args), "sh\x00-c\x00")
}
