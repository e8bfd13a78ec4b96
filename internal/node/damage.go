package node

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"stellar.io/stellar/api"
	"stellar.io/stellar/internal/atomicfile"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore"
	"stellar.io/stellar/raftstore/holder"
)

// storeCheck is the name of status's check of the disk and what is on it.
const storeCheck = "store"

// Damage is why a node has no store any more. It is part of the identity, so that a
// start, however often it is tried, never takes the node for a new one.
type Damage struct {
	Time   time.Time `json:"time"`
	Suffix string    `json:"suffix"` // of what was set aside
	Reason string    `json:"reason"`
}

// aside are the parts of the data directory that belong to an incarnation, in the order
// in which they are set aside: the store last, for it shows that the rest is to do.
var aside = []string{"journal", "tls", heldFile, "raft"}

// inspect looks whether the store is whole before anything works on it. A damaged one is
// set aside, never removed, and the node becomes another incarnation, for this one may
// have forgotten a vote or an entry that it had acknowledged. The node then belongs to
// no cluster until it has joined again in place of what it was. The only node of a
// cluster has nobody to join: its store stays where it is.
func (n *Node) inspect() error {
	if d := n.id.Damaged; d != nil {
		if _, err := os.Lstat(n.raftDir()); err == nil && n.setAsideBefore() {
			return n.setAside(d.Suffix) // a crash came between
		}
		return nil
	}
	has, err := raftstore.Initialized(n.raftDir())
	if err == nil && has {
		var store *raftstore.Store
		if store, err = raftstore.Open(n.storeConfig()); err == nil {
			n.verified = true
			return store.Close()
		}
	}
	if !errors.Is(err, raftstore.ErrCorrupt) {
		return nil // what else is wrong shows when the store is opened for good
	}
	if alone, known := n.wasAlone(); alone && known {
		n.broken = fmt.Errorf("%w; this was its cluster's only node and its store stays as it is: restore the data directory from a backup, or begin anew with an empty one", err)
		n.log.Error("the store is damaged, nothing new is attached, running containers keep their networks", "err", n.broken)
		return nil
	}
	return n.quarantine(err)
}

// setAsideBefore reports whether the store that is there is one of an earlier incarnation.
func (n *Node) setAsideBefore() bool {
	data, err := os.ReadFile(filepath.Join(n.raftDir(), "store.json"))
	var store struct {
		Node ipam.NodeID `json:"node"`
	}
	if err != nil || json.Unmarshal(data, &store) != nil {
		return true // damaged, so it is that one
	}
	return store.Node != n.id.ID
}

// quarantine makes the node another incarnation and sets aside what belonged to the last.
//
// Order: the new identity is durable first. A crash after it finds the old store and goes
// on; the other way round, the node would look like one that never had a cluster.
func (n *Node) quarantine(reason error) error {
	now := time.Now().UTC()
	next := n.id
	next.Former = append(slices.Clone(n.id.Former), n.id.ID)
	var raw [16]byte
	rand.Read(raw[:])
	next.ID = ipam.NodeID(hex.EncodeToString(raw[:]))
	next.Damaged = &Damage{Time: now, Suffix: now.Format("20060102T150405"), Reason: reason.Error()}
	if err := next.write(n.opts.Config.DataDir); err != nil {
		return err
	}
	n.id = next
	return n.setAside(next.Damaged.Suffix)
}

// setAside moves what belonged to the former incarnation. It may be called again.
func (n *Node) setAside(suffix string) error {
	dir := n.opts.Config.DataDir
	for _, name := range aside {
		from := filepath.Join(dir, name)
		if _, err := os.Lstat(from); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := os.Rename(from, from+".damaged-"+suffix); err != nil {
			return fmt.Errorf("set the damaged store aside: %w", err)
		}
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return err
	}
	n.log.Error("the store is damaged and was set aside; nothing new is attached, running containers keep their networks",
		"store", n.raftDir()+".damaged-"+suffix, "err", n.id.Damaged.Reason, "hint", n.rejoinHint())
	return nil
}

// lost says why this node has no store although it had one, nil if that is not so.
func (n *Node) lost() error {
	switch {
	case n.broken != nil:
		return api.Errorf(api.CodeConflict, "%v", n.broken)
	case n.id.Damaged != nil && !n.whole():
		return api.Errorf(api.CodeConflict, "the store was damaged and set aside as raft.damaged-%s (%s)", n.id.Damaged.Suffix, n.id.Damaged.Reason).
			WithHint(n.rejoinHint())
	}
	return nil
}

// whole reports whether the node has a store.
func (n *Node) whole() bool {
	select {
	case <-n.initialized:
		return true
	default:
		return false
	}
}

func (n *Node) rejoinHint() string {
	at := "HOST:PORT"
	if list, err := n.readPeers(); err == nil && len(list) > 0 {
		at = list[0]
	}
	return fmt.Sprintf("join again in its place: stellar cluster join %s --token-file FILE --replace %s", at, n.id.Name)
}

