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
	backupDir    = "backups"   // what SnapshotRestore saves
	format       = 2           // 1: without checksums of the entries and without a mark
	snapshots    = 2           // how many are kept
	// A follower's store has a snapshot and nothing of Raft. It has a format of its own,
	// so that a version that knows of no followers does not take it for a damaged one.
	formatFollower = 3
	stateFile      = "state.snapshot"
)

// identity is the content of store.json.
type identity struct {
	Format int         `json:"format"`
	Node   ipam.NodeID `json:"node"`
	Joined bool        `json:"joined,omitempty"` // made by InitJoin: its log may be empty
	// Follows: made by InitFollow. Servers are those that it was told of then.
	Follows bool                   `json:"follows,omitempty"`
	Servers map[ipam.NodeID]string `json:"servers,omitempty"`
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
	if id.Format > format && !(id.Format == formatFollower && id.Follows) {
		return id, fmt.Errorf("%s: %w: format %d, known is %d", dir, ErrVersion, id.Format, format)
	}
	return id, nil
}

// writeIdentity writes store.json durably, over an older one if there is one.
func writeIdentity(dir string, id identity) error {
	b, err := json.Marshal(id)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, identityFile)
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return syncDir(dir)
}

// finish ends what a killed process may have left undone: the removal of entries that
// a snapshot has replaced, and the note that a joined node's log is not empty any
// more: from then on an empty one is damage.
func finish(f files, dir string, id identity) error {
	list, err := f.snapshots.List()
	if err != nil {
		return err
	}
	if len(list) > 0 {
		if err := forget(f.bolt, list[0].Index, list[0].Term); err != nil {
			return err
		}
	}
	last, err := f.bolt.LastIndex()
	if err != nil || !id.Joined || last == 0 {
		return err
	}
	id.Joined = false
	return writeIdentity(dir, id)
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
