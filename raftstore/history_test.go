package raftstore

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"stellar.io/stellar/ipam"
)

// history is what clients did to leases and what they were told. An operation whose
// outcome is not known may take effect at any later time, or never.
type history struct {
	mu      sync.Mutex // guards the block
	ops     []porcupine.Operation
	unknown int
}

type opKind uint8

const (
	opBind opKind = iota + 1
	opRelease
	opRead
)

// leaseOp is an operation on one address.
type leaseOp struct {
	kind opKind
	addr netip.Addr
	who  int // of the address's owners, from 1
}

// leaseAnswer is what it was answered.
type leaseAnswer struct {
	unknown bool
	taken   bool // bind: by another
	holder  int  // read: who has it, 0 for nobody
}

// leaseModel is the promise for one address: who was told to have it has it until it
// is released. The state is the owner, 0 for nobody.
var leaseModel = porcupine.Model{
	Partition: func(ops []porcupine.Operation) [][]porcupine.Operation {
		byAddr := map[netip.Addr]int{}
		var parts [][]porcupine.Operation
		for _, op := range ops {
			a := op.Input.(leaseOp).addr
			i, ok := byAddr[a]
			if !ok {
				i = len(parts)
				byAddr[a], parts = i, append(parts, nil)
			}
			parts[i] = append(parts[i], op)
		}
		return parts
	},
	Init: func() any { return 0 },
	Step: func(state, input, output any) (bool, any) {
		has, in, out := state.(int), input.(leaseOp), output.(leaseAnswer)
		switch in.kind {
		case opBind:
			free := has == 0 || has == in.who
			if free {
				return out.unknown || !out.taken, in.who
			}
			return out.unknown || out.taken, has
		case opRelease:
			if has == in.who {
				has = 0
			}
			return true, has
		}
		return out.holder == has, has
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v → %+v", input, output) },
}

// did notes an operation that began at call. An unknown outcome leaves it open.
func (h *history) did(client int, op leaseOp, call int64, answer leaseAnswer) {
	end := now()
	h.mu.Lock()
	defer h.mu.Unlock()
	if answer.unknown {
		end = math.MaxInt64
		h.unknown++
	}
	h.ops = append(h.ops, porcupine.Operation{ClientId: client, Input: op, Output: answer, Call: call, Return: end})
}

func (h *history) check(t *testing.T) {
	t.Helper()
	for _, part := range leaseModel.Partition(h.ops) {
		switch porcupine.CheckOperationsTimeout(leaseModel, part, time.Minute) {
		case porcupine.Illegal:
			t.Errorf("what was told of %s is not linearizable:", part[0].Input.(leaseOp).addr)
			for _, op := range part {
				t.Logf("%d–%d client %d: %s", op.Call, op.Return, op.ClientId, leaseModel.DescribeOperation(op.Input, op.Output))
			}
		case porcupine.Unknown:
			t.Errorf("what was told of %s could not be judged in time: %d operations", part[0].Input.(leaseOp).addr, len(part))
		}
	}
}

var began = time.Now()

// now is monotonic.
func now() int64 { return int64(time.Since(began)) }

// fuzzKeys is how many addresses each client's subnet has in the game. Every client
// works on all subnets.
const fuzzKeys = 2

// client does one thing after the other through any node, until the end.
func (z *fuzz) client(i int, rng *rand.Rand) {
	for seq := uint64(1); time.Now().Before(z.end); seq++ {
		op := leaseOp{kind: opKind(1 + rng.IntN(3)), who: 1 + rng.IntN(3)}
		sub := z.subnets[rng.IntN(len(z.subnets))]
		op.addr = bind(sub, 2+rng.IntN(fuzzKeys), "").Addr
		z.run(i, rng.IntN(fuzzNodes), seq, sub, op)
		time.Sleep(time.Duration(rng.IntN(20)) * time.Millisecond)
	}
}

// run takes one operation through the at-th node, for some time.
func (z *fuzz) run(client, at int, seq uint64, sub ipam.Subnet, op leaseOp) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	call := now()
	if op.kind == opRead {
		s := z.store(at)
		if s.LinearizableRead(ctx) != nil {
			return false
		}
		answer := leaseAnswer{}
		s.View(func(st *ipam.State) {
			if l, ok := st.Lease(op.addr); ok && l.State != ipam.Cooling {
				answer.holder = int(l.Owner.Created)
			}
		})
		z.history.did(client, op, call, answer)
		return true
	}
	who := owner(op.addr.String())
	who.Created = int64(op.who)
	// Each client uses the request ids of one node.
	env := ipam.Envelope{Request: ipam.RequestID{Node: idOf(client), Seq: seq}, Commands: []ipam.Command{
		ipam.BindLease{Fence: sub.Fence(), Addr: op.addr, Owner: who},
	}}
	if op.kind == opRelease {
		env.Commands[0] = ipam.ReleaseLease{Fence: sub.Fence(), Addr: op.addr, Owner: who}
	}
	doubt := false
	for {
		results, err := z.store(at).Propose(ctx, env)
		switch {
		case err == nil && (results[0].Err == nil || errors.Is(results[0].Err, ipam.ErrAddressTaken)):
			z.history.did(client, op, call, leaseAnswer{taken: results[0].Err != nil})
			return true
		case err == nil:
			z.t.Errorf("%+v: %v", op, results[0].Err)
			return false
		}
		doubt = doubt || errors.Is(err, ErrUnknownOutcome)
		if ctx.Err() != nil {
			if doubt {
				z.history.did(client, op, call, leaseAnswer{unknown: true})
			}
			return false
		}
		at++ // the same request, through another node
		time.Sleep(10 * time.Millisecond)
	}
}

// readAll reads every address at the end: what was acknowledged is there.
func (z *fuzz) readAll() {
	for _, sub := range z.subnets {
		for k := range fuzzKeys {
			op := leaseOp{kind: opRead, addr: bind(sub, 2+k, "").Addr}
			z.retry(func() error {
				if !z.run(fuzzClients, z.rng.IntN(len(z.nodes)), 0, sub, op) {
					return ErrNoLeader
				}
				return nil
			})
		}
	}
}
