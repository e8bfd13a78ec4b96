package raftstore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"stellar.io/stellar/ipam"
)

// Peek returns the state that a store holds with all that its log has, whether a
// process uses the store or not: it reads a copy, and changes nothing. What is in the
// log may not be committed. It is for a look when the store's process does not answer,
// not to decide by. It returns Open's errors, and ErrCorrupt, too, when the store was
// written meanwhile.
func Peek(cfg Config) (*ipam.State, error) {
	cfg = cfg.withDefaults()
	dir, err := os.MkdirTemp("", "stellar-peek-")
	if err != nil {
		return nil, fmt.Errorf("copy the store: %w", err)
	}
	defer os.RemoveAll(dir)
	if err := copyForPeek(cfg.Dir, dir); err != nil {
		return nil, fmt.Errorf("copy the store: %w", err)
	}
	cfg.Dir = dir
	if follows, err := Follows(dir); err == nil && follows {
		st, err := readState(dir)
		if errors.Is(err, fs.ErrNotExist) {
			return ipam.New(), nil
		}
		return st, err
	}
	f, err := openStopped(cfg)
	if err != nil {
		return nil, fmt.Errorf("read the store's copy: %w", err)
	}
	st, _, err := replay(cfg, f)
	if err = errors.Join(err, f.bolt.Close()); err != nil {
		return nil, fmt.Errorf("read the store's copy: %w", err)
	}
	return st, nil
}

// copyForPeek copies all files but backups. One that disappears meanwhile, such as an
// old snapshot, is passed over.
func copyForPeek(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		switch {
		case err != nil || rel == ".":
			return err
		case d.IsDir() && rel == backupDir:
			return filepath.SkipDir
		case d.IsDir():
			return os.Mkdir(filepath.Join(to, rel), 0o700)
		case !d.Type().IsRegular():
			return nil
		}
		src, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		defer src.Close()
		dst, err := os.OpenFile(filepath.Join(to, rel), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(dst, src)
		return errors.Join(err, dst.Close())
	})
}
