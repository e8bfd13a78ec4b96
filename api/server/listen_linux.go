package server

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxPath is what fits into sockaddr_un with its terminating zero.
	maxPath = 107
	// probeTimeout bounds the test whether somebody listens on a socket.
	probeTimeout = time.Second
	// noGroup stands for "no group is let in".
	noGroup = -1
)

// Listener is the local socket. Each connection it accepts carries who the peer
// is and whether it may call.
type Listener struct {
	*net.UnixListener
	path string
	gid  int // members may call; noGroup: none
	id   os.FileInfo

	closeOnce sync.Once
	closeErr  error
}

// Listen makes the socket at path: mode 0660 and the given group if that group
// exists, else mode 0600. Missing directories are made, 0755. It replaces
// nothing but a socket of this very user on which nobody listens: ErrInUse when
// somebody does, another error for a symbolic link, any other kind of file, and
// a directory in which others could swap the socket.
func Listen(path, group string) (*Listener, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("socket path %q is not absolute", path)
	}
	if len(path) > maxPath {
		return nil, fmt.Errorf("socket path %s has %d bytes, the kernel takes %d", path, len(path), maxPath)
	}
	gid, err := lookupGroup(group)
	if err != nil {
		return nil, err
	}
	if err := prepareDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false) // Close does it, and looks first
	out := &Listener{UnixListener: l, path: path, gid: gid}
	if err := out.guard(); err != nil {
		return nil, errors.Join(err, out.Close())
	}
	return out, nil
}

// guard sets owner and mode. Whoever connects before that is judged by his
// credentials all the same.
func (l *Listener) guard() error {
	id, err := os.Lstat(l.path)
	if err != nil {
		return fmt.Errorf("look at the socket: %w", err)
	}
	l.id = id
	mode := fs.FileMode(0o600)
	if l.gid != noGroup {
		mode = 0o660
		if err := os.Lchown(l.path, -1, l.gid); err != nil {
			return fmt.Errorf("give the socket to its group: %w", err)
		}
	}
	if err := os.Chmod(l.path, mode); err != nil {
		return fmt.Errorf("set the mode of the socket: %w", err)
	}
	return nil
}

// lookupGroup returns the group's id, or noGroup when it does not exist.
func lookupGroup(name string) (int, error) {
	if name == "" {
		return noGroup, nil
	}
	g, err := user.LookupGroup(name)
	if errors.As(err, new(user.UnknownGroupError)) {
		return noGroup, nil
	}
	if err != nil {
		return 0, fmt.Errorf("look up group %s: %w", name, err)
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return 0, fmt.Errorf("group %s has id %q: %w", name, g.Gid, err)
	}
	return gid, nil
}

// prepareDir makes the directory and refuses one in which somebody else than
// root and this user could replace the socket.
func prepareDir(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the socket's directory: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("look at the socket's directory: %w", err)
	}
	st := info.Sys().(*syscall.Stat_t)
	if st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("socket directory %s belongs to uid %d, neither root nor this process", dir, st.Uid)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("socket directory %s is writable by others (mode %04o)", dir, info.Mode().Perm())
	}
	return nil
}

// removeStale removes a socket that an earlier run of this user left behind.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at the old socket: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s exists and is not a socket (%s); it is left alone", path, info.Mode().Type())
	}
	if uid := info.Sys().(*syscall.Stat_t).Uid; int(uid) != os.Geteuid() {
		return fmt.Errorf("socket %s belongs to uid %d; it is left alone", path, uid)
	}
	c, err := net.DialTimeout("unix", path, probeTimeout)
	if err == nil {
		c.Close()
		return fmt.Errorf("socket %s: %w", path, ErrInUse)
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("socket %s: cannot tell whether it is in use: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the stale socket: %w", err)
	}
	return nil
}

// Accept waits for a connection and notes who is at its other end.
func (l *Listener) Accept() (net.Conn, error) {
	c, err := l.AcceptUnix()
	if err != nil {
		return nil, err
	}
	// A peer whose credentials cannot be read is nobody, and not allowed.
	return &peerConn{UnixConn: c, peer: readPeer(c, l.gid)}, nil
}

// Path returns where the socket is.
func (l *Listener) Path() string { return l.path }

// Close stops listening and removes the socket if it is still this one. It may
// be called more than once.
func (l *Listener) Close() error {
	l.closeOnce.Do(func() {
		if l.id != nil {
			if now, err := os.Lstat(l.path); err == nil && os.SameFile(now, l.id) {
				l.closeErr = os.Remove(l.path)
			}
		}
		if err := l.UnixListener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			l.closeErr = errors.Join(l.closeErr, err)
		}
	})
	return l.closeErr
}
