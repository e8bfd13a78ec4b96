package node

import (
	"context"
	"errors"
	"time"

	"stellar.io/stellar/api"
	"stellar.io/stellar/internal/failpoint"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore"
)

// leavePatience is how long a node that leaves waits for its end in Raft; the leader
// sees to that in any case.
const leavePatience = 3 * time.Second

// RemoveNode implements server.NodeAdmin. Order: a leader hands over first, for with
// the tombstone nobody speaks with it any more; then the tombstone, so that nothing
// is handed out to the node; then Raft.
func (n *Node) RemoveNode(ctx context.Context, r api.NodeRemoval) (out api.Removal, err error) {
	p, err := n.ready()
	if err != nil {
		return out, err
	}
	id := ipam.NodeID(r.Node)
	var held ipam.SubnetKey
	p.store.View(func(s *ipam.State) {
		if m, ok := s.Node(id); ok {
			out.Node, out.ID = m.Name, string(m.ID)
		}
		for sub := range s.SubnetsOf(id) {
			held = sub.SubnetKey
		}
	})
	if id == n.id.ID && errors.Is(n.cutOff(p), errRemoved) {
		return out, nil // it has left before: what it knows of the cluster is old
	}
	if err := p.survives(ctx, id, r.Force); err != nil {
		return out, err
	}
	if !r.Force {
		if err := p.inUse(id); err != nil { // what will be refused need not begin
			return out, err
		}
	}
	// Who leaves by force is alive, and force is about its containers. Another that is
	// removed by force may be dead: then its key is taken if it answers after all.
	if err := n.keepsCAKey(ctx, p, id); err != nil && (!r.Force || id == n.id.ID) {
		return out, err
	}
	failpoint.Hit(failpoint.LeaveHandOver)
	if err := p.handOver(ctx, id, r.Force); err != nil {
		return out, err
	}
	if err := failpoint.Err(failpoint.LeaveBury); err != nil {
		return out, err
	}
	if err := n.bury(ctx, p, ipam.RemoveNode{Node: id, Force: r.Force, Dead: r.Dead}); err != nil {
		return out, err
	}
	failpoint.Hit(failpoint.LeaveBuried)
	if err := n.outOfRaft(ctx, p, id, r.Force); err != nil {
		return out, err
	}
	failpoint.Hit(failpoint.LeaveOut)
	p.store.View(func(s *ipam.State) {
		if sub, ok := s.Subnet(held); ok {
			out.Subnet, out.SubnetState = sub.Prefix, sub.State.String()
		}
	})
	return out, nil
}

// handOver takes the leadership from a node that is to be removed, if it has it.
func (p *parts) handOver(ctx context.Context, id ipam.NodeID, force bool) error {
	if s := p.store.Stats(); s.Leader != id || s.Voters < 2 {
		return nil
	}
	if err := p.change(ctx, raftstore.Change{Op: raftstore.ChangeTransfer}); err != nil && !force {
		return outcome(err)
	}
	return nil
}

// bury makes the tombstone. A node that leaves may not hear the answer any more, but
// what the others say of it then.
func (n *Node) bury(ctx context.Context, p *parts, c ipam.RemoveNode) error {
	err := n.propose(ctx, p, c)
	if err == nil || c.Node != n.id.ID {
		return err
	}
	if n.ask(ctx, p, n.others(p)); errors.Is(n.cutOff(p), errRemoved) {
		return nil
	}
	return err
}

// outOfRaft ends the node's part in Raft.
func (n *Node) outOfRaft(ctx context.Context, p *parts, id ipam.NodeID, force bool) error {
	change := raftstore.Change{Op: raftstore.ChangeRemove, Node: id, Force: force}
	if id != n.id.ID {
		if err := p.change(ctx, change); err != nil {
			return outcome(err)
		}
		if p.port != nil {
			p.port.DropNode(id)
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, leavePatience)
	defer cancel()
	if err := p.store.Change(ctx, change); err != nil {
		n.log.Debug("the leader takes this node out of raft", "err", err)
	}
	return nil
}

// survives refuses a removal after which the other voters that answer would be
// no quorum.
func (p *parts) survives(ctx context.Context, id ipam.NodeID, force bool) error {
	voters, answering := 0, 0
	for _, other := range p.raftPeers(ctx) {
		if !other.Voter || other.ID == string(id) {
			continue
		}
		voters++
		if other.State != api.RaftSilent {
			answering++
		}
	}
	if p.votes(id) && voters == 0 {
		return api.Errorf(api.CodeConflict, "it is the last voter: without it nobody can decide").WithHint("promote another node first: stellar raft promote NAME")
	}
	if !force && answering < voters/2+1 {
		return api.Errorf(api.CodeConflict, "without that node %d voters are left, of which %d answer: %d are needed", voters, answering, voters/2+1)
	}
	return nil
}
