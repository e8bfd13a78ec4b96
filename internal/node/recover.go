package node

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"stellar.io/stellar/api"
	"stellar.io/stellar/internal/peer"
	"stellar.io/stellar/internal/pki"
	"stellar.io/stellar/raftstore"
)

// Recover makes the stopped node of the data directory, whose lock the caller holds,
// the start of the cluster's next life: its one voter, in a new generation, in which
// no subnet is handed out until the operator has ended the re-claim. It must have voted
// before. dryRun only looks. It may be killed and called again.
func Recover(ctx context.Context, opts Options, dryRun bool) (api.Recovery, error) {
	n, err := stopped(opts)
	if err == nil {
		err = n.canLead()
	}
	if err != nil {
		return api.Recovery{}, err
	}
	cfg := n.storeConfig()
	if dryRun {
		found, err := raftstore.Examine(cfg)
		return n.describeRecovery(found), recoverError(err)
	}
	address := n.advertised()
	if !address.IsValid() {
		return api.Recovery{}, api.Errorf(api.CodeConflict, "this host has no address for other nodes").WithHint("name one: --advertise IP:9640")
	}
	cfg.Address = peer.RaftAddress(n.id.ID, address.String())
	var generation uint64
	done, err := raftstore.Recover(ctx, cfg, raftstore.RecoverOptions{Merge: nextLife(&generation)})
	if err != nil {
		return api.Recovery{}, recoverError(err)
	}
	out := n.describeRecovery(done.Survivor)
	out.Generation, out.Backup, out.Done = generation, done.Backup, true
	return out, nil
}

// canLead refuses a follower, which has no log of Raft, key or not, and a node that
// never voted: without the CA's key it could lead, but
// let nobody join and renew no certificate, not even its own.
func (n *Node) canLead() error {
	follows, err := raftstore.Follows(n.raftDir())
	if follows && err == nil {
		return api.Errorf(api.CodeConflict, "node %s follows a server and has no log of Raft to recover", n.id.Name).
			WithHint("recover a server that voted: this node finds it and claims what it holds by itself; if no server is left, put one's data directory back from a backup and recover that")
	}
	if err != nil {
		return recoverError(err)
	}
	tls, err := n.openTLS()
	if err != nil {
		return recoverError(err)
	}
	switch _, err := tls.CA(); {
	case errors.Is(err, pki.ErrNoCA):
		return api.Errorf(api.CodeConflict, "node %s never voted: %w, and without it nobody could join", n.id.Name, err).
			WithHint("recover a node that voted, or copy tls/ca.key from such a node's data directory, or from a backup of it, into this one's")
	default:
		return recoverError(err)
	}
}

// stopped returns the node of a data directory that has one. Nothing is made.
func stopped(opts Options) (*Node, error) {
	dir := opts.Config.DataDir
	there, err := raftstore.Initialized(filepath.Join(dir, "raft"))
	if err != nil {
		return nil, recoverError(err)
	}
	if !there {
		return nil, api.Errorf(api.CodeNotFound, "%s has no cluster's state", dir).WithHint("name the node's directory with --data-dir")
	}
	return New(opts)
}

func (n *Node) describeRecovery(s raftstore.Survivor) api.Recovery {
	return api.Recovery{
		Cluster: s.Cluster, Node: n.id.Name, Term: s.LastTerm, Index: s.LastIndex,
		Servers: s.Servers, Voters: s.Voters, Generation: s.Generation,
	}
}

// recoverError puts the store's words into the API's.
func recoverError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raftstore.ErrLocked):
		return api.Errorf(api.CodeConflict, "%w", err).WithHint("stop this node's agent first")
	case errors.Is(err, raftstore.ErrNotFound):
		return api.Errorf(api.CodeNotFound, "%w", err)
	case errors.Is(err, raftstore.ErrForeign), errors.Is(err, raftstore.ErrVersion), errors.Is(err, raftstore.ErrRefused):
		return api.Errorf(api.CodeConflict, "%w", err)
	case errors.Is(err, raftstore.ErrCorrupt):
		return api.Errorf(api.CodeUnhealthy, "%w", err).WithHint("recover another survivor, or this one from a backup of its data directory")
	}
	return fmt.Errorf("recover: %w", err)
}
