package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/api"
)

const (
	lockName   = "lock"   // flocked while an agent runs; holds its pid
	formatFile = "FORMAT" // says that the directory is ours, and what is in it
	formatTemp = "FORMAT.tmp"
	dataFormat = "stellar/1\n"
)

// dataDir is a data directory that this process alone uses until Close.
type dataDir struct {
	lock *os.File // nil: there was no directory to lock
}

// openDataDir makes the directory, 0700, if it does not exist, makes sure that
// it is ours and locks it. It refuses, with the reason, a directory of another
// user, one that has other people's files, one of a newer format, one that
// cannot be written, and one that another agent uses. Nothing in a directory that
// is refused is changed.
func openDataDir(path string) (*dataDir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	defer root.Close()
	marked, err := judgeDataDir(path, root)
	if err != nil {
		return nil, err
	}
	d, err := lockIn(path, root)
	if err != nil {
		return nil, err
	}
	if !marked {
		if err := markDataDir(root); err != nil {
			return nil, errors.Join(fmt.Errorf("data directory %s: %w", path, err), d.Close())
		}
	}
	return d, nil
}

// lockExisting locks a data directory if there is one: a conflict while an agent
// uses it. It makes and marks nothing.
func lockExisting(path string) (*dataDir, error) {
	root, err := os.OpenRoot(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &dataDir{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	defer root.Close()
	if _, err := root.Lstat(lockName); errors.Is(err, fs.ErrNotExist) {
		return &dataDir{}, nil // no agent ever ran on it
	}
	return lockIn(path, root)
}

// Close lets the next agent in. It may be called more than once.
func (d *dataDir) Close() error {
	if d.lock == nil {
		return nil
	}
	// A child between fork and exec still has the descriptor; closing ours alone would
	// leave the lock with it for that moment.
	err := unix.Flock(int(d.lock.Fd()), unix.LOCK_UN)
	err = errors.Join(err, d.lock.Close())
	d.lock = nil
	return err
}

// judgeDataDir decides whether the directory is ours, and reports whether it is
// marked already. It narrows the mode of a directory that is ours.
func judgeDataDir(path string, root *os.Root) (marked bool, err error) {
	info, err := root.Stat(".")
	if err != nil {
		return false, fmt.Errorf("data directory: %w", err)
	}
	if uid := int(info.Sys().(*syscall.Stat_t).Uid); uid != os.Geteuid() {
		return false, api.Errorf(api.CodeDenied, "data directory %s belongs to uid %d, the agent runs as uid %d", path, uid, os.Geteuid())
	}
	format, err := root.ReadFile(formatFile)
	switch {
	case err == nil && string(format) == dataFormat:
		marked = true
	case err == nil:
		return false, api.Errorf(api.CodeConflict, "data directory %s has format %q, this version knows %q",
			path, strings.TrimSpace(string(format)), strings.TrimSpace(dataFormat))
	case !errors.Is(err, fs.ErrNotExist):
		return false, fmt.Errorf("data directory %s: %w", path, err)
	default:
		if err := onlyLeftovers(path, root); err != nil {
			return false, err
		}
	}
	// os.Root follows links inside the directory, even with O_NOFOLLOW.
	if l, err := root.Lstat(lockName); err == nil && !l.Mode().IsRegular() {
		return false, api.Errorf(api.CodeConflict, "data directory %s: %s is not a regular file", path, lockName)
	}
	if info.Mode().Perm()&0o077 != 0 {
		if err := root.Chmod(".", 0o700); err != nil {
			return false, fmt.Errorf("data directory %s: %w", path, err)
		}
	}
	return marked, nil
}

// onlyLeftovers accepts an unmarked directory that is empty, or that holds
// nothing but what a crash between making and marking leaves.
func onlyLeftovers(path string, root *os.Root) error {
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return fmt.Errorf("data directory %s: %w", path, err)
	}
	for _, e := range entries {
		if e.Name() != lockName && e.Name() != formatTemp {
			return api.Errorf(api.CodeConflict, "data directory %s is not empty and not Stellar's: it has %q and no file %s", path, e.Name(), formatFile).
				WithHint("name an empty or new directory with --data-dir")
		}
	}
	return nil
}

// markDataDir writes the marker so that it is there as a whole or not at all.
func markDataDir(root *os.Root) error {
	f, err := root.OpenFile(formatTemp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(dataFormat)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := root.Rename(formatTemp, formatFile); err != nil {
		return err
	}
	dir, err := root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// lockIn takes the lock or says which pid has it. The kernel drops the lock when
// the process ends, however it ends; the pid in the file is only for people.
func lockIn(path string, root *os.Root) (*dataDir, error) {
	f, err := root.OpenFile(lockName, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data directory %s cannot be written: %w", path, err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		defer f.Close()
		return nil, api.Errorf(api.CodeConflict, "data directory %s is used by %s", path, holderOf(f)).
			WithHint("stop that agent first, `systemctl stop stellar`, or name another directory with --data-dir")
	}
	if err == nil {
		err = writePID(f)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock data directory %s: %w", path, err), f.Close())
	}
	return &dataDir{lock: f}, nil
}

func writePID(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// holderOf names the process that has the lock. It has locked before it writes
// its pid, so that a moment's patience finds it.
func holderOf(f *os.File) string {
	for range 20 {
		buf := make([]byte, 32)
		n, _ := f.ReadAt(buf, 0) // an error leaves n at what was read
		if pid, err := strconv.Atoi(strings.TrimSpace(string(buf[:n]))); err == nil {
			return fmt.Sprintf("the agent with pid %d", pid)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return "another agent"
}
