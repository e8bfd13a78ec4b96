package failpoint

// Name is a failpoint. What stands beside it is how things are when it is reached.
type Name string

// The agent's passes over a container.
const (
	AgentBind     Name = "agent/bind"     // a container is to get an address
	AgentBound    Name = "agent/bound"    // its lease is held, nothing is in the kernel
	AgentAttached Name = "agent/attached" // its interface is up, nobody was told
	AgentSettled  Name = "agent/settled"  // the attachment is entered and its process watched
	AgentDetach   Name = "agent/detach"   // an endpoint is to be taken away
	AgentDetached Name = "agent/detached" // its interface is gone, the lease does not know
	AgentRelease  Name = "agent/release"  // an address is to be given back
	AgentReleased Name = "agent/released" // the address is released, nobody was told
	AgentForget   Name = "agent/forget"   // a container is forgotten, its request not yet
	AgentAdopt    Name = "agent/adopt"    // a starting agent has listed the kernel's endpoints
	AgentAdopted  Name = "agent/adopted"  // a starting agent has taken note of endpoints and leases
)

// Requests of CNI clients and by hand.
const (
	RequestEntered     Name = "request/entered"     // an attachment's request is in memory, being written
	RequestWrite       Name = "request/write"       // a request is to be written
	RequestWritten     Name = "request/written"     // a request is durable
	RequestDrop        Name = "request/drop"        // a request is to be removed
	RequestDropped     Name = "request/dropped"     // the file of a request is removed, its directory not synced
	AttachmentBound    Name = "attachment/bound"    // an attachment without a container has its lease, no interface
	AttachmentUp       Name = "attachment/up"       // its interface is up, its client has no answer
	AttachmentDetached Name = "attachment/detached" // its interface is gone, it still has its lease
	AttachmentReleased Name = "attachment/released" // its lease is released, its request is still there
	AttachmentDown     Name = "attachment/down"     // a container's network is noted as taken away, nothing is done yet
)

// Whole files that are replaced.
const (
	FileCreated Name = "atomicfile/created" // the new file is made beside the old, and empty
	FileSynced  Name = "atomicfile/synced"  // the new file is complete and has not got the name
	FileRenamed Name = "atomicfile/renamed" // it has the name, which is not durable yet
)

// The holder of a subnet: what it promises, in the order of a bind's life.
const (
	HolderPicked     Name = "holder/picked"     // an address is picked, nothing is written
	HolderBegun      Name = "holder/begun"      // its record is on the way to the journal, nothing is proposed
	HolderCommitted  Name = "holder/committed"  // the bind is committed, the journal may not have it
	HolderWritten    Name = "holder/written"    // journal and proposal have ended, nobody was told
	HolderReleasing  Name = "holder/releasing"  // a release is on its way to the journal
	HolderReleased   Name = "holder/released"   // a release is in the journal, not in memory
	HolderFlight     Name = "holder/flight"     // a change of unknown outcome is to be proposed again
	HolderReplicate  Name = "holder/replicate"  // what the replica lacks is to be proposed
	HolderReplicated Name = "holder/replicated" // what the replica lacked is committed, not noted
	HolderForget     Name = "holder/forget"     // a cooled address is free in memory, being written
	HolderStray      Name = "holder/stray"      // a lease that only the replica knew is being released
	HolderMerged     Name = "holder/merged"     // kernel, journal and replica are merged, nothing is written
	HolderAdopted    Name = "holder/adopted"    // what was merged is in the journal, the holder is not open
)

// The journal.
const (
	JournalAppend    Name = "journal/append"    // a batch is to be written
	JournalWritten   Name = "journal/written"   // a batch is written, not durable
	JournalSynced    Name = "journal/synced"    // a batch is durable, nobody was told
	JournalRewrite   Name = "journal/rewrite"   // the new file of a rotation is made, and empty
	JournalRewritten Name = "journal/rewritten" // it is complete and has not got the name
	JournalRenamed   Name = "journal/renamed"   // it has the name, which is not durable yet
	JournalRotated   Name = "journal/rotated"   // the rotation is durable, the old file still open
)

