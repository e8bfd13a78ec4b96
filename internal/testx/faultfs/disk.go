// Package faultfs is a disk that fails: a FUSE file system over a directory, in which
// fsync stalls, hangs or fails, writes find no room, and a loss of power takes away all
// that was not fsynced. It is for tests.
//
// What is durable is the contents that a file had at its last fsync, under the names
// that its directory had at its last fsync. Everything else is lost when the power is
// cut, or survives in part: a disk may have written any of the pages on its own.
package faultfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
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
	if err := errors.Join(os.Mkdir(d.graveyard(), 0o700), d.settle()); err != nil {
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

// settle takes all that the directory holds for durable.
func (d *Disk) settle() error {
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
	return d.settle()
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

// node is a file or directory of the disk.
type node struct {
	*ffs.LoopbackNode
	disk *Disk
}

var (
	_ ffs.NodeOpener      = (*node)(nil)
	_ ffs.NodeWrapChilder = (*node)(nil)
	_ ffs.NodeCreater     = (*node)(nil)
	_ ffs.NodeFsyncer     = (*node)(nil)
	_ ffs.NodeMkdirer     = (*node)(nil)
	_ ffs.NodeUnlinker    = (*node)(nil)
	_ ffs.NodeRenamer     = (*node)(nil)
	_ ffs.NodeSetattrer   = (*node)(nil)
)

// WrapChild implements fs.NodeWrapChilder.
func (n *node) WrapChild(_ context.Context, ops ffs.InodeEmbedder) ffs.InodeEmbedder {
	return &node{LoopbackNode: ops.(*ffs.LoopbackNode), disk: n.disk}
}

func (n *node) at() string { return filepath.Join(n.RootData.Path, n.Path(n.Root())) }

// Open implements fs.NodeOpener.
func (n *node) Open(ctx context.Context, flags uint32) (ffs.FileHandle, uint32, syscall.Errno) {
	f, fuseFlags, errno := n.LoopbackNode.Open(ctx, flags)
	return n.wrap(f), fuseFlags, errno
}

// Create implements fs.NodeCreater.
func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*ffs.Inode, ffs.FileHandle, uint32, syscall.Errno) {
	if errno := n.disk.room(); errno != 0 {
		return nil, nil, 0, errno
	}
	child, f, fuseFlags, errno := n.LoopbackNode.Create(ctx, name, flags, mode, out)
	if errno == 0 {
		f = child.Operations().(*node).wrap(f)
	}
	return child, f, fuseFlags, errno
}

func (n *node) wrap(f ffs.FileHandle) ffs.FileHandle {
	if l, ok := f.(*ffs.LoopbackFile); ok {
		return &file{LoopbackFile: l, disk: n.disk}
	}
	return f
}

// Fsync implements fs.NodeFsyncer, for files and directories.
func (n *node) Fsync(context.Context, ffs.FileHandle, uint32) syscall.Errno {
	path := n.at()
	if n.IsDir() {
		return n.disk.fsync(path, n.disk.keepNames)
	}
	return n.disk.fsync(path, n.disk.keepContents)
}

// OpendirHandle implements fs.NodeOpendirHandler.
func (n *node) OpendirHandle(ctx context.Context, flags uint32) (ffs.FileHandle, uint32, syscall.Errno) {
	h, fuseFlags, errno := n.LoopbackNode.OpendirHandle(ctx, flags)
	if d, ok := h.(directory); ok {
		h = &openDir{d, n}
	}
	return h, fuseFlags, errno
}

// directory is what an open directory can do.
type directory interface {
	ffs.FileReaddirenter
	ffs.FileSeekdirer
	ffs.FileReleasedirer
}

// openDir is an open directory.
type openDir struct {
	directory
	n *node
}

// Fsyncdir implements fs.FileFsyncdirer.
func (d *openDir) Fsyncdir(ctx context.Context, flags uint32) syscall.Errno {
	return d.n.Fsync(ctx, nil, flags)
}

// Mkdir implements fs.NodeMkdirer.
func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*ffs.Inode, syscall.Errno) {
	if errno := n.disk.room(); errno != 0 {
		return nil, errno
	}
	return n.LoopbackNode.Mkdir(ctx, name, mode, out)
}

// Rename implements fs.NodeRenamer. What is durable in a directory stays so under its
// new name.
func (n *node) Rename(ctx context.Context, name string, parent ffs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	n.disk.bury(filepath.Join(n.RootData.Path, parent.EmbeddedInode().Path(n.Root()), newName))
	from := n.Path(n.Root())
	to := parent.EmbeddedInode().Path(n.Root())
	errno := n.LoopbackNode.Rename(ctx, name, parent, newName, flags)
	if errno == 0 {
		n.disk.moved(filepath.Join(from, name), filepath.Join(to, newName))
	}
	return errno
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

// Unlink implements fs.NodeUnlinker.
func (n *node) Unlink(ctx context.Context, name string) syscall.Errno {
	n.disk.bury(filepath.Join(n.at(), name))
	return n.LoopbackNode.Unlink(ctx, name)
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

// Setattr implements fs.NodeSetattrer. Files that grow need room.
func (n *node) Setattr(ctx context.Context, f ffs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if size, ok := in.GetSize(); ok && size > 0 {
		if errno := n.disk.room(); errno != 0 {
			return errno
		}
	}
	if w, ok := f.(*file); ok {
		f = w.LoopbackFile
	}
	return n.LoopbackNode.Setattr(ctx, f, in, out)
}

// Getattr implements fs.NodeGetattrer.
func (n *node) Getattr(ctx context.Context, f ffs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	if w, ok := f.(*file); ok {
		f = w.LoopbackFile
	}
	return n.LoopbackNode.Getattr(ctx, f, out)
}

// file is an open file.
type file struct {
	*ffs.LoopbackFile
	disk *Disk
}

// PassthroughFd implements fs.FilePassthroughFder: the kernel must ask us.
func (f *file) PassthroughFd() (int, bool) { return 0, false }

// Write implements fs.FileWriter.
func (f *file) Write(ctx context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	if errno := f.disk.room(); errno != 0 {
		return 0, errno
	}
	return f.LoopbackFile.Write(ctx, data, off)
}

// Allocate implements fs.FileAllocater.
func (f *file) Allocate(ctx context.Context, off, size uint64, mode uint32) syscall.Errno {
	if errno := f.disk.room(); errno != 0 {
		return errno
	}
	return f.LoopbackFile.Allocate(ctx, off, size, mode)
}
