// Package nsx runs code inside another network namespace.
//
// A network namespace belongs to a thread, goroutines wander between threads,
// and a thread left in the wrong namespace configures the wrong machine. So a
// switch happens in exactly one way, Do, and sockets, which stay bound to the
// namespace they were opened in, are preferred to staying inside.
package nsx

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// selfPath is the namespace of the calling thread. /proc/self would be the
// namespace of the process's first thread, which need not be the same.
const selfPath = "/proc/thread-self/ns/net"

// ID is the identity of a namespace: device and inode of its file in nsfs. It
// names one namespace only while a descriptor of it is open somewhere; inode
// numbers are used again after a namespace has died. The zero ID is no namespace.
type ID struct{ Dev, Ino uint64 }

func (id ID) String() string { return fmt.Sprintf("net:[%d]", id.Ino) }

// IDOf returns the identity of the open namespace descriptor fd.
func IDOf(fd int) (ID, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return ID{}, fmt.Errorf("stat namespace: %w", err)
	}
	return ID{Dev: uint64(st.Dev), Ino: st.Ino}, nil
}

// Current opens the network namespace of the calling thread. The caller closes it.
func Current() (*os.File, error) {
	f, err := os.Open(selfPath)
	if err != nil {
		return nil, fmt.Errorf("open own network namespace: %w", err)
	}
	return f, nil
}

// New makes a network namespace and returns it open, the caller's thread unchanged.
// It lives while it is open or used: the end of this process is its end, too.
func New() (*os.File, error) {
	own, err := Current()
	if err != nil {
		return nil, err
	}
	defer own.Close()
	var made *os.File
	err = Do(int(own.Fd()), func() (err error) { // which goes back to where it came from
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		made, err = Current()
		return err
	})
	return made, err
}

// Do runs fn with the namespace fd as the current one and returns fn's error.
//
// fn runs on a goroutine of its own, locked to its thread. The thread goes back
// to the pool only if the switch back worked; otherwise it ends together with
// the goroutine. Goroutines that fn starts are NOT inside the namespace; child
// processes that fn itself starts are. Do returns when fn has returned.
func Do(fd int, fn func() error) error {
	done := make(chan error, 1)
	go func() {
		// A panic or runtime.Goexit (t.Fatal) in fn must not leave the caller waiting.
		result := errors.New("function ended its goroutine")
		defer func() { done <- result }()
		runtime.LockOSThread()
		origin, err := Current()
		if err != nil {
			runtime.UnlockOSThread()
			result = err
			return
		}
		defer origin.Close()
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			runtime.UnlockOSThread()
			result = fmt.Errorf("enter network namespace: %w", err)
			return
		}
		// Deferred, so that it also happens when fn does not return. Without
		// the unlock the runtime destroys the thread with this goroutine.
		defer func() {
			if err := unix.Setns(int(origin.Fd()), unix.CLONE_NEWNET); err == nil {
				runtime.UnlockOSThread()
			}
		}()
		result = fn()
	}()
	return <-done
}
