package hold

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// taskDir is the plugin directory below a state directory with containerd's
	// bundles, of 1.x and 2.x alike.
	taskDir = "io.containerd.runtime.v2.task"
	// pidFile is what the shim has the runtime write when its init is parked: runc
	// renames a finished file into place, crun writes it in place.
	pidFile = "init.pid"

	// retryEvery is how often watching is tried again where it failed.
	retryEvery = time.Second

	// watchEntries report what comes into being in a directory.
	watchEntries = unix.IN_CREATE | unix.IN_MOVED_TO
	// watchFiles report files that are complete.
	watchFiles = unix.IN_MOVED_TO | unix.IN_CLOSE_WRITE
)

// bundle is the directory of a container's task.
func bundle(root string, k Key) string {
	return filepath.Join(root, taskDir, k.Namespace, k.ID)
}

// watcher is the inotify part of the loop. It watches, of each root: the directory
// of the namespaces (or, as long as there is none, what exists of the way to it),
// the namespaces with armed containers, and their bundles until their init was
// seen. After a watch is set, what it would have reported is looked for, so
// nothing that came before is missed.
type watcher struct {
	l       *loop
	fd      int // -1: inotify does not work
	roots   []string
	paths   map[string]int // watched directories
	names   map[int]string
	anchors map[string]string // by root: the directory watched for it
	retryAt time.Time         // zero: all is watched
	buf     []byte
}

func newWatcher(l *loop) *watcher {
	return &watcher{l: l, fd: -1, paths: make(map[string]int), names: make(map[int]string), anchors: make(map[string]string), buf: make([]byte, 64<<10)}
}

func newInotify() (int, error) { return unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK) }

// open begins to watch everything.
func (w *watcher) open(roots []string) {
	w.roots = roots
	w.rescan()
}

func (w *watcher) close() {
	if w.fd >= 0 {
		unix.Close(w.fd)
		w.fd = -1
	}
	w.retryAt = time.Time{}
}

// rescan sets all watches anew and looks at all armed containers.
func (w *watcher) rescan() {
	w.retryAt = time.Time{}
	if w.fd < 0 {
		fd, err := w.l.h.newInotify()
		if err != nil {
			w.failed(fmt.Errorf("inotify: %w", err))
		} else {
			w.fd = fd
		}
	}
	for _, root := range w.roots {
		w.anchor(root)
	}
	for namespace, ids := range w.l.armed {
		for id := range ids {
			w.follow(Key{Namespace: namespace, ID: id})
		}
	}
	if w.retryAt.IsZero() {
		w.l.h.setReason(&w.l.h.blind, "")
	}
}

// retry tries again what failed.
func (w *watcher) retry(now time.Time) {
	if !w.retryAt.IsZero() && !now.Before(w.retryAt) {
		w.rescan()
	}
}

func (w *watcher) failed(err error) {
	w.retryAt = time.Now().Add(retryEvery)
	w.l.h.setReason(&w.l.h.blind, err.Error()+"; containers are held when their event comes, which is less certain")
}

func (w *watcher) addRoot(root string) {
	if slices.Contains(w.roots, root) {
		return
	}
	w.roots = append(w.roots, root)
	w.anchor(root)
	for namespace, ids := range w.l.armed {
		for id := range ids {
			w.followIn(root, Key{Namespace: namespace, ID: id})
		}
	}
}

// anchor watches the directory of root's namespaces, or the nearest above it that
// exists. What appears below a watched directory is reported, so the way down is
// tried again after each step, until it does not lead further.
func (w *watcher) anchor(root string) {
	path := filepath.Join(root, taskDir)
	for {
		found := w.deepest(path)
		last := w.anchors[root]
		w.anchors[root] = found
		if last != "" && !w.isAnchor(last) {
			w.drop(last)
		}
		if found == path || found == last {
			return
		}
	}
}

// deepest watches the deepest directory that exists on the way to path; "" if none
// can be watched.
func (w *watcher) deepest(path string) string {
	for p := path; ; p = filepath.Dir(p) {
		if w.add(p, watchEntries) {
			return p
		}
		if p == "/" {
			return ""
		}
	}
}

func (w *watcher) isAnchor(path string) bool {
	for _, p := range w.anchors {
		if p == path {
			return true
		}
	}
	return false
}

// follow watches the way to k's init in every root, as far as there is one.
func (w *watcher) follow(k Key) {
	for _, root := range w.roots {
		w.followIn(root, k)
	}
}

