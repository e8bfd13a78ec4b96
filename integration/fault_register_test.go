package integration

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"stellar.io/stellar/api"
)

// access is a write or a linearizable read of a register: why a block of addresses
// that no node holds is reserved, "" for not at all.
type access struct {
	block     string
	write     bool
	value     string
	node      string
	acked     bool
	call, ret int64
}

// registerModel: a read returns what the last write wrote.
var registerModel = porcupine.NondeterministicModel{
	Init: func() []any { return []any{""} },
	Step: func(state, input, _ any) []any {
		is, a := state.(string), input.(access)
		switch {
		case a.write && a.acked:
			return []any{a.value}
		case a.write:
			return []any{is, a.value}
		case a.value == is:
			return []any{is}
		}
		return nil
	},
}

// stale returns the blocks whose reads cannot be explained, and how many reads there were.
func stale(all []access) (blocks []error, reads int) {
	per := map[string][]porcupine.Operation{}
	for _, a := range all {
		op := porcupine.Operation{Input: a, Call: a.call, Return: a.ret}
		switch {
		case a.write && !a.acked:
			op.Return = math.MaxInt64
		case !a.write && !a.acked:
			continue // it says nothing
		case !a.write:
			reads++
		}
		per[a.block] = append(per[a.block], op)
	}
	for block, ops := range per {
		if got := porcupine.CheckOperationsTimeout(registerModel.ToModel(), ops, time.Minute); got != porcupine.Ok {
			text := ""
			for _, o := range ops {
				text += fmt.Sprintf("\n  %+v", o.Input)
			}
			blocks = append(blocks, verdictOf(got, "reads of %s:%s", block, text))
		}
	}
	return blocks, reads
}

// TestFaultRegisterChecker: a stale read is seen, a read during a write is none.
func TestFaultRegisterChecker(t *testing.T) {
	w := func(v string, acked bool, call, ret int64) access {
		return access{write: true, value: v, acked: acked, call: call, ret: ret}
	}
	r := func(v string, call, ret int64) access { return access{value: v, acked: true, call: call, ret: ret} }
	for _, tt := range []struct {
		name  string
		all   []access
		wrong int
	}{
		{"new", []access{w("1", true, 0, 1), r("1", 2, 3)}, 0},
		{"stale", []access{w("1", true, 0, 1), r("", 2, 3)}, 1},
		{"during the write", []access{w("1", true, 0, 5), r("", 2, 3), r("1", 3, 4)}, 0},
		{"back in time", []access{w("1", false, 0, 0), r("1", 2, 3), r("", 4, 5)}, 1},
		{"without an answer", []access{w("1", false, 0, 0), r("", 2, 3), r("1", 4, 5)}, 0},
	} {
		if got, _ := stale(tt.all); len(got) != tt.wrong {
			t.Errorf("%s: %v, want %d", tt.name, got, tt.wrong)
		}
	}
}

// register has clients write on some nodes and read on others.
type register struct {
	b    *faultBed
	mu   sync.Mutex // guards all
	all  []access
	stop func()
}

const (
	registerWriters = 2
	registerReaders = 4
	// registerTimeout outlasts a pause: a call that began before it ends after it.
	registerTimeout = 15 * time.Second
	writesPerBlock  = 20
)

func (b *faultBed) registers() *register {
	r := &register{b: b}
	ctx, cancel := context.WithCancel(b.t.Context())
	var wg sync.WaitGroup
	current := make([]atomic.Int64, registerWriters)
	for w := range registerWriters {
		wg.Go(func() { r.writer(ctx, w, &current[w], rand.New(rand.NewPCG(b.seed, uint64(2000+w)))) })
	}
	for i := range registerReaders {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(b.seed, uint64(3000+i)))
			for ctx.Err() == nil {
				r.read(block(i%registerWriters, current[i%registerWriters].Load()), rng)
				time.Sleep(time.Duration(rng.Int64N(int64(30 * time.Millisecond))))
			}
		})
	}
	r.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
	})
	b.t.Cleanup(r.stop)
	return r
}

// block is a subnet that nobody holds, another one for each writer and turn.
func block(writer int, turn int64) netip.Prefix {
	n := 400 + writer*300 + int(turn)%300 // of the 1,024 /26 in a /16
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, byte(n >> 2), byte(n << 6)}), 26)
}

func (r *register) pick(rng *rand.Rand) *node { return r.b.nodes[rng.IntN(len(r.b.nodes))] }

// writer writes one block for a while and then the next, at once where an answer
// stays away: so no block has more than one open write.
func (r *register) writer(ctx context.Context, w int, turn *atomic.Int64, rng *rand.Rand) {
	for seq := 0; ctx.Err() == nil; seq++ {
		at := block(w, turn.Load())
		a := access{block: at.String(), write: true, node: r.pick(rng).name, call: r.b.hist.now()}
		c := r.b.api[r.b.nodes[a.node[0]-'a']]
		call, cancel := context.WithTimeout(context.Background(), registerTimeout)
		var err error
		if seq%2 == 0 {
			a.value = fmt.Sprintf("write %d", seq)
			err = c.Reserve(call, api.Reservation{Prefix: at, Reason: a.value})
		} else {
			_, err = c.Release(call, api.Release{Prefix: at})
		}
		cancel()
		a.ret, a.acked = r.b.hist.now(), err == nil
		r.note(a)
		if err != nil || seq%writesPerBlock == writesPerBlock-1 {
			turn.Add(1)
			seq = -1
		}
		time.Sleep(time.Duration(rng.Int64N(int64(40 * time.Millisecond))))
	}
}

func (r *register) read(at netip.Prefix, rng *rand.Rand) {
	n := r.pick(rng)
	ctx, cancel := context.WithTimeout(context.Background(), registerTimeout)
	defer cancel()
	a := access{block: at.String(), node: n.name, call: r.b.hist.now()}
	got, err := r.b.api[n].Linearizable().Address(ctx, at.Addr().Next())
	a.ret, a.acked, a.value = r.b.hist.now(), err == nil, got.Reason
	r.note(a)
}

func (r *register) note(a access) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, a)
}

// judge ends the clients, fails the test for stale reads and says how many were fresh.
func (r *register) judge() (reads, written int) {
	r.b.t.Helper()
	r.stop()
	r.mu.Lock()
	all := slices.Clone(r.all)
	r.mu.Unlock()
	blocks, reads := stale(all)
	for _, b := range blocks {
		r.b.t.Error(b)
	}
	seen := map[string]bool{}
	for _, a := range all {
		if a.write && a.acked {
			written++
		}
		if !a.write && a.acked {
			seen[a.value] = true
		}
	}
	if reads < 100 || written < 50 || len(seen) < 5 {
		r.b.t.Errorf("%d reads with %d values and %d writes prove nothing", reads, len(seen), written)
	}
	return reads, written
}
