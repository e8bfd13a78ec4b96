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
//   - All of this holds on every node of a cluster: one that does not lead sends the
//     proposal to the leader, once. LinearizableRead makes the next View show all that
//     was acknowledged to anybody before.
//   - A node that is behind shows the leader's state (Config.FetchState) until it has
//     caught up. View never goes back, except to a restored snapshot.
//   - A node may follow any member of Raft instead of being one (InitFollow): the same
//     entries in the same order, or a snapshot, lead to the same state at the same
//     index, and all that is said here of nodes that do not lead holds for it.
//   - Membership changes that would lose the quorum are refused with the arithmetic.
//     The leader keeps the voters (Config.Voters) by itself; it demotes, and never
//     removes.
//   - A snapshot that is restored, and a store that is recovered, have been read and
//     checked as a whole before anything changes, and what was there is saved first.
//   - Steady state writes one small entry every ten seconds (cluster time), and
//     logs nothing.
//
// A store directory holds:
//
//	store.json   format and node, written once
//	raft.db      log, term and vote (bbolt; its lock keeps a second process out)
//	snapshots/   the two latest snapshots
//	backups/     what SnapshotRestore has saved before it restored
//
// That of a follower holds store.json and state.snapshot, what it knew a moment ago.
package raftstore