func (w *watcher) followIn(root string, k Key) {
	dir := bundle(root, k)
	seen := w.add(filepath.Dir(dir), watchEntries) && w.add(dir, watchFiles)
	if seen || w.fd < 0 || !w.retryAt.IsZero() {
		w.settle(dir, w.l.look(k, dir, chance{}))
	}
}

// settle stops watching a bundle in which nothing more is to come.
func (w *watcher) settle(dir string, settled bool) {
	if settled {
		w.drop(dir)
	}
}

// forget ends the watches of a container that is no longer armed.
func (w *watcher) forget(k Key) {
	for _, root := range w.roots {
		dir := bundle(root, k)
		w.drop(dir)
		if w.l.armed[k.Namespace] == nil {
			w.drop(filepath.Dir(dir))
		}
	}
}

// add watches a directory; false if it is not there (or cannot be watched, which
// is reported and tried again).
func (w *watcher) add(path string, mask uint32) bool {
	if w.fd < 0 {
		return false
	}
	wd, err := unix.InotifyAddWatch(w.fd, path, mask|unix.IN_ONLYDIR|unix.IN_MOVE_SELF|unix.IN_MASK_ADD)
	switch {
	case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR):
		return false
	case err != nil:
		w.failed(fmt.Errorf("watch %s: %w", path, err))
		return false
	}
	w.paths[path] = wd
	w.names[wd] = path
	return true
}

// drop ends the watch of a directory, if there is one.
func (w *watcher) drop(path string) {
	if wd, ok := w.paths[path]; ok {
		delete(w.paths, path)
		delete(w.names, wd)
		_, _ = unix.InotifyRmWatch(w.fd, uint32(wd)) // gone with its directory: fine
	}
}

// read handles what inotify reports, until there is no more.
func (w *watcher) read() {
	for w.fd >= 0 {
		n, err := unix.Read(w.fd, w.buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n <= 0 {
			return
		}
		for rest := w.buf[:n]; len(rest) >= unix.SizeofInotifyEvent; {
			wd := int(int32(binary.NativeEndian.Uint32(rest)))
			mask := binary.NativeEndian.Uint32(rest[4:])
			end := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(rest[12:]))
			name, _, _ := bytes.Cut(rest[unix.SizeofInotifyEvent:end], []byte{0})
			w.event(wd, mask, string(name))
			rest = rest[end:]
		}
	}
}

func (w *watcher) event(wd int, mask uint32, name string) {
	if mask&unix.IN_Q_OVERFLOW != 0 {
		w.rescan()
		return
	}
	dir, ok := w.names[wd]
	if !ok {
		return // of a watch that was dropped
	}
	if mask&(unix.IN_IGNORED|unix.IN_MOVE_SELF|unix.IN_UNMOUNT) != 0 {
		w.gone(wd, dir, mask)
		return
	}
	for _, root := range w.roots {
		w.inRoot(root, dir, name)
	}
}

// gone handles that a watched directory was removed or renamed.
func (w *watcher) gone(wd int, dir string, mask uint32) {
	if mask&unix.IN_MOVE_SELF != 0 {
		_, _ = unix.InotifyRmWatch(w.fd, uint32(wd))
	}
	delete(w.names, wd)
	if w.paths[dir] != wd {
		return // another directory has its name already, and is watched
	}
	delete(w.paths, dir)
	for root, anchor := range w.anchors {
		if anchor == dir {
			w.anchor(root)
			w.followAll(root, "")
		}
	}
}

// inRoot handles that something called name has appeared in dir.
func (w *watcher) inRoot(root, dir, name string) {
	tasks := filepath.Join(root, taskDir)
	switch rest, below := strings.CutPrefix(dir, tasks+"/"); {
	case dir == tasks:
		w.followAll(root, name)
	case below:
		namespace, id, isBundle := strings.Cut(rest, "/")
		if !isBundle {
			k := Key{Namespace: namespace, ID: name}
			if w.l.entry(k) != nil {
				w.l.expect()
				w.followIn(root, k)
			}
		} else if name == pidFile {
			k := Key{Namespace: namespace, ID: id}
			w.settle(dir, w.l.look(k, dir, chance{fresh: true}))
		}
	case w.anchors[root] == dir:
		w.anchor(root)
		w.followAll(root, "")
	}
}

// followAll follows the armed containers of a namespace, or of all.
func (w *watcher) followAll(root, namespace string) {
	for ns, ids := range w.l.armed {
		if namespace != "" && ns != namespace {
			continue
		}
		for id := range ids {
			w.followIn(root, Key{Namespace: ns, ID: id})
		}
	}
}