// Commands: proposed, forwarded, logged, applied.
const (
	RaftPropose   Name = "raft/propose"   // the leader is to append an entry
	RaftProposed  Name = "raft/proposed"  // an entry is committed and applied, its proposer not told
	RaftForward   Name = "raft/forward"   // a proposal is to be sent to the leader
	RaftForwarded Name = "raft/forwarded" // the leader has answered, the entry is not applied here
	RaftReceived  Name = "raft/received"  // the leader has another node's proposal
	RaftAnswer    Name = "raft/answer"    // the leader has committed it and not answered
	RaftLog       Name = "raft/log"       // entries are to be written to the log
	RaftLogged    Name = "raft/logged"    // entries are durable in the log
	RaftApply     Name = "raft/apply"     // a committed entry is to be applied
	RaftApplied   Name = "raft/applied"   // an entry is applied, nobody was told
)

// Raft's own snapshots.
const (
	SnapshotPersist   Name = "snapshot/persist"   // a snapshot of the state is to be written
	SnapshotPersisted Name = "snapshot/persisted" // it is written, and has no name
	SnapshotNamed     Name = "snapshot/named"     // it has its name, the log is not yet truncated
	SnapshotRead      Name = "snapshot/read"      // a snapshot is read and checked, the old state still there
	SnapshotRestored  Name = "snapshot/restored"  // the state is that of a snapshot
)

// Backups.
const (
	BackupSave     Name = "backup/save"     // a backup is to be written
	BackupChecked  Name = "backup/checked"  // a backup to be restored is read, proposals are refused
	BackupSaved    Name = "backup/saved"    // the present state is saved beside it
	BackupRestore  Name = "backup/restore"  // the merged state is to be handed to Raft
	BackupRestored Name = "backup/restored" // a majority has the restored state, the operator no answer
)

// A new cluster, and a node's place in one.
const (
	InitKeys       Name = "init/keys"       // the CA is made, there is no store
	InitFilled     Name = "init/filled"     // the store is complete beside its place
	InitMoved      Name = "init/moved"      // it is in its place, which is not durable yet
	NodeClaim      Name = "node/claim"      // the node is to ask for its subnet
	NodeClaimed    Name = "node/claimed"    // the cluster has confirmed it, the node has not noted it
	NodeRemembered Name = "node/remembered" // the node has noted its subnet
	NodePrepared   Name = "node/prepared"   // the host's network is ready, the journal not open
	NodeUp         Name = "node/up"         // all parts are there and none works yet
)

// A join, on the joining node.
const (
	JoinToken       Name = "join/token"       // the key of the request is on disk, nobody was asked
	JoinAnswered    Name = "join/answered"    // the cluster has answered, nothing of it is kept
	JoinCertificate Name = "join/certificate" // the certificate is in place, its key not yet
	JoinInstalled   Name = "join/installed"   // certificate and key are in place, there is no store
	JoinStored      Name = "join/stored"      // the empty store is in place, nothing runs on it
)

// A join, on the leader.
const (
	AdmitRegister   Name = "admit/register"   // a token was shown, nothing is registered
	AdmitRegistered Name = "admit/registered" // the member is registered with its subnet, nothing is signed
	AdmitSigned     Name = "admit/signed"     // its certificate is signed, Raft does not know it
	AdmitAdded      Name = "admit/added"      // Raft knows it, it has no answer
)

// Changes of membership and of the leader.
const (
	MemberChange  Name = "member/change"   // the leader is to change Raft's configuration
	MemberChanged Name = "member/changed"  // the changed configuration is committed, nobody was told
	TransferBegin Name = "transfer/begin"  // the leader is to hand over
	TransferDone  Name = "transfer/done"   // another node leads, nobody was told
	CAKeyReceived Name = "ca-key/received" // a new voter has the CA's key in memory
	LeaveHandOver Name = "leave/hand-over" // a removal is permitted, nothing is done
	LeaveBury     Name = "leave/bury"      // the leadership is with another node, there is no tombstone
	LeaveBuried   Name = "leave/buried"    // there is a tombstone, the node is still in Raft
	LeaveOut      Name = "leave/out"       // the node is out of Raft, the operator has no answer
)

// The hold of a program.
const (
	HoldSeized   Name = "hold/seized"   // an init process is seized
	HoldAtExec   Name = "hold/at-exec"  // it stands in its exec
	HoldRelease  Name = "hold/release"  // it is to be let go
	HoldDetached Name = "hold/detached" // it runs, nobody was told
)

// Routes.
const (
	RoutesApply   Name = "routes/apply"   // the table's changes are planned, none is made
	RoutesApplied Name = "routes/applied" // they are made, and not noted
)

