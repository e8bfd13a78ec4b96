package ipam

import "fmt"

// ForRestore returns the state that replaces live when the backup s is restored;
// live is nil, or without a cluster, where nothing is left of it or where a
// survivor is recovered in place. It starts a new generation, one above both
// sides', in re-claim, and the life of that generation, which the caller has drawn at
// random. What a backup cannot undo, because it is out in the world,
// is kept from either side:
//
//   - of each subnet the record with the higher epoch, and at the same epoch the
//     later state; its leases and inner reservations are that side's, the backup's
//     when both have the same. A subnet whose holder was removed is quarantined;
//   - the hand-out marks, the higher ones;
//   - tombstones; members of either side, as live describes them;
//   - reservations, but for the subnets that somebody has by now;
//   - tokens: used or revoked on one side is used or revoked.
//
// No request is remembered: what they did may be undone. Holders bring the leases
// of their subnets up to date from their journals.
//
// Neither state is changed, and the result's index is the higher of the two. What
// is applied to live afterwards is lost, so let nothing be. It is refused with
// ErrSnapshotCluster when the two have not one history, ErrNodeExists when a name
// would have two members, ErrNotInitialized when the backup is empty.
func (s *State) ForRestore(live *State, life uint32) (*State, error) {
	if s.cluster.ID == "" {
		return nil, ErrNotInitialized
	}
	alone := live == nil || live.cluster.ID == ""
	if alone {
		live = s
	}
	m := merger{backup: s, live: live, life: life, out: New()}
	if err := m.cluster(); err != nil {
		return nil, err
	}
	for _, step := range [...]func() error{m.networks, m.nodes, m.subnets, m.leases, m.reservations, m.tokens} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	if alone {
		copyTree(&m.out.forgotten, &s.forgotten)
		copyTree(&m.out.requests, &s.requests)
	} else {
		m.requests()
	}
	// As in Restore: rebuild trusts the tables.
	if err := m.out.tables.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSnapshotCluster, err)
	}
	m.out.rebuild()
	if err := m.out.checkDerived(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSnapshotCluster, err)
	}
	return m.out, nil
}

// merger makes one state of a backup and the live one.
type merger struct {
	backup, live *State
	life         uint32
	out          *State
	kept         map[SubnetKey]side // whose leases and inner reservations are kept
}

// side is one of the two states.
type side uint8

const (
	fromBackup side = iota + 1
	fromLive
)

func (m *merger) both() [2]*State { return [2]*State{m.backup, m.live} }

func (m *merger) cluster() error {
	b, l := m.backup.cluster, m.live.cluster
	if b.ID != l.ID {
		return fmt.Errorf("%w: backup of %s, this is %s", ErrSnapshotCluster, b.ID, l.ID)
	}
	generation := max(b.Generation, l.Generation) + 1
	if generation > maxGeneration {
		return fmt.Errorf("%w: generation %d", ErrInvalid, generation)
	}
	m.out.index = max(m.backup.index, m.live.index)
	m.out.cluster = clusterRecord{ID: b.ID, Generation: generation, Life: m.life, Time: max(b.Time, l.Time), Reclaim: true}
	return nil
}

func (m *merger) networks() error {
	copyTree(&m.out.networks, &m.backup.networks)
	for name, l := range m.live.networks.all() {
		if b, ok := m.backup.networks.get(name); ok {
			if b.ID != l.ID || b.Prefix != l.Prefix || b.SubnetBits != l.SubnetBits {
				return fmt.Errorf("%w: network %s is %s in the backup, %s here", ErrSnapshotCluster, name, b.Prefix, l.Prefix)
			}
			l.NextSubnet = max(b.NextSubnet, l.NextSubnet)
		}
		m.out.networks.set(name, l)
	}
	return nil
}

func (m *merger) nodes() error {
	copyTree(&m.out.nodes, &m.backup.nodes)
	for id, l := range m.live.nodes.all() {
		if b, ok := m.backup.nodes.get(id); !ok || !b.Removed {
			m.out.nodes.set(id, l)
		}
	}
	names := map[string]NodeID{}
	for id, n := range m.out.nodes.all() {
		if n.Removed {
			continue
		}
		if other, taken := names[n.Name]; taken {
			return fmt.Errorf("%s is %s in one and %s in the other: %w", n.Name, other.Short(), id.Short(), ErrNodeExists)
		}
		names[n.Name] = id
	}
	return nil
}

func (m *merger) tokens() error {
	copyTree(&m.out.tokens, &m.backup.tokens)
	for id, k := range m.live.tokens.all() {
		if b, ok := m.backup.tokens.get(id); ok {
			if b.SecretHash != k.SecretHash {
				return fmt.Errorf("%w: token %s differs", ErrSnapshotCluster, id)
			}
			k.Revoked = k.Revoked || b.Revoked
			if !k.Used() {
				k.UsedBy, k.KeyHash = b.UsedBy, b.KeyHash
			}
			k.Created, k.Changed = min(k.Created, b.Created), max(k.Changed, b.Changed)
		}
		m.out.tokens.set(id, k)
	}
	return nil
}

// requests makes every request that either side remembers a forgotten one, so
// that it is neither answered from memory nor taken for a new one.
func (m *merger) requests() {
	raise := func(id NodeID, seq uint64) {
		n, ok := m.out.nodes.get(id)
		if last, _ := m.out.forgotten.get(id); ok && !n.Removed && seq > last {
			m.out.forgotten.set(n.ID, seq)
		}
	}
	for _, s := range m.both() {
		for id, seq := range s.forgotten.all() {
			raise(id, seq)
		}
		for id := range s.requests.all() {
			raise(id.Node, id.Seq)
		}
	}
}

func copyTree[K, V any](to, from *tree[K, V]) {
	for k, v := range from.all() {
		to.set(k, v)
	}
}
