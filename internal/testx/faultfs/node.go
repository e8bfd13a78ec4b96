package faultfs

import (
	"context"
	"path/filepath"
	"syscall"

	ffs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

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

// Unlink implements fs.NodeUnlinker.
func (n *node) Unlink(ctx context.Context, name string) syscall.Errno {
	n.disk.bury(filepath.Join(n.at(), name))
	return n.LoopbackNode.Unlink(ctx, name)
}

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
