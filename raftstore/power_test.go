package raftstore

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"stellar.io/stellar/internal/testx/faultfs"
	"stellar.io/stellar/internal/testx/faults"
	"stellar.io/stellar/ipam"
)

// failingDisk is a disk that fails, with a store on it. A process of its own uses the
// store, for this one serves the disk.
type failingDisk struct {
	*faultfs.Disk
	t       *testing.T
	backing string // the same files without the faults
	at      string

	child *exec.Cmd
	read  sync.WaitGroup

	mu      sync.Mutex // guards the block
	acked   map[int]bool
	refused int
}

func newFailingDisk(t *testing.T) *failingDisk {
	t.Helper()
	dir := t.TempDir()
	d := &failingDisk{t: t, backing: filepath.Join(dir, "backing"), at: filepath.Join(dir, "disk"), acked: map[int]bool{}}
	if err := errors.Join(os.Mkdir(d.backing, 0o700), os.Mkdir(d.at, 0o700)); err != nil {
		t.Fatal(err)
	}
	mustInit(t, testConfig(d.backing))
	var err error
	if d.Disk, err = faultfs.Mount(d.backing, d.at); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.kill()
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// run starts a process that proposes without end.
func (d *failingDisk) run(env ...string) {
	d.t.Helper()
	d.child = exec.Command(os.Args[0], "-test.run=^$")
	d.child.Env = append(append(os.Environ(), crashDirEnv+"="+d.at), env...)
	d.child.Stderr = os.Stderr
	out, err := d.child.StdoutPipe()
	if err == nil {
		err = d.child.Start()
	}
	if err != nil {
		d.t.Fatal(err)
	}
	d.read.Go(func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			i, err := strconv.Atoi(lines.Text())
			d.mu.Lock()
			if err == nil {
				d.acked[i] = true
			} else {
				d.refused++
			}
			d.mu.Unlock()
		}
	})
}

// kill ends the process and reads what it acknowledged before it died.
func (d *failingDisk) kill() {
	if d.child == nil {
		return
	}
	_ = d.child.Process.Kill()
	d.read.Wait()
	_ = d.child.Wait()
	d.child = nil
}

// count returns how many proposals were acknowledged and how many were not.
func (d *failingDisk) count() (acked, refused int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.acked), d.refused
}

// more waits until so many more proposals were acknowledged.
func (d *failingDisk) more(n int) {
	d.t.Helper()
	before, _ := d.count()
	waitIn(d.t, 20*time.Second, func() bool {
		now, _ := d.count()
		return now >= before+n
	})
}

// wantAll fails the test unless the store has all that was acknowledged.
func (d *failingDisk) wantAll(when string) {
	d.t.Helper()
	r := mustRun(d.t, testConfig(d.backing))
	sub := testSubnet(d.t, r.Store)
	r.View(func(s *ipam.State) {
		for i := range d.acked {
			if l, ok := s.LeaseByOwner(owner(strconv.Itoa(i))); !ok || l.Addr != bind(sub, i, "").Addr {
				d.t.Fatalf("%s: of %d acknowledged leases %d is lost: %+v", when, len(d.acked), i, l)
			}
		}
	})
	r.mustStop(d.t)
}

// TestFaultPowerLossStore: a store alone, without a journal or a peer that could make up
// for it, has all that it acknowledged after each loss of power, whichever of the pages
// that were not fsynced have survived.
func TestFaultPowerLossStore(t *testing.T) {
	rng := rand.New(rand.NewPCG(faults.Seed(t, "./raftstore"), 0))
	d := newFailingDisk(t)
	cuts, each := 20, 30
	if faults.Long() {
		cuts, each = 100, 5 // the subnet has room for 1,000
	}
	for cut := range cuts {
		d.run()
		d.more(1 + rng.IntN(each))
		d.kill()
		survive := float64(cut%3) / 2
		if err := d.PowerCut(rng, survive); err != nil {
			t.Fatal(err)
		}
		d.wantAll(fmt.Sprintf("power cut %d, %v of what was not fsynced survives", cut+1, survive))
		if err := d.Settle(); err != nil { // that look was at the files themselves
			t.Fatal(err)
		}
	}
	acked, _ := d.count()
	faults.Report(t, faults.InProcess, "power loss, a store alone", "%d power cuts, %d acknowledged: 0 lost", cuts, acked)
}

// TestFaultFailingDiskStore: a store alone, whose writes and fsyncs fail for a while, goes
// on without a restart when they no longer do, and has lost nothing.
func TestFaultFailingDiskStore(t *testing.T) {
	d := newFailingDisk(t)
	d.run(crashStubbornEnv + "=1")
	d.more(5)
	fails := []func(){
		func() { d.FailWrites(syscall.ENOSPC) }, func() { d.FailSyncs(syscall.EIO) }, func() { d.FailWrites(syscall.EROFS) },
	}
	rounds := 1
	if faults.Long() {
		rounds = 10
	}
	for range rounds {
		for _, fail := range fails {
			_, before := d.count()
			fail()
			waitIn(t, 20*time.Second, func() bool { _, now := d.count(); return now > before })
			d.Heal()
			d.more(5)
		}
	}
	d.kill()
	d.wantAll("after all")
	acked, refused := d.count()
	faults.Report(t, faults.InProcess, "disk full, read-only, fsync fails: a store alone", "%d times, %d proposals refused, %d acknowledged: 0 lost", rounds*len(fails), refused, acked)
}