// The kernel's network.
const (
	NetBridge      Name = "net/bridge"       // the bridge is made, without alias, address or MTU
	NetBridgeSet   Name = "net/bridge-set"   // it has its attributes and is up, without address
	NetBridgeReady Name = "net/bridge-ready" // it has its address and route, no sysctl is set
	NetLink        Name = "net/link"         // a pair of links is made, without alias
	NetAlias       Name = "net/alias"        // the host's end has its alias and is up, the container's end has nothing
	NetInside      Name = "net/inside"       // the container's end has address and routes, packets may not pass
	NetRunning     Name = "net/running"      // packets pass, the table does not know of the link
	NetAdopt       Name = "net/adopt"        // a link of before is found fit for a container
	NetHalfMade    Name = "net/half-made"    // a link without alias is found and to be deleted
	NetRemove      Name = "net/remove"       // a link is to be deleted
	NetRemoved     Name = "net/removed"      // it is deleted, its connections are still known
	NetFilter      Name = "net/filter"       // the nftables table is to be replaced
	NetFilterSet   Name = "net/filter-set"   // the table is replaced, and not read back
)

// Point is a failpoint as the suite sees it.
type Point struct {
	Name Name
	// Fails: the step can fail there (Err, not Hit).
	Fails bool
}

// All returns all failpoints, in the order of this file.
func All() []Point {
	return []Point{
		{AgentBind, true}, {AgentBound, false}, {AgentAttached, true}, {AgentSettled, false}, {AgentDetach, true}, {AgentDetached, false}, {AgentRelease, true}, {AgentReleased, false}, {AgentForget, false}, {AgentAdopt, true}, {AgentAdopted, false},
		{RequestEntered, false}, {RequestWrite, true}, {RequestWritten, false}, {RequestDrop, true}, {RequestDropped, false}, {AttachmentBound, true}, {AttachmentUp, true}, {AttachmentDetached, true}, {AttachmentReleased, true}, {AttachmentDown, false},
		{FileCreated, true}, {FileSynced, true}, {FileRenamed, true},
		{HolderPicked, false}, {HolderBegun, false}, {HolderCommitted, false}, {HolderWritten, false}, {HolderReleasing, false}, {HolderReleased, false}, {HolderFlight, true}, {HolderReplicate, true}, {HolderReplicated, false}, {HolderForget, false}, {HolderStray, false}, {HolderMerged, true}, {HolderAdopted, false},
		{JournalAppend, true}, {JournalWritten, true}, {JournalSynced, false}, {JournalRewrite, true}, {JournalRewritten, true}, {JournalRenamed, true}, {JournalRotated, false},
		{RaftPropose, true}, {RaftProposed, false}, {RaftForward, true}, {RaftForwarded, false}, {RaftReceived, true}, {RaftAnswer, false}, {RaftLog, false}, {RaftLogged, false}, {RaftApply, false}, {RaftApplied, false},
		{SnapshotPersist, true}, {SnapshotPersisted, true}, {SnapshotNamed, false}, {SnapshotRead, false}, {SnapshotRestored, false},
		{BackupSave, true}, {BackupChecked, true}, {BackupSaved, true}, {BackupRestore, false}, {BackupRestored, false},
		{InitKeys, true}, {InitFilled, true}, {InitMoved, true}, {NodeClaim, false}, {NodeClaimed, false}, {NodeRemembered, false}, {NodePrepared, false}, {NodeUp, false},
		{JoinToken, true}, {JoinAnswered, true}, {JoinCertificate, false}, {JoinInstalled, true}, {JoinStored, false},
		{AdmitRegister, true}, {AdmitRegistered, true}, {AdmitSigned, true}, {AdmitAdded, false},
		{MemberChange, true}, {MemberChanged, false}, {TransferBegin, true}, {TransferDone, false}, {CAKeyReceived, true}, {LeaveHandOver, false}, {LeaveBury, true}, {LeaveBuried, false}, {LeaveOut, false},
		{HoldSeized, false}, {HoldAtExec, false}, {HoldRelease, false}, {HoldDetached, false},
		{RoutesApply, true}, {RoutesApplied, false},
		{NetBridge, true}, {NetBridgeSet, true}, {NetBridgeReady, true}, {NetLink, true}, {NetAlias, true}, {NetInside, true}, {NetRunning, true}, {NetAdopt, true}, {NetHalfMade, true}, {NetRemove, true}, {NetRemoved, false}, {NetFilter, true}, {NetFilterSet, true},
	}
}

// Names returns the names of All, as package failctl takes them.
func Names() []string {
	var out []string
	for _, p := range All() {
		out = append(out, string(p.Name))
	}
	return out
}
