package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"stellar.io/stellar/api/peerapi"
	"stellar.io/stellar/internal/atomicfile"
	"stellar.io/stellar/internal/peer"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore"
)

// A node that a recovery has left behind comes back by itself, when the cluster's new
// life takes its claim: what its replicated log says that the new one's does not is of
// a life that has ended, so the store is set aside, not mixed with the new one. Journal,
// identity, certificates and all that runs stay. Order, so that it may die anywhere:
// the claim is accepted; the marker is written; the process ends; the next one sets
// the store aside and makes an empty one; Raft has the node; the marker goes.

// ErrRestart is returned by Run when the node is to be started anew.
var ErrRestart = errors.New("the node is to be started anew")

// returnFile is inside the data directory while a node comes back.
const returnFile = "return.json"

// returning is the marker.
type returning struct {
	// Aside is the name of the directory that the store of before is moved to.
	Aside string `json:"aside"`
	// Ask are the nodes that may know who leads.
	Ask map[ipam.NodeID]string `json:"ask"`
}

// comeBack asks a node of the era that began without this one to be taken back. An
// era of the same generation is another survivor's: which of the two is to go on, the
// operator says, by recovering it once more.
func (n *Node) comeBack(ctx context.Context, p *parts, c *peerapi.Client, since era) {
	if n.lived(p).generation >= since.generation {
		return
	}
	if _, err := os.Stat(n.returnPath()); err == nil {
		return // it is on its way
	}
	a, err := n.claimFrom(ctx, p, c, false)
	switch {
	case err != nil:
		n.fence.explain(err)
		n.log.Warn("this node is not taken back", "generation", since, "err", err)
		return
	case !a.Accepted:
		return // another one leads
	}
	n.fence.explain(nil)
	if p.follows() {
		return // a server of the new life sends its state
	}
	ask := n.others(p)
	ask[a.Leader] = a.LeaderAddress
	r := returning{Aside: "raft.left-behind-" + time.Now().UTC().Format("20060102T150405.000"), Ask: ask}
	data, err := json.Marshal(r)
	if err == nil {
		err = atomicfile.Write(n.returnPath(), append(data, '\n'), 0o600)
	}
	if err != nil {
		n.log.Warn("the return to the cluster cannot begin", "err", err)
		return
	}
	n.log.Warn("the cluster was recovered without this node, and takes it back: its replicated state is set aside, its leases are claimed from its journal",
		"generation", since, "aside", r.Aside)
	select {
	case n.restart <- struct{}{}:
	default:
	}
}

// claimFrom tells a node, or the leader that it names, what this one holds.
func (n *Node) claimFrom(ctx context.Context, p *parts, c *peerapi.Client, empty bool) (peerapi.ClaimAnswer, error) {
	claim := n.ownClaim(p, empty)
	a, err := c.Claim(ctx, claim)
	if err != nil || a.Accepted || a.Leader == "" || a.LeaderAddress == "" {
		return a, err
	}
	return p.client(a.Leader, a.LeaderAddress).Claim(ctx, claim)
}

func (n *Node) returnPath() string { return filepath.Join(n.opts.Config.DataDir, returnFile) }

// marker reads it; nil: there is none.
func (n *Node) marker() (*returning, error) {
	data, err := os.ReadFile(n.returnPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var r returning
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err == nil && (r.Aside == "" || r.Aside != filepath.Base(r.Aside)) {
		err = fmt.Errorf("it names %q", r.Aside)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", n.returnPath(), err)
	}
	return &r, nil
}

// emptyForReturn gives a node that is on its way back an empty store. What it had
// stays beside it.
func (n *Node) emptyForReturn() error {
	r, err := n.marker()
	if r == nil || err != nil {
		return err
	}
	dir := n.opts.Config.DataDir
	aside := filepath.Join(dir, r.Aside)
	if _, err := os.Lstat(aside); errors.Is(err, fs.ErrNotExist) {
		if err := os.Rename(n.raftDir(), aside); err != nil {
			return err
		}
		if err := atomicfile.SyncDir(dir); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	if there, err := raftstore.Initialized(n.raftDir()); there || err != nil {
		return err
	}
	cfg := n.storeConfig()
	cfg.Address = peer.RaftAddress(n.id.ID, n.advertised().String())
	return raftstore.InitJoin(context.Background(), cfg)
}

// awaitReturn asks for this node's place in Raft until it has it.
func (n *Node) awaitReturn(ctx context.Context, p *parts) error {
	r, err := n.marker()
	if r == nil || err != nil || p.port == nil {
		return err
	}
	tick := time.NewTicker(joinPause)
	defer tick.Stop()
	for p.era() == (era{}) {
		for id, address := range r.Ask {
			if id == n.id.ID || address == "" {
				continue
			}
			asking, cancel := context.WithTimeout(ctx, askTimeout)
			a, err := n.claimFrom(asking, p, p.client(id, address), true)
			cancel()
			if a.Accepted {
				break
			}
			n.log.Debug("not in raft yet", "asked", id.Short(), "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
	n.outlive(p)
	if err := os.Remove(n.returnPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("end the return: %w", err)
	}
	n.log.Info("back in the cluster", "generation", p.era())
	return nil
}

// wayBack says what becomes of a node that is no member.
func (n *Node) wayBack(err error) string {
	if !errors.Is(err, errOutdated) {
		return "empty the data directory and join anew"
	}
	if why := n.fence.explained(); why != nil {
		return fmt.Sprintf("%v: %v", errNotTakenBack, why)
	}
	return "it comes back by itself when it reaches the new leader; if two survivors were recovered, recover the one that is to go on once more, or empty this one's data directory and join anew"
}
