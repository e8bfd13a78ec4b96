package integration

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"stellar.io/stellar/internal/config"
	"stellar.io/stellar/internal/failpoint"
	"stellar.io/stellar/internal/testx"
	"stellar.io/stellar/internal/testx/faults"
)

// crashCase says in which operation failpoints are reached.
type crashCase struct {
	op    string
	make  func(*crashBed) crashOp
	reach []failpoint.Name
}

// nodeCrashes are those of one node. Every failpoint is in this table or in those of
// clusters; some are in several.
var nodeCrashes = []crashCase{
	{"attach", (*crashBed).attach, []failpoint.Name{
		failpoint.AgentBind, failpoint.AgentBound, failpoint.AgentAttached, failpoint.AgentSettled,
		failpoint.HolderPicked, failpoint.HolderBegun, failpoint.HolderCommitted, failpoint.HolderWritten,
		failpoint.JournalAppend, failpoint.JournalWritten, failpoint.JournalSynced,
		failpoint.RaftPropose, failpoint.RaftLog, failpoint.RaftLogged, failpoint.RaftApply, failpoint.RaftApplied, failpoint.RaftProposed,
		failpoint.NetLink, failpoint.NetAlias, failpoint.NetInside, failpoint.NetRunning,
		failpoint.HoldSeized, failpoint.HoldRelease,
	}},
	{"attach late", (*crashBed).attachHeld, []failpoint.Name{failpoint.HoldAtExec, failpoint.HoldDetached}},
	{"half made", (*crashBed).halfMade, []failpoint.Name{failpoint.NetHalfMade}},
	{"in flight", (*crashBed).inFlight, []failpoint.Name{failpoint.HolderFlight}},
	{"rotate", (*crashBed).rotate, []failpoint.Name{
		failpoint.JournalRewrite, failpoint.JournalRewritten, failpoint.JournalRenamed, failpoint.JournalRotated,
	}},
	{"detach", (*crashBed).detach, []failpoint.Name{
		failpoint.AgentDetach, failpoint.AgentDetached, failpoint.AgentRelease, failpoint.AgentReleased, failpoint.AgentForget,
		failpoint.HolderReleasing, failpoint.HolderReleased, failpoint.HolderReplicate, failpoint.HolderReplicated, failpoint.HolderForget,
		failpoint.JournalWritten, failpoint.RaftPropose, failpoint.RaftApplied,
	}},
	{"cni add", (*crashBed).cniAdd, []failpoint.Name{
		failpoint.RequestEntered, failpoint.RequestWrite, failpoint.RequestWritten,
		failpoint.AttachmentBound, failpoint.AttachmentUp, failpoint.FileCreated, failpoint.FileSynced, failpoint.FileRenamed,
		failpoint.NetLink, failpoint.HolderWritten,
	}},
	{"cni add again", (*crashBed).cniAddAgain, []failpoint.Name{
		failpoint.RequestEntered, failpoint.RequestWritten, failpoint.AttachmentBound, failpoint.AttachmentUp, failpoint.NetAlias,
	}},
	{"cni del", (*crashBed).cniDel, []failpoint.Name{
		failpoint.AttachmentDetached, failpoint.AttachmentReleased, failpoint.RequestDrop, failpoint.RequestDropped,
		failpoint.NetRemove, failpoint.NetRemoved,
	}},
	{"cni down", (*crashBed).cniDown, []failpoint.Name{failpoint.AttachmentDown, failpoint.AgentDetach, failpoint.AgentDetached}},
	{"come back", (*crashBed).comeBack, []failpoint.Name{
		failpoint.NodeClaim, failpoint.NodeClaimed, failpoint.NodePrepared, failpoint.NodeUp,
		failpoint.HolderMerged, failpoint.HolderAdopted, failpoint.AgentAdopt, failpoint.AgentAdopted,
		failpoint.NetAdopt, failpoint.NetFilter, failpoint.NetFilterSet, failpoint.SnapshotRead, failpoint.SnapshotRestored,
	}},
	{"snapshot", (*crashBed).commands, []failpoint.Name{failpoint.SnapshotPersist, failpoint.SnapshotPersisted, failpoint.SnapshotNamed}},
	{"backup", (*crashBed).backup, []failpoint.Name{failpoint.BackupSave}},
	{"restore", (*crashBed).restore, []failpoint.Name{
		failpoint.BackupChecked, failpoint.BackupSave, failpoint.BackupSaved, failpoint.BackupRestore, failpoint.SnapshotNamed,
		failpoint.SnapshotRead, failpoint.SnapshotRestored, failpoint.BackupRestored, failpoint.HolderStray,
	}},
	{"reroute", (*crashBed).reroute, []failpoint.Name{failpoint.RoutesApply, failpoint.RoutesApplied}},
}

