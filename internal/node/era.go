package node

import (
	"cmp"
	"fmt"

	"stellar.io/stellar/ipam"
)

// era is one life of the cluster, from a restore or recovery to the next. Two
// survivors that are recovered separately make two of the same generation: then the
// higher life is the later era, so that both sides come to the same answer. The zero
// era is that of a node without a state.
type era struct {
	generation uint64
	life       uint32
}

func (e era) compare(f era) int {
	return cmp.Or(cmp.Compare(e.generation, f.generation), cmp.Compare(e.life, f.life))
}

func (e era) String() string {
	if e.life == 0 {
		return fmt.Sprint(e.generation)
	}
	return fmt.Sprintf("%d-%08x", e.generation, e.life)
}

// wire is the era in a greeting: the generation, with the life above it. Without a
// life it is what versions say that know of none.
func (e era) wire() uint64 { return uint64(e.life)<<32 | e.generation }

func eraOf(wire uint64) era { return era{generation: wire & (1<<32 - 1), life: uint32(wire >> 32)} }

// era is the cluster's, as this node's replica knows it.
func (p *parts) era() (e era) {
	if p.store == nil {
		return e
	}
	p.store.View(func(s *ipam.State) {
		if c, ok := s.Cluster(); ok {
			e = era{c.Generation, c.Life}
		}
	})
	return e
}

// greeting is the era that other nodes are told. A node that was left behind says
// that it has none: it may ask what it is, and to be taken back.
func (n *Node) greeting(p *parts) uint64 {
	if since, left := n.fence.left(); left && p.era().compare(since) < 0 {
		return 0
	}
	return p.era().wire()
}
