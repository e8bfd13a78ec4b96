// Package holder is the one who picks and proposes for a subnet that this node
// holds (design D3). Consensus is needed for the subnet; inside it the holder
// alone decides, and the replicated state is the record of it.
//
// What it promises:
//
//   - An address is never held by two owners. It is handed out only when neither
//     the journal nor the kernel nor an unresolved command says that it is in use.
//   - A lease that was reported survives the loss of power: Bind returns after the
//     journal's fsync and, while a leader answers, after the commit.
//   - Without an answer within Config.CommitWait the holder goes on alone: the same
//     address and request id, provisional, replicated when the cluster is back. All
//     further leases are provisional at once until a commit has succeeded.
//   - Bind and Release are idempotent by owner. An owner includes the creation time
//     of its container: a container that reuses an id is another owner.
//   - Nothing is picked before Adopt has been told what the kernel carries. The
//     kernel beats the journal, the journal beats the replica, and what only the
//     replica knows is adopted too: that is all there is when the journal was lost.
//
// Two records of one truth are kept alike by a reconciler: desired is the journal,
// actual is the replica, plan.go is the difference, replicate.go proposes it.
package holder
