package netsetup

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/nsx"
)

const (
	manyEndpoints = 4093 // all but one of the addresses of a /20
	manyWorkers   = 8
	peersSampled  = 20
)

// warnings collects what a Network warns of.
type warnings struct {
	slog.Handler
	mu  sync.Mutex
	all []string
}

func (w *warnings) Handle(_ context.Context, r slog.Record) error {
	if r.Level < slog.LevelWarn {
		return nil
	}
	text := r.Message
	r.Attrs(func(a slog.Attr) bool {
		text += " " + a.String()
		return true
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, text)
	return nil
}

// besidesOverruns are the warnings but for those that a reader has been too slow, which
// on a busy machine it may be: all is compared then.
func (w *warnings) besidesOverruns() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(w.all), func(s string) bool { return strings.HasPrefix(s, "notifications lost") })
}

func (w *warnings) Enabled(context.Context, slog.Level) bool { return true }

// TestManyEndpoints: as many endpoints on one node as a /20 has addresses, all of
// them reachable, watched without loss, and idle when nothing happens.
func TestManyEndpoints(t *testing.T) {
	w := &warnings{Handler: slog.DiscardHandler}
	b := newBed(t, routedMode, func(c *Config) {
		c.Network, c.Subnet = netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/20")
		c.Logger = slog.New(w)
		c.OnLost = nil
	})
	var lost atomic.Int64
	b.cfg.OnLost = func(Endpoint) { lost.Add(1) }
	b.n = b.network()
	b.ensure()
	b.run()
	before := resident(t)

	files, specs := manySpecs(t, b, manyEndpoints)
	rates := attachMany(t, b, specs)
	t.Logf("%d attached: the first thousand %.0f/s, the last %.0f/s", len(specs), rates[0], rates[len(rates)-1])
	debug.FreeOSMemory()
	t.Logf("resident: %d MiB before, %d MiB after", before>>20, resident(t)>>20)

	b.lan.Outside.Run(t, "ip", "route", "add", "10.0.0.0/20", "via", "192.0.2.1")
	pinged := map[string]int{"the host": b.host.FD, "outside": b.lan.Outside.FD}
	for i := range peersSampled {
		k := i * (manyEndpoints - 1) / (peersSampled - 1)
		pinged[specs[k].Addr.String()] = int(files[k].Fd())
	}
	for who, ns := range pinged {
		start := time.Now()
		if missing := pingAll(t, ns, specs); len(missing) > 0 {
			t.Errorf("from %s: no answer from %d, the first is %s", who, len(missing), missing[0])
		}
		t.Logf("from %s: all reached in %s", who, time.Since(start).Round(time.Millisecond))
	}

	start := time.Now()
	b.ensure()
	t.Logf("everything compared in %s", time.Since(start).Round(time.Millisecond))
	used := cpuTime()
	time.Sleep(11 * time.Second) // an audit and ten polls
	idle := cpuTime() - used
	t.Logf("idle: %.1f%% of a core", 100*idle.Seconds()/11)
	if idle > 2*time.Second {
		t.Errorf("%s of CPU in 11 s of doing nothing", idle)
	}
	if eps, err := b.n.List(t.Context()); err != nil || len(eps) != manyEndpoints {
		t.Errorf("List = %d, %v", len(eps), err)
	}
	b.quiet()

	// The address that all routes name goes, and the kernel takes them along.
	start = time.Now()
	b.host.Run(t, "ip", "address", "del", "169.254.1.1/32", "dev", "lo")
	eventually(t, 20*time.Second, "all routes", func() error {
		if missing := pingAll(t, b.host.FD, specs); len(missing) > 0 {
			return fmt.Errorf("no answer from %d", len(missing))
		}
		return nil
	})
	t.Logf("all routes lost: restored after %s", time.Since(start).Round(time.Millisecond))

	// Half of them end at the same time.
	ended := manyEndpoints / 2
	start = time.Now()
	for i := range ended {
		specs[i].NS.Close()
		files[i].Close()
	}
	eventually(t, 60*time.Second, "the loss of half", func() error {
		if n := int(lost.Load()); n != ended {
			return fmt.Errorf("%d of %d reported", n, ended)
		}
		return nil
	})
	t.Logf("%d ended: all reported after %s", ended, time.Since(start).Round(time.Millisecond))
	if missing := pingAll(t, b.host.FD, specs[ended:]); len(missing) > 0 {
		t.Errorf("after that, no answer from %d", len(missing))
	}
	if warned := w.besidesOverruns(); len(warned) > 0 {
		t.Errorf("warned of: %q", warned)
	}
}

