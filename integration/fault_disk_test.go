package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"stellar.io/stellar/api"
	"stellar.io/stellar/internal/testx/faultfs"
	"stellar.io/stellar/internal/testx/faults"
)

// diskBed is a cluster whose nodes keep their data on disks that fail.
type diskBed struct {
	*faultBed
	disks map[*node]*faultfs.Disk
}

func startDisks(t *testing.T, size int) *diskBed {
	t.Helper()
	b := &diskBed{disks: map[*node]*faultfs.Disk{}}
	b.faultBed = startFaults(t, size, faultOptions{before: func(nodes []*node) {
		for _, n := range nodes {
			b.disks[n] = n.onDisk()
			n.mayLog = "level=ERROR" // what is wrong is said; that nothing panics or races is looked at
		}
	}})
	return b
}

// onDisk puts the node's data directory on a disk that fails, before its agent starts.
func (n *node) onDisk() *faultfs.Disk {
	n.t.Helper()
	backing, data := filepath.Join(n.dir, "disk"), filepath.Join(n.dir, "data")
	if err := errors.Join(os.Mkdir(backing, 0o700), os.Mkdir(data, 0o700)); err != nil {
		n.t.Fatal(err)
	}
	d, err := faultfs.Mount(backing, data)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		d.Heal()
		n.stopAgent(syscall.SIGTERM)
		if err := d.Close(); err != nil {
			n.t.Error(err)
		}
	})
	return d
}

// reason waits until status has an ERR of that check, and returns what it says.
func (n *node) reason(check string) (reason string) {
	n.t.Helper()
	n.eventually(quiet, "status says what is wrong with the "+check, func() error {
		text, _ := n.run("status", "-o", "json") // its exit code is 5
		var r struct {
			Checks []api.Check
			Item   api.StatusReport
		}
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			return err
		}
		for _, c := range append(r.Checks, r.Item.Checks...) {
			if c.Name == check && c.State == api.Err {
				reason = c.Reason
				return nil
			}
		}
		return errors.New(text)
	})
	return reason
}

// rounds is how often each fault comes.
func rounds() int {
	if faults.Long() {
		return 20
	}
	return 1
}

// TestFaultDiskHang: the leader's disk never answers again. Another leads within 20 s, and
// when the disk answers after all, the node follows, without a restart.
func TestFaultDiskHang(t *testing.T) {
	b := startDisks(t, 3)
	b.load()
	var worst time.Duration
	for range rounds() {
		leader, others := leaderIn(t, b.nodes, b.nodes[0])
		b.disks[leader].Hang()
		begin := time.Now()
		others[0].eventually(time.Minute, "another leader", func() error {
			text, err := others[0].run("raft", "stats", "-o", "json")
			if err != nil {
				return err
			}
			if strings.Contains(text, fmt.Sprintf(`"leader": %q`, leader.name)) || strings.Contains(text, `"leader": ""`) {
				return errors.New(text)
			}
			return nil
		})
		worst = max(worst, time.Since(begin))
		if why := leader.reason("store"); !strings.Contains(why, "has not answered") {
			t.Errorf("status: %s", why)
		}
		b.disks[leader].Heal()
		b.settled()
	}
	if worst > 20*time.Second {
		t.Errorf("a new leader after %s", worst)
	}
	faults.Report(t, faults.Both, "fsync hangs on the leader", "%d times, a new leader within %s: %s", rounds(), worst.Round(100*time.Millisecond), b.finish())
}

// TestFaultDiskTrouble: slow, full and failing disks, of the leader, of a follower, of
// all. When they are well again everything goes on, without a restart.
func TestFaultDiskTrouble(t *testing.T) {
	b := startDisks(t, 3)
	b.load()
	leader := func() []*node {
		l, _ := leaderIn(t, b.nodes, b.nodes[0])
		return []*node{l}
	}
	follower := func() []*node {
		_, others := leaderIn(t, b.nodes, b.nodes[0])
		return others[:1]
	}
	all := func() []*node { return b.nodes }
	for range rounds() {
		for _, c := range []struct {
			what  string
			on    func() []*node
			fault func(*faultfs.Disk)
			says  string // what status says of the store; "": nothing
		}{
			{"stall", leader, func(d *faultfs.Disk) { d.StallSyncs(2 * time.Second) }, ""},
			{"full leader", leader, func(d *faultfs.Disk) { d.FailWrites(syscall.ENOSPC) }, "no space left"},
			{"full follower", follower, func(d *faultfs.Disk) { d.FailWrites(syscall.ENOSPC) }, "no space left"},
			{"all full", all, func(d *faultfs.Disk) { d.FailWrites(syscall.ENOSPC) }, "no space left"},
			{"fsync fails", leader, func(d *faultfs.Disk) { d.FailSyncs(syscall.EIO) }, "input/output error"},
		} {
			nodes := c.on()
			for _, n := range nodes {
				c.fault(b.disks[n])
			}
			time.Sleep(4 * time.Second)
			for _, n := range nodes {
				if c.says == "" {
					continue
				}
				if why := n.reason("store"); !strings.Contains(why, c.says) && !strings.Contains(why, "has not answered") {
					t.Errorf("%s: status: %s", c.what, why)
				}
			}
			for _, n := range nodes {
				b.disks[n].Heal()
			}
			b.settled()
		}
	}
	faults.Report(t, faults.Both, "fsync takes 2 s; disk full on leader, follower, all; fsync fails", "%d times each: %s", rounds(), b.finish())
}

