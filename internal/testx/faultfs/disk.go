// Package faultfs is a disk that fails: a FUSE file system over a directory, in which
// fsync stalls, hangs or fails, writes find no room, and a loss of power takes away all
// that was not fsynced. It is for tests.
//
// What is durable is the contents that a file had at its last fsync, under the names
// that its directory had at its last fsync. Everything else is lost when the power is
// cut, or survives in part: a disk may have written any of the pages on its own.
package faultfs

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	ffs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Disk is a mounted disk. All methods are safe for concurrent use. Its zero faults are
// none.
type Disk struct {
	backing string
	server  *fuse.Server

	mu      sync.Mutex // guards the block
	write   syscall.Errno
	sync    syscall.Errno
	stall   time.Duration
	hang    chan struct{} // closed when the disk answers again; nil: it does
	syncs   int
	durable map[uint64][]byte           // contents by inode, of the last fsync
	names   map[string]map[string]entry // directory → name → what it is, of the last fsync
	gone    int                         // files without a name that are kept
}

type entry struct {
	ino uint64
	dir bool
}

// Mount makes a disk whose files lie in backing, and mounts it at dir. Both exist.
// What backing holds is durable.
func Mount(backing, dir string) (*Disk, error) {
	d := &Disk{backing: backing}
	if err := errors.Join(os.Mkdir(d.graveyard(), 0o700), d.Settle()); err != nil {
		return nil, err
	}
	var st syscall.Stat_t
	if err := syscall.Stat(backing, &st); err != nil {
		return nil, err
	}
	root := &ffs.LoopbackRoot{Path: backing, Dev: uint64(st.Dev)}
	top := &node{LoopbackNode: &ffs.LoopbackNode{RootData: root}, disk: d}
	root.RootNode = top
	never := time.Duration(0)
	server, err := ffs.Mount(dir, top, &ffs.Options{
		EntryTimeout: &never, AttrTimeout: &never, NegativeTimeout: &never,
		MountOptions: fuse.MountOptions{DirectMountStrict: true, FsName: "faultfs", Name: "faultfs", DisableXAttrs: true},
	})
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", dir, err)
	}
	d.server = server
	if err := closeOnExec(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// closeOnExec keeps programs that are started from now on from inheriting the kernel's
// end of a disk, which the library leaves open to them: when this process is killed, the
// disk must end with it, and what waits for it.
func closeOnExec() error {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range list {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && to == "/dev/fuse" {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}

// Close lets everything go on and unmounts the disk, which nobody may be using. The
// directory of what lost its name stays beside the backing one, with ".gone".
func (d *Disk) Close() error {
	d.Heal()
	var err error
	for range 50 {
		if err = d.server.Unmount(); err == nil {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return err
}

// FailWrites has everything that needs room fail with err: 0 ends that.
func (d *Disk) FailWrites(err syscall.Errno) { d.set(func() { d.write = err }) }

// FailSyncs has every fsync fail with err: 0 ends that.
func (d *Disk) FailSyncs(err syscall.Errno) { d.set(func() { d.sync = err }) }

// StallSyncs has every fsync take longer by so much.
func (d *Disk) StallSyncs(by time.Duration) { d.set(func() { d.stall = by }) }

// Hang has every fsync hang until Heal.
func (d *Disk) Hang() {
	d.set(func() {
		if d.hang == nil {
			d.hang = make(chan struct{})
		}
	})
}

// Heal ends all faults. What hung goes on.
func (d *Disk) Heal() {
	d.set(func() {
		d.write, d.sync, d.stall = 0, 0, 0
		if d.hang != nil {
			close(d.hang)
			d.hang = nil
		}
	})
}

// Syncs returns how many fsyncs have succeeded.
func (d *Disk) Syncs() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.syncs
}

func (d *Disk) set(fn func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fn()
}

func (d *Disk) room() syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.write
}
