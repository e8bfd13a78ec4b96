package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"stellar.io/stellar/internal/atomicfile"
)

// fenceFile is inside the data directory while the node is fenced.
const fenceFile = "fence.json"

// fence is what other nodes have told this one of its membership. It outlives the
// process: nodes that were left behind by a recovery must not elect a leader among
// themselves until they have been told again. The zero value is that of a member, and
// kept in memory.
type fence struct {
	path string // "": memory alone

	mu    sync.Mutex // guards what follows
	err   error      // errRemoved, errOutdated or nil
	since era        // with errOutdated: the era that began without this node
	why   error      // with errOutdated: why it does not take this node back
}

// fenced is the file.
type fenced struct {
	Reason     string `json:"reason"`
	Generation uint64 `json:"generation,omitempty"`
	Life       uint32 `json:"life,omitempty"`
}

// The reasons in the file.
var fenceReasons = map[string]error{"removed": errRemoved, "left behind": errOutdated}

// load reads what an earlier process was told.
func (f *fence) load(dir string) error {
	f.path = filepath.Join(dir, fenceFile)
	data, err := os.ReadFile(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var was fenced
	if err == nil {
		err = json.Unmarshal(data, &was)
	}
	if reason, known := fenceReasons[was.Reason]; err == nil && known {
		f.err, f.since = reason, era{was.Generation, was.Life}
		return nil
	}
	return fmt.Errorf("what this node was told of its membership cannot be read: remove %s if `stellar node ls` on another node lists this one as a member (%w)",
		f.path, errors.Join(err, errFenceFile))
}

var errFenceFile = errors.New("damaged file")

func (f *fence) get() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// explain notes why a node that was left behind is not taken back.
func (f *fence) explain(why error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.why = why
}

func (f *fence) explained() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.why
}

// left reports whether the cluster's life goes on without this node, and since when.
func (f *fence) left() (since era, left bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.since, errors.Is(f.err, errOutdated)
}

// set notes err, and for errOutdated the era that this node is no part of, and
// reports whether that is new. It is durable then, unless the disk fails: what is told
// is told again. A removal is for ever.
func (f *fence) set(err error, since era) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	fresh := !errors.Is(f.err, errRemoved) && !errors.Is(f.err, err) && (f.err != nil || err != nil)
	later := errors.Is(f.err, errOutdated) && errors.Is(err, errOutdated) && since.compare(f.since) > 0
	if !fresh && !later {
		return false
	}
	f.err, f.since = err, since
	if f.path != "" {
		_ = f.write()
	}
	return fresh
}

// write makes the file say what is known. The caller holds f.mu: this happens only
// when the membership changes.
func (f *fence) write() error {
	if f.err == nil {
		if err := os.Remove(f.path); err != nil {
			return err
		}
		return atomicfile.SyncDir(filepath.Dir(f.path))
	}
	was := fenced{Generation: f.since.generation, Life: f.since.life}
	for name, err := range fenceReasons {
		if errors.Is(f.err, err) {
			was.Reason = name
		}
	}
	data, err := json.Marshal(was)
	if err != nil {
		return err
	}
	return atomicfile.Write(f.path, append(data, '\n'), 0o600)
}

// outlive ends the fence of a node that has the cluster's new life by now: it was
// taken back, or was itself recovered.
func (n *Node) outlive(p *parts) {
	if since, left := n.fence.left(); left && p.era().compare(since) >= 0 {
		n.log.Info("this node is part of the cluster's new life", "generation", p.era())
		n.fence.set(nil, era{})
	}
}