// TestFaultPowerLoss: the power of one node, and of all at once, fails: what was not
// fsynced is gone, some of the pages that were written excepted.
func TestFaultPowerLoss(t *testing.T) {
	b := startDisks(t, 3)
	b.load()
	cuts := 0
	for range rounds() {
		some := func() float64 { return float64(b.rng.IntN(3)) / 2 }
		for _, cut := range []struct {
			nodes   []*node
			survive float64 // the chance of a page that was not fsynced
		}{
			{[]*node{b.nodes[b.rng.IntN(3)]}, some()}, {[]*node{b.nodes[b.rng.IntN(3)]}, some()},
			{b.nodes, 0}, {b.nodes, some()},
		} {
			time.Sleep(b.upTo(2 * time.Second))
			for _, n := range cut.nodes {
				_ = n.stopAgent(syscall.SIGKILL)
			}
			for _, n := range cut.nodes {
				if err := b.disks[n].PowerCut(b.rng, cut.survive); err != nil {
					t.Fatal(err)
				}
				cuts++
				n.startAgent()
			}
			b.settled()
		}
	}
	faults.Report(t, faults.Both, "power loss, 3 nodes: un-fsynced writes lost, torn pages", "%d power cuts: %s", cuts, b.finish())
}

// TestFaultDiskAlone: one node alone has nobody to go on without it: it waits for its
// disk, loses nothing over losses of power, and leads again without a restart.
func TestFaultDiskAlone(t *testing.T) {
	b := startDisks(t, 1)
	b.load()
	n := b.nodes[0]
	cuts := 0
	for range rounds() {
		for range 5 {
			time.Sleep(b.upTo(2 * time.Second))
			_ = n.stopAgent(syscall.SIGKILL)
			if err := b.disks[n].PowerCut(b.rng, float64(b.rng.IntN(3))/2); err != nil {
				t.Fatal(err)
			}
			cuts++
			n.startAgent()
			b.settled()
		}
		for _, fault := range []func(*faultfs.Disk){
			func(d *faultfs.Disk) { d.FailWrites(syscall.ENOSPC) },
			func(d *faultfs.Disk) { d.FailWrites(syscall.EROFS) },
			func(d *faultfs.Disk) { d.FailSyncs(syscall.EIO) },
			func(d *faultfs.Disk) { d.Hang() },
		} {
			fault(b.disks[n])
			n.reason("store")
			time.Sleep(3 * time.Second) // it wants to be elected again, in a term that it cannot store
			b.disks[n].Heal()
			b.settled()
		}
	}
	faults.Report(t, faults.Both, "one node: power loss, full, read-only, failing and hanging disk", "%d power cuts, %d times each: %s", cuts, rounds(), b.finish())
}

// TestFaultTmpfsFull: a real file system without room under the data of one node of
// three, and then with room again.
func TestFaultTmpfsFull(t *testing.T) {
	var data string
	b := startFaults(t, 3, faultOptions{before: func(nodes []*node) {
		n := nodes[0]
		n.mayLog = "level=ERROR"
		data = filepath.Join(n.dir, "data")
		if err := errors.Join(os.Mkdir(data, 0o700), syscall.Mount("stellar-test", data, "tmpfs", 0, "size=8m,mode=0700")); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			n.stopAgent(syscall.SIGTERM)
			if err := syscall.Unmount(data, 0); err != nil {
				t.Error(err)
			}
		})
	}})
	b.load()
	n := b.nodes[0]
	for range rounds() {
		filler, err := os.Create(filepath.Join(data, "filler"))
		if err != nil {
			t.Fatal(err)
		}
		room := make([]byte, 4096)
		for err == nil {
			_, err = filler.Write(room)
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		if why := n.reason("store"); !strings.Contains(why, "no space left") && !strings.Contains(why, "has not answered") {
			t.Errorf("status: %s", why)
		}
		if err := errors.Join(filler.Close(), os.Remove(filler.Name())); err != nil {
			t.Fatal(err)
		}
		b.settled()
	}
	faults.Report(t, faults.Both, "tmpfs full under the data of one node of 3", "%d times: %s", rounds(), b.finish())
}
