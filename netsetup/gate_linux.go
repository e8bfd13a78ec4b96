package netsetup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/nsx"
	"stellar.io/stellar/internal/procfs"
)

const (
	// nsGetNSType is NS_GET_NSTYPE of linux/nsfs.h: the clone flag of a namespace file.
	nsGetNSType = 0xb703
	// startSlack is allowed between a process's start and the time by which it is
	// said to have run: the kernel counts starts in ticks of 10 ms.
	startSlack = 20 * time.Millisecond
)

// Namespace is a container's network namespace that has passed the gate: it is
// not the host's, and at the time of the check it was that of the process. Only
// OpenPID and OpenPath make one, and no other code reaches into a container.
//
// It answers these real problems: a pid that was reused, so that the host's lo
// was set down (kubernetes#100648, plugins#714, cri-o#2849); host network
// containers; paths from container specs that lead elsewhere. The descriptor
// stays open, so the identity stays valid whatever becomes of the process.
type Namespace struct {
	file  *os.File
	pidfd *os.File // nil when opened by path
	pid   int
	id    NSID
}

// gate knows the namespaces that are refused.
type gate struct {
	// refused are open, so that their identities cannot be given to others.
	refused   []*os.File
	ids       map[NSID]bool
	forbidden func() []int
	// askInitial: each namespace is asked whether it is the kernel's initial one.
	askInitial bool
}

// newGate refuses the namespaces of host, of PID 1 and of the calling thread.
// A hardened machine may forbid to look at PID 1. There the namespace that the
// kernel started with is refused instead: it is the calling thread's, or each
// namespace is asked. (That of PID 1 cannot be opened by its pid then either.)
func newGate(host *os.File, forbidden func() []int) (*gate, error) {
	g := &gate{ids: make(map[NSID]bool), forbidden: forbidden}
	own, err := nsx.Current()
	if err != nil {
		return nil, err
	}
	g.refused = append(g.refused, own)
	init, err := os.Open("/proc/1/ns/net")
	switch {
	case err == nil:
		g.refused = append(g.refused, init)
	case errors.Is(err, os.ErrPermission):
		initial, err := inInitial()
		if err != nil {
			g.close()
			return nil, err
		}
		g.askInitial = !initial
	default:
		g.close()
		return nil, fmt.Errorf("open network namespace of pid 1: %w", err)
	}
	for _, f := range append(g.refused, host) {
		id, err := nsx.IDOf(int(f.Fd()))
		if err != nil {
			g.close()
			return nil, err
		}
		g.ids[id] = true
	}
	return g, nil
}

func (g *gate) close() {
	for _, f := range g.refused {
		f.Close()
	}
}

// check is the gate itself: it returns the identity of an open network namespace
// that is not refused. Any doubt is a refusal.
func (g *gate) check(f *os.File) (NSID, error) {
	fd := int(f.Fd())
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return NSID{}, fmt.Errorf("stat file system of namespace: %w", err)
	}
	if fs.Type != unix.NSFS_MAGIC {
		return NSID{}, ErrNotNamespace
	}
	if kind, err := unix.IoctlRetInt(fd, nsGetNSType); err != nil || kind != unix.CLONE_NEWNET {
		return NSID{}, ErrNotNamespace
	}
	id, err := nsx.IDOf(fd)
	if err != nil {
		return NSID{}, err
	}
	if g.ids[id] {
		return NSID{}, ErrHostNamespace
	}
	if g.askInitial {
		var initial bool
		if err := nsx.Do(fd, func() (err error) { initial, err = inInitial(); return err }); err != nil {
			return NSID{}, err
		}
		if initial {
			return NSID{}, ErrHostNamespace
		}
	}
	for _, pid := range g.forbidden() {
		other, err := os.Open(nsPath(pid))
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EACCES) && exiting(pid) {
			continue
		}
		if err != nil {
			return NSID{}, fmt.Errorf("open network namespace of pid %d: %w", pid, err)
		}
		otherID, err := nsx.IDOf(int(other.Fd()))
		other.Close()
		if err != nil {
			return NSID{}, err
		}
		if otherID == id {
			return NSID{}, ErrHostNamespace
		}
	}
	return id, nil
}

// inInitial reports whether the calling thread is in the network namespace that
// the kernel started with. Only there does the parameter for the receive backlog
// exist; the other one exists everywhere and tells that /proc is to be believed.
func inInitial() (bool, error) {
	if _, err := os.Stat(sysctlRoot + "core/somaxconn"); err != nil {
		return false, fmt.Errorf("recognise the initial network namespace: %w", err)
	}
	_, err := os.Stat(sysctlRoot + "core/netdev_max_backlog")
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func nsPath(pid int) string { return "/proc/" + strconv.Itoa(pid) + "/ns/net" }

// OpenPID opens the network namespace of a process. The process must not have
// started later than startedBefore (zero: unchecked), the time at which the task
// is known to have had this pid; a time with a monotonic reading (time.Now) is
// immune to steps of the clock. The caller closes the Namespace.
//
// Errors: ErrNotNamespace (pid 0 too), ErrProcessGone, ErrPIDReused,
// ErrHostNamespace.
func (n *Network) OpenPID(pid int, startedBefore time.Time) (*Namespace, error) {
	if pid <= 0 {
		return nil, fmt.Errorf("open namespace of pid %d: %w", pid, ErrNotNamespace)
	}
	ns, err := n.gate.openPID(pid, startedBefore)
	if err != nil {
		return nil, fmt.Errorf("open namespace of pid %d: %w", pid, err)
	}
	return ns, nil
}

func (g *gate) openPID(pid int, startedBefore time.Time) (_ *Namespace, err error) {
	// The pidfd comes first and is asked last: if the process still lives then,
	// all that was read by number in between was read from it.
	pidfd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, gone(err)
	}
	ns := &Namespace{pidfd: os.NewFile(uintptr(pidfd), "pidfd"), pid: pid}
	defer func() {
		if err != nil {
			ns.Close()
		}
	}()
	fd, err := unix.Open(nsPath(pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EACCES) && (exiting(pid) || ns.Exited()) {
		// Once its memory is gone, the kernel cannot tell who may look at a process.
		return nil, ErrProcessGone
	}
	if err != nil {
		return nil, gone(err)
	}
	ns.file = os.NewFile(uintptr(fd), nsPath(pid))
	if !startedBefore.IsZero() {
		stat, err := procfs.ReadStat(pid)
		if err != nil {
			return nil, gone(err)
		}
		if stat.StartedAfter(startedBefore.Add(startSlack)) {
			return nil, ErrPIDReused
		}
	}
	if ns.id, err = g.check(ns.file); err != nil {
		return nil, err
	}
	if ns.Exited() {
		return nil, ErrProcessGone
	}
	return ns, nil
}

// exiting reports whether pid is on its way out.
func exiting(pid int) bool {
	stat, err := procfs.ReadStat(pid)
	return err == nil && stat.Exiting || err != nil && errors.Is(gone(err), ErrProcessGone)
}

// gone translates what the kernel says of a process that is no more; a zombie
// has no namespaces.
func gone(err error) error {
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT) {
		return ErrProcessGone
	}
	return err
}

