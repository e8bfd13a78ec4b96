package raftstore

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	autopilot "github.com/hashicorp/raft-autopilot"
)

// pilot connects autopilot, which watches the health of the members and makes the
// changes, to the store; who should vote is planVoters'. It is used while this node
// leads, by autopilot's goroutines.
type pilot struct {
	s    *Store
	ctx  context.Context // of this leadership: autopilot's interfaces have none
	raft *raft.Raft
	mu   sync.Mutex // one change at a time

	// The library (v0.3.0) never moves ServerHealth.StableSince: it compares a new
	// verdict with itself. So what has been well or unwell since when is kept here.
	healthMu sync.Mutex // guards health
	health   map[raft.ServerID]health
}

// health is the verdict on a member and when it became that.
type health struct {
	good  bool
	since time.Time
}

// runPilot keeps the voters until ctx, this node's leadership, ends.
func (s *Store) runPilot(ctx context.Context, r *raft.Raft) {
	if s.cfg.Voters < 0 {
		return
	}
	p := &pilot{s: s, ctx: ctx, raft: r}
	every := min(max(s.cfg.StabilizeTime/10, 20*time.Millisecond), time.Second)
	a := autopilot.New(pilotRaft{r, p}, p,
		autopilot.WithPromoter(p), autopilot.WithLogger(newHCLog(s.cfg.Logger)),
		autopilot.WithUpdateInterval(every), autopilot.WithReconcileInterval(every))
	a.Start(ctx)
	<-ctx.Done()
	<-a.Stop()
}

// AutopilotConfig implements autopilot.ApplicationIntegration. Nothing is ever
// removed.
func (p *pilot) AutopilotConfig() *autopilot.Config {
	return &autopilot.Config{
		CleanupDeadServers:      false,
		LastContactThreshold:    p.s.answersWithin(),
		MaxTrailingLogs:         maxTrail,
		ServerStabilizationTime: p.s.cfg.StabilizeTime,
	}
}

// NotifyState implements autopilot.ApplicationIntegration. It is called with every look
// at the members, the first of them included.
func (p *pilot) NotifyState(st *autopilot.State) {
	now := time.Now()
	p.healthMu.Lock()
	defer p.healthMu.Unlock()
	next := make(map[raft.ServerID]health, len(st.Servers))
	for id, s := range st.Servers {
		h, known := p.health[id]
		if !known || h.good != s.Health.Healthy {
			h = health{s.Health.Healthy, now}
		}
		next[id] = h
	}
	p.health = next
}

// FetchServerStats implements autopilot.ApplicationIntegration: what the leader
// hears anyway.
func (p *pilot) FetchServerStats(_ context.Context, known map[raft.ServerID]*autopilot.Server) map[raft.ServerID]*autopilot.ServerStats {
	stats := make(map[raft.ServerID]*autopilot.ServerStats, len(known))
	last := p.raft.LastIndex()
	lastTerm, _ := strconv.ParseUint(p.raft.Stats()["last_log_term"], 10, 64)
	for id := range known {
		st := &autopilot.ServerStats{LastContact: -1}
		if id == raft.ServerID(p.s.cfg.NodeID) {
			st.LastContact, st.LastIndex, st.LastTerm = 0, last, lastTerm
		} else if c := p.s.trans.contacts.get(id); !c.last.IsZero() && !c.regressed && c.match > 0 {
			// What matches our log has our terms.
			st.LastContact, st.LastIndex, st.LastTerm = time.Since(c.last), max(c.match, c.lastLog), lastTerm
		}
		stats[id] = st
	}
	return stats
}

// KnownServers implements autopilot.ApplicationIntegration.
func (p *pilot) KnownServers() map[raft.ServerID]*autopilot.Server {
	known := make(map[raft.ServerID]*autopilot.Server)
	for _, s := range servers(p.raft) {
		known[s.ID] = &autopilot.Server{
			ID: s.ID, Name: nodeID(s.ID).Short(), Address: s.Address,
			NodeStatus: autopilot.NodeAlive, // health is by contact alone
			IsLeader:   s.ID == raft.ServerID(p.s.cfg.NodeID),
		}
	}
	return known
}