// firstDay are the failpoints of a node that is made.
var firstDay = []failpoint.Name{
	failpoint.InitKeys, failpoint.InitFilled, failpoint.InitMoved, failpoint.NodeRemembered,
	failpoint.NetBridge, failpoint.NetBridgeSet, failpoint.NetBridgeReady, failpoint.NetFilter,
	failpoint.JournalRewrite, failpoint.JournalRenamed, failpoint.FileCreated, failpoint.RoutesApply,
}

// inOrder returns list as it is, or in an order that the seed of a long run decides.
func inOrder[T any](t *testing.T, list []T) []T {
	t.Helper()
	seed := faults.Seed(t, "./integration")
	list = slices.Clone(list)
	if seed > 1 {
		rand.New(rand.NewPCG(seed, 0)).Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	}
	return list
}

// crashReport is the suite's row of crashes that have left nothing behind.
func crashReport(t *testing.T, where string, crashes int, began time.Time) {
	t.Helper()
	if !t.Failed() {
		faults.Report(t, faults.RealContainerd, "crash at failpoints, "+where,
			"%d crashes, 0 leaks, 0 doubles after one restart, in %s", crashes, time.Since(began).Round(time.Second))
	}
}

// newLoneBed makes a node with a container and a CNI client's attachment that stay.
func newLoneBed(t *testing.T) *crashBed {
	t.Helper()
	b := newCrashBed(t, testx.NewLAN(t, 1), 0)
	b.pod, b.keptPod = testx.NewNetNS(t), testx.NewNetNS(t)
	b.restart("--init")
	watchKernels(t, b.node).add(t, b.pod, b.keptPod)
	b.runs("anchor")
	b.must(b.add("kept", b.keptPod))
	b.check()
	return b
}

// each runs fn as a subtest of the bed's for every crash.
func (b *crashBed) each(t *testing.T, op string, p failpoint.Name, fn func()) {
	t.Run(op+"/"+strings.ReplaceAll(string(p), "/", "."), func(sub *testing.T) {
		b.node.t = sub
		defer func() { b.node.t = t }()
		fn()
	})
}

// TestFaultCrashNode: the agent of a node dies at each failpoint, within everything
// that reaches it, and is started once. Real containerd, runc, kernel and Raft.
func TestFaultCrashNode(t *testing.T) {
	b, began, crashes := newLoneBed(t), time.Now(), 0
	for _, c := range inOrder(t, nodeCrashes) {
		for _, p := range c.reach {
			b.each(t, c.op, p, func() { b.dies(p, c.make(b)) })
			crashes++
		}
	}
	b.checkAll(true)
	crashReport(t, "one node", crashes, began)
}

// TestFaultCrashFirstDay: the same for a node that is made, in whose network
// containers wait.
func TestFaultCrashFirstDay(t *testing.T) {
	b, began := newLoneBed(t), time.Now()
	for _, p := range inOrder(t, firstDay) {
		if b.mode == config.ModeRouted && strings.HasPrefix(string(p), string(failpoint.NetBridge)) {
			continue // there is none
		}
		b.each(t, "init", p, func() { b.makeNew(p) })
	}
	b.checkAll(true)
	crashReport(t, "a node that is made", len(firstDay), began)
}

// TestFaultCrashCovers: there is a crash for every failpoint. That the failpoint is
// reached there, each crash proves by its end.
func TestFaultCrashCovers(t *testing.T) {
	covered := map[failpoint.Name]bool{}
	for _, c := range nodeCrashes {
		for _, p := range c.reach {
			covered[p] = true
		}
	}
	for _, p := range firstDay {
		covered[p] = true
	}
	for _, list := range clusterCrashes {
		for _, p := range list {
			covered[p] = true
		}
	}
	for _, p := range failpoint.All() {
		if !covered[p.Name] {
			t.Errorf("no crash at %s: give it a case in nodeCrashes, firstDay or clusterCrashes", p.Name)
		}
	}
}