// former reports whether an endpoint's mark is that of this node as it was before.
func (id Identity) former(short string) bool {
	return slices.ContainsFunc(id.Former, func(f ipam.NodeID) bool { return f.Short() == short })
}

func (id Identity) write(dir string) error {
	data, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return err
	}
	if err := atomicfile.Write(filepath.Join(dir, identityFile), append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("write node identity: %w", err)
	}
	return nil
}

// peersFile is inside the data directory: where the other nodes were reached last. When
// the store is gone it is all that is known of them.
const peersFile = "peers.json"

func (n *Node) readPeers() (list []string, err error) {
	data, err := os.ReadFile(filepath.Join(n.opts.Config.DataDir, peersFile))
	if err != nil {
		return nil, err
	}
	return list, json.Unmarshal(data, &list)
}

// wasAlone reports whether there were other nodes, if that is known.
func (n *Node) wasAlone() (alone, known bool) {
	list, err := n.readPeers()
	return len(list) == 0, err == nil
}

// rememberPeers notes where the other nodes are, if that is new.
func (n *Node) rememberPeers(p *parts) {
	list := []string{}
	for _, address := range n.memberAddresses(p) {
		list = append(list, address)
	}
	slices.Sort(list)
	if was, err := n.readPeers(); err == nil && slices.Equal(was, list) {
		return
	}
	data, err := json.Marshal(list)
	if err == nil {
		err = atomicfile.Write(filepath.Join(n.opts.Config.DataDir, peersFile), append(data, '\n'), 0o600)
	}
	if err != nil {
		n.log.Warn("the other nodes' addresses cannot be written down", "err", err)
	}
}

// memberAddresses are the addresses of the other members in the replica.
func (n *Node) memberAddresses(p *parts) map[ipam.NodeID]string {
	out := map[ipam.NodeID]string{}
	p.store.View(func(s *ipam.State) {
		for m := range s.Nodes() {
			if !m.Removed && m.ID != n.id.ID && m.Address != "" {
				out[m.ID] = m.Address
			}
		}
	})
	return out
}

// checkDisk says whether the disk takes what is written.
func (p *parts) checkDisk(add addCheck) {
	s := p.store.Stats()
	_, journal := p.holder.Status()
	switch {
	case s.DiskHung:
		add(storeCheck, api.Err, fmt.Sprintf("the disk has not answered for %s: this node neither leads nor follows; running containers keep their networks", s.DiskBusy.Round(time.Second)))
	case s.DiskError != nil:
		add(storeCheck, api.Err, fmt.Sprintf("the raft log cannot be written: %v (it is tried again; make room or replace the disk)", s.DiskError))
	case holder.Unwritable(journal):
		add(storeCheck, api.Err, fmt.Sprintf("no new endpoints: %v (it is tried again)", journal))
	default:
		add(storeCheck, api.OK, "")
	}
}

// openHolder opens the journal. A damaged one is set aside: what the kernel and the
// replica have is then all that is known, and adopt waits for a leader before it is
// believed to be complete.
func (n *Node) openHolder(p *parts) (*holder.Holder, error) {
	cfg := holder.Config{
		Node: n.id.ID, Subnet: p.subnet, Store: p.store, Logger: n.log, Cluster: p.clusterID(),
		JournalPath: filepath.Join(n.opts.Config.DataDir, "journal"),
		CommitWait:  n.opts.Config.CommitWait.Duration, CoolDown: n.opts.Config.CoolDown.Duration,
		OnSync: n.meters.synced,
	}
	h, err := holder.Open(cfg)
	if !holder.Corrupt(err) {
		return h, err
	}
	to := cfg.JournalPath + ".damaged-" + time.Now().UTC().Format("20060102T150405")
	if err := os.Rename(cfg.JournalPath, to); err != nil {
		return nil, fmt.Errorf("set the damaged journal aside: %w", err)
	}
	n.log.Error("the journal is damaged and was set aside; the leases are made from the kernel and the replica, those that neither knows are lost",
		"journal", to, "err", err)
	return holder.Open(cfg)
}

// adoptPause is the pause between two attempts of a node that needs a leader to adopt.
const adoptPause = time.Second

// adopt has the holder adopt what is attached. With a new journal that needs a leader:
// until there is one nothing is handed out, and what runs goes on.
func (n *Node) adopt(ctx context.Context, p *parts, live []holder.Live) error {
	for {
		err := p.holder.Adopt(ctx, live)
		if !errors.Is(err, raftstore.ErrNoLeader) && !errors.Is(err, raftstore.ErrUnknownOutcome) && !errors.Is(err, raftstore.ErrBusy) {
			return err
		}
		n.setPhase("waiting for a leader: the journal is new, and only the replicated state says what is bound: " + err.Error())
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(adoptPause):
		}
	}
}
