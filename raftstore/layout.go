package raftstore

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"stellar.io/stellar/ipam"
)

// What a store directory holds.
const (
	identityFile = "store.json"
	logFile      = "raft.db"
	snapshotDir  = "snapshots" // the library's name
	format       = 1
	snapshots    = 2 // how many are kept
)

// identity is the content of store.json.
type identity struct {
	Format int         `json:"format"`
	Node   ipam.NodeID `json:"node"`
}

// Initialized reports whether dir holds a store. A directory that is missing or
// empty does not; one that holds anything else is ErrForeign.
func Initialized(dir string) (bool, error) {
	names, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if len(names) == 0 {
		return false, nil
	}
	if _, err := readIdentity(dir); err != nil {
		return false, err
	}
	return true, nil
}

func readIdentity(dir string) (identity, error) {
	var id identity
	b, err := os.ReadFile(filepath.Join(dir, identityFile))
	if errors.Is(err, fs.ErrNotExist) {
		return id, fmt.Errorf("%s: %w: no %s in it", dir, ErrForeign, identityFile)
	}
	if err != nil {
		return id, err
	}
	if err := json.Unmarshal(b, &id); err != nil || id.Format < 1 || !id.Node.Valid() {
		return id, fmt.Errorf("%s: %w: %s is malformed", dir, ErrCorrupt, identityFile)
	}
	if id.Format > format {
		return id, fmt.Errorf("%s: %w: format %d, known is %d", dir, ErrVersion, id.Format, format)
	}
	return id, nil
}

// writeIdentity writes store.json durably.
func writeIdentity(dir string, node ipam.NodeID) error {
	b, err := json.Marshal(identity{Format: format, Node: node})
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, identityFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	return errors.Join(err, f.Sync(), f.Close())
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
