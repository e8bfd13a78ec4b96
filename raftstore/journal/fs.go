package journal

import (
	"errors"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// FS is the part of the file system that a journal needs; tests let it fail.
type FS interface {
	// ReadFile returns fs.ErrNotExist when there is no such file.
	ReadFile(path string) ([]byte, error)
	// OpenAppend opens an existing file for writing at its end.
	OpenAppend(path string) (File, error)
	// Create makes an empty file of mode 0600, in place of any that is there.
	Create(path string) (File, error)
	Rename(from, to string) error
	// Remove deletes a file; one that is not there is no error.
	Remove(path string) error
	// SyncDir makes the names in a directory durable.
	SyncDir(dir string) error
}

// File is an open journal file.
type File interface {
	io.WriteCloser
	Truncate(size int64) error
	// Sync makes data and size durable.
	Sync() error
}

// OS is the real file system.
type OS struct{}

// ReadFile implements FS.
func (OS) ReadFile(path string) ([]byte, error) { return os.ReadFile(path) }

// OpenAppend implements FS.
func (OS) OpenAppend(path string) (File, error) {
	return openFile(path, os.O_WRONLY|os.O_APPEND)
}

// Create implements FS.
func (OS) Create(path string) (File, error) {
	return openFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|os.O_TRUNC)
}

// Rename implements FS.
func (OS) Rename(from, to string) error { return os.Rename(from, to) }

// Remove implements FS.
func (OS) Remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// SyncDir implements FS.
func (OS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

type osFile struct{ *os.File }

func openFile(path string, flag int) (File, error) {
	f, err := os.OpenFile(path, flag|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

// Sync is fdatasync: it leaves out what is not needed to read the data back.
func (f osFile) Sync() error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}
