// Package raftstore replicates ipam.State with hashicorp/raft. It opens the store
// of a node, proposes envelopes, and lets readers view the state and wait for its
// changes. No type of hashicorp/raft leaves it.
//
// What it promises:
//
//   - Init is explicit, happens once, and a crash at any point of it leaves either
//     no store or a complete one.
//   - A nil error from Propose means committed, on disk, and applied to the state
//     of this node. An error that wraps ErrUnknownOutcome means that the envelope
//     may still be committed; any other error means that it never will be.
//   - A committed entry that cannot be applied stops Raft on this node rather than
//     let its state diverge. View goes on showing the state before that entry,
//     Stats says why, and Run goes on until its context ends.
//   - Steady state writes one small entry every ten seconds (cluster time), and
//     logs nothing.
//
// A store directory holds:
//
//	store.json   format and node, written once
//	raft.db      log, term and vote (bbolt; its lock keeps a second process out)
//	snapshots/   the two latest snapshots
package raftstore