// OpenPath opens the network namespace at path, for example /run/netns/NAME or
// what a container's spec names. A path whose last part is a symbolic link is
// followed only inside /proc (the kernel's own links, as /proc/PID/ns/net); what
// counts is what was opened. The caller closes the Namespace, which has no process.
//
// Errors: ErrNotNamespace, ErrHostNamespace, or those of open(2).
func (n *Network) OpenPath(path string) (*Namespace, error) {
	ns, err := n.gate.openPath(path)
	if err != nil {
		return nil, fmt.Errorf("open namespace %q: %w", path, err)
	}
	return ns, nil
}

func (g *gate) openPath(path string) (*Namespace, error) {
	// O_PATH has no side effects, whatever the path leads to: opening a FIFO
	// would block, opening a device would act.
	probe, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer func() { unix.Close(probe) }()
	var st unix.Stat_t
	if err := unix.Fstat(probe, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		var fs unix.Statfs_t
		if err := unix.Fstatfs(probe, &fs); err != nil {
			return nil, err
		}
		if fs.Type != unix.PROC_SUPER_MAGIC {
			return nil, ErrNotNamespace
		}
		followed, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, gone(err)
		}
		unix.Close(probe)
		probe = followed
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(probe, &fs); err != nil {
		return nil, err
	}
	if fs.Type != unix.NSFS_MAGIC {
		return nil, ErrNotNamespace
	}
	// Opens the very file that was examined, not the path once more.
	fd, err := unix.Open("/proc/thread-self/fd/"+strconv.Itoa(probe), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	ns := &Namespace{file: os.NewFile(uintptr(fd), path)}
	if ns.id, err = g.check(ns.file); err != nil {
		ns.Close()
		return nil, err
	}
	return ns, nil
}

// ID returns the namespace's identity, valid while it is open.
func (ns *Namespace) ID() NSID { return ns.id }

// FD returns the namespace's descriptor, for sockets in it and nsx.Do. It is valid
// until Close, and not to be closed.
func (ns *Namespace) FD() int { return int(ns.file.Fd()) }

// PID returns the process by which the namespace was opened, 0 when by path.
func (ns *Namespace) PID() int { return ns.pid }

// Do runs fn inside the namespace; see nsx.Do. Sockets that fn opens stay there.
func (ns *Namespace) Do(fn func() error) error { return nsx.Do(int(ns.file.Fd()), fn) }

// Exited reports whether the process has exited. A namespace opened by path has
// no process and never exits.
func (ns *Namespace) Exited() bool {
	if ns.pidfd == nil {
		return false
	}
	raw, err := ns.pidfd.SyscallConn()
	if err != nil {
		return true
	}
	exited := true
	if err := raw.Control(func(fd uintptr) { exited = readable(int(fd)) }); err != nil {
		return true
	}
	return exited
}

func readable(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		if !errors.Is(err, unix.EINTR) {
			return err == nil && n > 0
		}
	}
}

// WaitExit blocks until the process has exited (nil) or ctx ends. It costs a
// goroutine and no thread: the runtime's poller watches the pidfd. Without a
// process it waits for ctx. One goroutine waits at a time; Close ends the wait.
func (ns *Namespace) WaitExit(ctx context.Context) error {
	if ns.pidfd == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	if err := ns.pidfd.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("wait for exit of pid %d: %w", ns.pid, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = ns.pidfd.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := ns.pidfd.SyscallConn()
	if err != nil {
		return fmt.Errorf("wait for exit of pid %d: %w", ns.pid, err)
	}
	err = raw.Read(func(fd uintptr) bool { return readable(int(fd)) })
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("wait for exit of pid %d: %w", ns.pid, err)
}

// Parked reports whether the process has not yet executed a program of its own:
// it is still the runtime's init, as forked. It is false for a namespace opened
// by path, and once the process has exited.
func (ns *Namespace) Parked() bool {
	if ns.pidfd == nil {
		return false
	}
	stat, err := procfs.ReadStat(ns.pid)
	return err == nil && stat.ForkedOnly && !ns.Exited()
}

// Close releases the descriptors. It is idempotent.
func (ns *Namespace) Close() error {
	var errs []error
	for _, f := range []*os.File{ns.file, ns.pidfd} {
		if f == nil {
			continue
		}
		if err := f.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