// manySpecs makes the namespaces, without processes.
func manySpecs(t testing.TB, b *bed, n int) ([]*os.File, []Spec) {
	t.Helper()
	start := time.Now()
	files, specs := make([]*os.File, n), make([]Spec, n)
	addr := b.cfg.Subnet.Addr().Next() // which is the bridge's, if there is one
	for i := range specs {
		var err error
		if files[i], err = nsx.New(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { files[i].Close() })
		ns, err := b.n.OpenPath(fmt.Sprintf("/proc/self/fd/%d", files[i].Fd()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ns.Close() })
		addr = addr.Next()
		specs[i] = Spec{Owner: owner(fmt.Sprint("c", i)), Addr: addr, DefaultRoute: true, NS: ns}
	}
	t.Logf("%d namespaces in %s", len(specs), time.Since(start).Round(time.Millisecond))
	return files, specs
}

// attachMany attaches all and returns the rate of each thousand.
func attachMany(t testing.TB, b *bed, specs []Spec) (rates []float64) {
	t.Helper()
	for first := 0; first < len(specs); first += 1000 {
		part := specs[first:min(first+1000, len(specs))]
		next := make(chan Spec, len(part))
		for _, s := range part {
			next <- s
		}
		close(next)
		start := time.Now()
		var wait sync.WaitGroup
		for range manyWorkers {
			wait.Go(func() {
				for s := range next {
					if _, _, err := b.n.Attach(t.Context(), s); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wait.Wait()
		if t.Failed() {
			t.FailNow()
		}
		if len(part) == 1000 {
			rates = append(rates, 1000/time.Since(start).Seconds())
		}
	}
	return rates
}

// pingAll sends an echo request from a namespace to each, up to three times, and
// returns who has not answered.
func pingAll(t *testing.T, nsfd int, specs []Spec) (missing []netip.Addr) {
	t.Helper()
	fd := -1
	if err := nsx.Do(nsfd, func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	wait := unix.NsecToTimeval((300 * time.Millisecond).Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		t.Fatal(err)
	}
	open := make(map[netip.Addr]bool, len(specs))
	for _, s := range specs {
		open[s.Addr] = true
	}
	request := []byte{8, 0, 0, 0, 0x57, 0x11, 0, 1}
	binary.BigEndian.PutUint16(request[2:], ^uint16(0x0800+0x5711+1))
	b := make([]byte, 1500)
	for range 3 {
		sent := 0
		for _, s := range specs {
			if !open[s.Addr] {
				continue
			}
			err := unix.Sendto(fd, request, 0, &unix.SockaddrInet4{Addr: s.Addr.As4()})
			if err == unix.EHOSTUNREACH {
				continue
			}
			if err != nil {
				t.Fatalf("to %s: %v", s.Addr, err)
			}
			if sent++; sent%50 == 0 || len(open) < 50 { // the socket's buffer holds some hundred
				receiveEchoes(fd, b, open, unix.MSG_DONTWAIT)
			}
		}
		receiveEchoes(fd, b, open, 0)
	}
	for a := range open {
		missing = append(missing, a)
	}
	return missing
}

// receiveEchoes takes who has answered out of open, until nothing comes.
func receiveEchoes(fd int, b []byte, open map[netip.Addr]bool, flags int) {
	for len(open) > 0 {
		n, _, err := unix.Recvfrom(fd, b, flags)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return
		}
		if n >= 28 && b[20] == 0 { // an echo reply behind a header without options
			delete(open, netip.AddrFrom4([4]byte(b[12:16])))
		}
	}
}

func resident(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// cpuTime is what this process has used.
func cpuTime() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
