package faultfs

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	ffs "github.com/hanwen/go-fuse/v2/fs"
	"golang.org/x/sys/unix"
)

// Settle takes all that the directory holds for durable: after somebody has changed what
// lies behind the disk.
func (d *Disk) Settle() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.durable, d.names = map[uint64][]byte{}, map[string]map[string]entry{}
	return filepath.WalkDir(d.backing, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			return d.keepNames(path)
		}
		if !e.Type().IsRegular() {
			return nil
		}
		return d.keepContents(path)
	})
}

// keepContents makes the contents of a file durable. The caller holds d.mu.
func (d *Disk) keepContents(path string) error {
	ino, err := inode(path)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	d.durable[ino] = data
	return nil
}

// keepNames makes the names in a directory durable. The caller holds d.mu.
func (d *Disk) keepNames(dir string) error {
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	rel, err := filepath.Rel(d.backing, dir)
	if err != nil {
		return err
	}
	names := map[string]entry{}
	for _, e := range list {
		ino, err := inode(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		names[e.Name()] = entry{ino, e.IsDir()}
	}
	d.names[rel] = names
	return nil
}

func inode(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return 0, err
	}
	return st.Ino, nil
}

// fsync does what the kernel asks for, or what the faults say.
func (d *Disk) fsync(path string, keep func(string) error) syscall.Errno {
	d.mu.Lock()
	fail, stall, hang := d.sync, d.stall, d.hang
	d.mu.Unlock()
	if stall > 0 {
		time.Sleep(stall)
	}
	if hang != nil {
		<-hang // not ended by a signal: a disk does not know them
	}
	if fail != 0 {
		return fail
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.syncs++
	if err := keep(path); err != nil && !errors.Is(err, fs.ErrNotExist) { // an open file without a name is lost in any case
		return ffs.ToErrno(err)
	}
	return 0
}

// PowerCut takes away what is not durable; of the pages of files that were written and
// not fsynced each survives with the chance that survive says. Nobody may be using the
// disk.
func (d *Disk) PowerCut(r *rand.Rand, survive float64) error {
	if err := d.revert(r, survive); err != nil {
		return err
	}
	return d.Settle()
}

func (d *Disk) revert(r *rand.Rand, survive float64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := map[uint64][]byte{}
	err := filepath.WalkDir(d.backing, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		ino, err := inode(path)
		if err != nil {
			return err
		}
		now[ino], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		return err
	}
	list, err := os.ReadDir(d.backing)
	if err != nil {
		return err
	}
	for _, e := range list {
		if err := os.RemoveAll(filepath.Join(d.backing, e.Name())); err != nil {
			return err
		}
	}
	return d.restore(".", func(ino uint64) []byte { return torn(d.durable[ino], now[ino], r, survive) })
}

// restore makes the durable names below a directory, with the contents that they have.
// The names of a directory that was renamed are found under its old path alone, so a
// directory whose own fsync is missing under its name is empty.
func (d *Disk) restore(rel string, contents func(uint64) []byte) error {
	for name, e := range d.names[rel] {
		path := filepath.Join(d.backing, rel, name)
		if !e.dir {
			if err := os.WriteFile(path, contents(e.ino), 0o600); err != nil {
				return err
			}
			continue
		}
		if err := os.Mkdir(path, 0o700); err != nil {
			return err
		}
		if err := d.restore(filepath.Join(rel, name), contents); err != nil {
			return err
		}
	}
	return nil
}

// pageSize is what a disk writes as a whole.
const pageSize = 4096

// torn returns the durable contents with some of the pages that were written since.
func torn(durable, now []byte, r *rand.Rand, survive float64) []byte {
	out := append([]byte(nil), durable...)
	for at := 0; at < len(now); at += pageSize {
		end := min(at+pageSize, len(now))
		if r.Float64() >= survive {
			continue
		}
		if end > len(out) {
			out = append(out, make([]byte, end-len(out))...)
		}
		copy(out[at:end], now[at:end])
	}
	return out
}

// moved keeps the durable names of a directory, and of those below it, at its new path
// too: where it is found after a loss of power is for its parents' names to say.
func (d *Disk) moved(from, to string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for rel, names := range d.names {
		below, err := filepath.Rel(from, rel)
		if err == nil && (below == "." || filepath.IsLocal(below)) {
			d.names[filepath.Join(to, below)] = names
		}
	}
}

// bury keeps a file that is about to lose its name, so that no other gets its inode
// before the loss is durable.
func (d *Disk) bury(path string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.gone++
	_ = os.Link(path, filepath.Join(d.graveyard(), strconv.Itoa(d.gone))) // there may be none, or a directory
}

func (d *Disk) graveyard() string { return d.backing + ".gone" }