// RemoveFailedServer implements autopilot.ApplicationIntegration. It is never called.
func (p *pilot) RemoveFailedServer(*autopilot.Server) {}

// GetServerExt implements autopilot.Promoter.
func (p *pilot) GetServerExt(*autopilot.Config, *autopilot.ServerState) any { return nil }

// GetStateExt implements autopilot.Promoter.
func (p *pilot) GetStateExt(*autopilot.Config, *autopilot.State) any { return nil }

// GetNodeTypes implements autopilot.Promoter.
func (p *pilot) GetNodeTypes(*autopilot.Config, *autopilot.State) map[raft.ServerID]autopilot.NodeType {
	return nil
}

// FilterFailedServerRemovals implements autopilot.Promoter.
func (p *pilot) FilterFailedServerRemovals(*autopilot.Config, *autopilot.State, *autopilot.FailedServers) *autopilot.FailedServers {
	return &autopilot.FailedServers{}
}

// IsPotentialVoter implements autopilot.Promoter.
func (p *pilot) IsPotentialVoter(autopilot.NodeType) bool { return true }

// CalculatePromotionsAndDemotions implements autopilot.Promoter.
func (p *pilot) CalculatePromotionsAndDemotions(_ *autopilot.Config, st *autopilot.State) autopilot.RaftChanges {
	now := time.Now()
	seats := make([]seat, 0, len(st.Servers))
	p.healthMu.Lock()
	known := p.health // replaced, never changed
	p.healthMu.Unlock()
	for id, s := range st.Servers {
		h, ok := known[id]
		if !ok {
			h.since = now
		}
		seats = append(seats, seat{
			id: id, voter: s.HasVotingRights(), leader: id == st.Leader,
			eligible: p.s.cfg.Eligible == nil || p.s.cfg.Eligible(nodeID(id)),
			healthy:  h.good, since: now.Sub(h.since),
		})
	}
	v := planVoters(p.s.cfg.Voters, p.s.cfg.StabilizeTime, p.s.cfg.DeadTime, seats)
	return autopilot.RaftChanges{Promotions: v.promote, Demotions: v.demote, Leader: v.leader}
}

// pilotRaft makes autopilot's changes the store's way: compared with the
// configuration they were planned for, and ending with the leadership.
type pilotRaft struct {
	*raft.Raft
	p *pilot
}

// AddVoter implements autopilot.Raft.
func (a pilotRaft) AddVoter(id raft.ServerID, _ raft.ServerAddress, _ uint64, _ time.Duration) raft.IndexFuture {
	return a.p.change(Change{Op: ChangePromote, Node: nodeID(id)})
}

// DemoteVoter implements autopilot.Raft.
func (a pilotRaft) DemoteVoter(id raft.ServerID, _ uint64, _ time.Duration) raft.IndexFuture {
	return a.p.change(Change{Op: ChangeDemote, Node: nodeID(id)})
}

// LeadershipTransferToServer implements autopilot.Raft.
func (a pilotRaft) LeadershipTransferToServer(id raft.ServerID, _ raft.ServerAddress) raft.Future {
	return finished{a.p.s.transfer(a.p.ctx, a.Raft, id)}
}

func (p *pilot) change(c Change) raft.IndexFuture {
	p.mu.Lock()
	defer p.mu.Unlock()
	err := p.s.reconfigure(p.ctx, p.raft, c, true)
	if err == nil {
		p.s.cfg.Logger.Info("changed who votes", "change", string(c.Op), "peer", c.Node.Short())
	}
	return finished{err}
}

// finished is the future of what has been done already.
type finished struct{ err error }

// Error implements raft.Future.
func (f finished) Error() error { return f.err }

// Index implements raft.IndexFuture.
func (f finished) Index() uint64 { return 0 }
