package main

import (
	"context"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/client"
)

func (a *app) raftCommand() *cobra.Command {
	return group("raft", "The consensus under the replicated state", "",
		a.raftPeersCommand(), a.raftStatsCommand(), a.raftHashCommand(), a.raftTransferCommand(),
		a.raftMemberCommand(promote), a.raftMemberCommand(demote), a.raftMemberCommand(remove),
		a.raftSnapshotCommand(), a.raftRecoverCommand())
}

var peerList = listing[api.RaftPeer]{
	kind: "RaftPeerList",
	name: func(p api.RaftPeer) string {
		if p.Node == "" {
			return p.ID
		}
		return p.Node
	},
	columns: []column[api.RaftPeer]{
		{head: "NODE", cell: func(p api.RaftPeer) string { return p.Node }},
		{head: "ID", cell: func(p api.RaftPeer) string { return p.ID }},
		{head: "ADDRESS", cell: func(p api.RaftPeer) string { return p.Address }},
		{head: "STATE", cell: func(p api.RaftPeer) string { return p.State }},
		{head: "VOTER", cell: func(p api.RaftPeer) string { return yesNo(p.Voter) }},
		{head: "COMMIT-INDEX", cell: func(p api.RaftPeer) string { return indexCell(p.CommitIndex) }},
		{head: "TRAILS-LEADER-BY", cell: trailCell},
	},
}

// indexCell writes an index; there is no index 0.
func indexCell(i uint64) string {
	if i == 0 {
		return ""
	}
	return strconv.FormatUint(i, 10)
}

func trailCell(p api.RaftPeer) string {
	if p.TrailsLeaderBy < 0 {
		return ""
	}
	return strconv.FormatInt(p.TrailsLeaderBy, 10)
}

func (a *app) raftPeersCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "peers", Short: "List the servers of Raft", Args: cobra.NoArgs,
		Long: "As this node knows them; the leader knows most. STATE is leader, follower, candidate,\n" +
			"silent (does not answer the leader) or regressed (has lost what it had acknowledged).",
	}
	return a.attach(cmd, calling{a, func(ctx context.Context, cl *client.Client, _ []string, stdout io.Writer) error {
		items, err := cl.RaftPeers(ctx)
		if err != nil {
			return err
		}
		return peerList.print(a, stdout, items)
	}}, callTimeout)
}

func printPeer(a *app, stdout io.Writer, p api.RaftPeer) error {
	return printObject(a, stdout, "RaftPeer", p, peerList.name(p), []field{
		{"Node", p.Node}, {"ID", p.ID}, {"Address", p.Address}, {"State", p.State}, {"Voter", yesNo(p.Voter)},
		{"Commit index", indexCell(p.CommitIndex)}, {"Trails leader by", trailCell(p)},
	})
}

func (a *app) raftStatsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "stats", Short: "Show the condition of Raft on this node", Args: cobra.NoArgs,
		Long: "The node answers for itself, whether a leader is reached or not. A member of Raft says\n" +
			"how many nodes follow it, how many entries the slowest of them was not sent yet, and how\n" +
			"many snapshots it has sent since its start. A node that follows a server has no part in\n" +
			"Raft: it says which server that is, whether it is connected, how far it is behind and how\n" +
			"long ago a server said something; what else it shows of Raft is that server's last word.",
	}
	return a.attach(cmd, calling{a, func(ctx context.Context, cl *client.Client, _ []string, stdout io.Writer) error {
		s, err := cl.RaftStats(ctx)
		if err != nil {
			return err
		}
		return printObject(a, stdout, "RaftStats", s, s.Node, statsFields(s))
	}}, callTimeout)
}

func statsFields(s api.RaftStats) []field {
	fields := []field{
		{"Node", s.Node}, {"State", s.State}, {"Error", s.Error}, {"Term", strconv.FormatUint(s.Term, 10)}, {"Leader", s.Leader},
		{"Last contact", heardCell(s.LastContact)}, {"Last index", indexCell(s.LastIndex)}, {"Commit index", indexCell(s.CommitIndex)},
		{"Applied index", indexCell(s.AppliedIndex)}, {"Ahead", indexCell(s.Ahead)}, {"Snapshot index", indexCell(s.SnapshotIndex)},
		{"Voters", strconv.Itoa(s.Voters)}, {"Servers", strconv.Itoa(s.Servers)}, {"Tolerates", strconv.Itoa(s.Tolerates)},
		{"Generation", strconv.FormatUint(s.Generation, 10)}, {"Log bytes", strconv.FormatInt(s.LogBytes, 10)},
	}
	if f := s.Followers; f != nil {
		fields = append(fields, field{"Followers", strconv.Itoa(f.Count)},
			field{"Slowest behind by", strconv.FormatUint(f.BehindMax, 10)}, field{"Snapshots sent", strconv.FormatUint(f.SnapshotsSent, 10)})
	}
	if f := s.Following; f != nil {
		fields = append(fields, field{"Follows", f.Server}, field{"Connected", yesNo(f.Connected)},
			field{"Behind by", strconv.FormatUint(f.Behind, 10)}, field{"Last beat", heardCell(f.LastBeat)},
			field{"Snapshots received", strconv.FormatUint(f.SnapshotsReceived, 10)})
	}
	return fields
}

// heardCell writes how long ago something was heard; negative: never.
func heardCell(age time.Duration) string {
	if age < 0 {
		return "never"
	}
	return age.Round(time.Millisecond).String()
}

func (a *app) raftHashCommand() *cobra.Command {
	var at uint64
	cmd := &cobra.Command{
		Use: "hash", Short: "Show the hash of this node's replicated state", Args: cobra.NoArgs,
		Long: "Nodes whose states have the same index have the same hash; --at compares them while\n" +
			"the cluster works.",
	}
	cmd.Flags().Uint64Var(&at, "at", 0, "wait until the state is at this index (default: the present one)")
	return a.attach(cmd, calling{a, func(ctx context.Context, cl *client.Client, _ []string, stdout io.Writer) error {
		h, err := cl.RaftHash(ctx, at)
		if err != nil {
			return err
		}
		return printObject(a, stdout, "RaftHash", h, h.Hash, []field{{"Node", h.Node}, {"Index", indexCell(h.Index)}, {"Hash", h.Hash}})
	}}, callTimeout)
}
