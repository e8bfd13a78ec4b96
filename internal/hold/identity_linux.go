package hold

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/procfs"
)

// startSlack is what a start time and a file's time may be off: both are kept in
// ticks, of 10 ms at most.
const startSlack = 2 * procfs.Tick

// errNoInit is returned when there is no file or no process to be looked at (yet).
var errNoInit = errors.New("no parked init")

// errDoubt is returned when a process is not certainly the container's init.
var errDoubt = errors.New("not certainly the container's init")

// errOpaque is returned when the kernel does not let us look at a process, which
// takes the same permission as ptrace.
var errOpaque = errors.New("not permitted to look at the init")

// process names a process for ever: a pid and its start in ticks after boot.
type process struct {
	pid   int
	start uint64
}

func named(s procfs.Stat) process { return process{pid: s.PID, start: s.Start} }

// initProcess is a container's init. It is kept apart from a later process of the
// same pid by the pidfd.
type initProcess struct {
	process
	fd       int
	executed bool      // its program runs already; nothing more was checked
	written  time.Time // when init.pid was
}

func (p initProcess) close() { unix.Close(p.fd) }

// exists reports whether the process has the pid still, if only as a zombie.
func (p initProcess) exists() bool {
	return !errors.Is(unix.PidfdSendSignal(p.fd, 0, nil, 0), unix.ESRCH)
}

// alive reports whether the process exists and has not exited.
func (p initProcess) alive() bool {
	now, err := procfs.ReadLive(p.pid)
	return err == nil && named(now) == p.process
}

// identify returns the process that dir/init.pid names if it is beyond doubt the
// init of the container whose bundle dir is:
//
//   - dir and the file belong to root (or to who runs us), and nobody else writes them;
//   - the process has not exec'ed since its fork, and is no kernel thread;
//   - it was started not later than the file was written, so it is not another
//     process that got the pid of an init long gone (and not later than started);
//   - its network namespace is neither ours nor that of process 1;
//   - it is still the same process after all this.
//
// With want it must be that pid, else there is no init. The caller closes it.
func identify(dir string, want int, started time.Time) (initProcess, error) {
	pid, written, err := readPIDFile(dir)
	if err != nil {
		return initProcess{}, err
	}
	if want != 0 && want != pid {
		return initProcess{}, errNoInit
	}
	if pid <= 1 || pid == os.Getpid() {
		return initProcess{}, fmt.Errorf("%w: it would be process %d", errDoubt, pid)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	switch {
	case errors.Is(err, unix.ESRCH):
		return initProcess{}, errNoInit
	case err != nil: // EINVAL or ENOENT: a thread that is no leader
		return initProcess{}, fmt.Errorf("%w: open pidfd of %d: %w", errDoubt, pid, err)
	}
	p := initProcess{fd: fd, written: written}
	if err := p.check(pid, started); err != nil {
		p.close()
		return initProcess{}, err
	}
	return p, nil
}

func (p *initProcess) check(pid int, started time.Time) error {
	st, err := procfs.ReadLive(pid)
	if err != nil {
		return errNoInit
	}
	p.process = named(st)
	if st.Kernel || startedAfter(st, p.written) || (!started.IsZero() && startedAfter(st, started)) {
		return fmt.Errorf("%w: %d is a later process", errDoubt, pid)
	}
	if !st.ForkedOnly {
		p.executed = true
		return nil
	}
	theirs, err := netnsOf(strconv.Itoa(pid))
	if err != nil {
		if !p.alive() {
			return errNoInit
		}
		return fmt.Errorf("%w: network namespace of %d: %w", errOpaque, pid, err)
	}
	own, err := netnsOf("self")
	if err != nil {
		return fmt.Errorf("%w: own network namespace: %w", errDoubt, err)
	}
	// Process 1 may have more rights than we, who are then not let look; where we
	// run in its namespace, the first check is the same.
	first, err := netnsOf("1")
	if theirs == own || (err == nil && theirs == first) {
		return fmt.Errorf("%w: %d has the host's network namespace", errDoubt, pid)
	}
	if !p.exists() {
		return errNoInit
	}
	return nil
}

// readPIDFile reads dir/init.pid. An empty file is still being written.
func readPIDFile(dir string) (pid int, written time.Time, err error) {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return 0, written, errNoInit
	}
	if !ours(st, unix.S_IFDIR) {
		return 0, written, fmt.Errorf("%w: %s is not root's alone", errDoubt, dir)
	}
	path := filepath.Join(dir, pidFile)
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrNotExist) {
		return 0, written, errNoInit
	}
	if err != nil {
		return 0, written, fmt.Errorf("%w: %w", errDoubt, err)
	}
	defer f.Close()
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0, written, fmt.Errorf("%w: stat %s: %w", errDoubt, path, err)
	}
	if !ours(st, unix.S_IFREG) {
		return 0, written, fmt.Errorf("%w: %s is not a file of root's alone", errDoubt, path)
	}
	b, err := io.ReadAll(io.LimitReader(f, 16))
	if err != nil {
		return 0, written, fmt.Errorf("%w: %w", errDoubt, err)
	}
	b = bytes.TrimSuffix(b, []byte("\n"))
	if len(b) == 0 {
		return 0, written, errNoInit
	}
	n, err := strconv.ParseUint(string(b), 10, 31)
	if err != nil {
		return 0, written, fmt.Errorf("%w: %s: %w", errDoubt, path, err)
	}
	return int(n), time.Unix(st.Mtim.Unix()), nil
}

// ours reports whether nobody but root (or who runs us) can change it.
func ours(st unix.Stat_t, kind uint32) bool {
	return st.Mode&unix.S_IFMT == kind && st.Mode&0o022 == 0 && (st.Uid == 0 || st.Uid == uint32(os.Geteuid()))
}

// startedAfter reports whether a process began after t. Were the wall clock set in
// between, it might be refused though innocent.
func startedAfter(s procfs.Stat, t time.Time) bool { return s.StartedAfter(t.Add(startSlack)) }

// netnsOf identifies a process's network namespace by device and inode.
func netnsOf(pid string) ([2]uint64, error) {
	var st unix.Stat_t
	err := unix.Stat("/proc/"+pid+"/ns/net", &st)
	return [2]uint64{st.Dev, st.Ino}, err
}
