package integration

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"stellar.io/stellar/internal/testx/faults"
)

type opKind string

const (
	opAdd opKind = "add" // CNI's ADD: gives the owner an address, always the same one
	opDel opKind = "del" // CNI's DEL: takes it away
)

// operation is one call of a client. One without an answer may have happened at
// any time after its call, or never.
type operation struct {
	client    int
	node      string
	owner     string
	kind      opKind
	addr      string // what an acknowledged add gave
	acked     bool
	call, ret int64 // nanoseconds since the history began; ret counts only if acked
}

func (o operation) String() string {
	return fmt.Sprintf("[%.3f %.3f] client %d on %s: %s %s = %q acked %t", float64(o.call)/1e9, float64(o.ret)/1e9, o.client, o.node, o.kind, o.owner, o.addr, o.acked)
}

// history is what all clients did and were told.
type history struct {
	began time.Time
	mu    sync.Mutex // guards ops
	ops   []operation
}

func newHistory() *history { return &history{began: time.Now()} }

func (h *history) now() int64 { return int64(time.Since(h.began)) }

func (h *history) record(o operation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, o)
}

// acked counts the acknowledged operations of a node since then; of all, for "".
func (h *history) acked(node string, since int64) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, o := range h.ops {
		if o.acked && o.call >= since && (node == "" || o.node == node) {
			n++
		}
	}
	return n
}

func (h *history) snapshot() []operation {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.ops)
}

func (o operation) porcupine() porcupine.Operation {
	p := porcupine.Operation{ClientId: o.client, Input: o, Call: o.call, Return: o.ret}
	if !o.acked {
		p.Return = math.MaxInt64
	}
	return p
}

// States of an owner: no address, one that no client was told, or an address.
const (
	holdsNone    = ""
	holdsUnknown = "?"
)

// ownerModel: an owner's address is the same until a del.
var ownerModel = porcupine.NondeterministicModel{
	Init: func() []any { return []any{holdsNone} },
	Step: func(state, input, _ any) []any {
		held, o := state.(string), input.(operation)
		switch {
		case o.kind == opDel && o.acked:
			return []any{holdsNone}
		case o.kind == opDel:
			return []any{held, holdsNone}
		case !o.acked && held == holdsNone:
			return []any{holdsNone, holdsUnknown}
		case !o.acked:
			return []any{held}
		case held == holdsNone || held == holdsUnknown || held == o.addr:
			return []any{o.addr}
		}
		return nil
	},
	DescribeOperation: func(input, _ any) string { return input.(operation).String() },
}

// addressModel: an address has one owner at a time. An add whose answer was lost
// is not among its operations, since nobody knows its address: that permits more,
// never less.
var addressModel = porcupine.NondeterministicModel{
	Init: func() []any { return []any{""} },
	Step: func(state, input, _ any) []any {
		holder, o := state.(string), input.(operation)
		switch {
		case o.kind == opDel && holder != o.owner:
			return []any{holder}
		case o.kind == opDel && o.acked:
			return []any{""}
		case o.kind == opDel:
			return []any{holder, ""}
		case holder == "" || holder == o.owner:
			return []any{o.owner}
		}
		return nil
	},
	DescribeOperation: func(input, _ any) string { return input.(operation).String() },
}

// perOwner and perAddress are the histories that are judged one by one.
func perOwner(ops []operation) map[string][]operation {
	out := map[string][]operation{}
	for _, o := range ops {
		out[o.owner] = append(out[o.owner], o)
	}
	return out
}

func perAddress(ops []operation) map[string][]operation {
	had := map[string]map[string]bool{} // owner: its addresses
	for _, o := range ops {
		if o.kind == opAdd && o.acked {
			if had[o.owner] == nil {
				had[o.owner] = map[string]bool{}
			}
			had[o.owner][o.addr] = true
		}
	}
	out := map[string][]operation{}
	for _, o := range ops {
		if o.kind == opAdd && o.acked {
			out[o.addr] = append(out[o.addr], o)
		}
		for addr := range had[o.owner] {
			if o.kind == opDel {
				out[addr] = append(out[addr], o)
			}
		}
	}
	return out
}

// judge returns what cannot have happened had every address one owner at a time and
// every owner one address until its del, or what could not be judged in time.
func judge(ops []operation) (wrong []error) {
	for _, part := range []struct {
		what  string
		model porcupine.Model
		split map[string][]operation
	}{
		{"owner", ownerModel.ToModel(), perOwner(ops)},
		{"address", addressModel.ToModel(), perAddress(ops)},
	} {
		for key, ops := range part.split {
			var list []porcupine.Operation
			for _, o := range ops {
				list = append(list, o.porcupine())
			}
			if got := porcupine.CheckOperationsTimeout(part.model, list, time.Minute); got != porcupine.Ok {
				slices.SortFunc(ops, func(a, b operation) int { return cmp.Compare(a.call, b.call) })
				lines := make([]string, len(ops))
				for i, o := range ops {
					lines[i] = o.String()
				}
				wrong = append(wrong, verdictOf(got, "%s %s:\n  %s", part.what, key, strings.Join(lines, "\n  ")))
			}
		}
	}
	return wrong
}

// verdictOf is the error of a history that porcupine did not find possible.
func verdictOf(got porcupine.CheckResult, what string, args ...any) error {
	if got == porcupine.Illegal {
		return faults.Violation("impossible: "+what, args...)
	}
	return fmt.Errorf("not judged in time: "+what, args...)
}

// TestFaultHistoryChecker: the judge of all histories sees what is wrong, and only that.
func TestFaultHistoryChecker(t *testing.T) {
	add := func(owner, addr string, call, ret int64) operation {
		return operation{owner: owner, kind: opAdd, addr: addr, acked: addr != "", call: call, ret: ret}
	}
	del := func(owner string, acked bool, call, ret int64) operation {
		return operation{owner: owner, kind: opDel, acked: acked, call: call, ret: ret}
	}
	for _, tt := range []struct {
		name  string
		ops   []operation
		wrong int
	}{
		{"one after the other", []operation{add("a", "1", 0, 1), del("a", true, 2, 3), add("b", "1", 4, 5)}, 0},
		{"asked again", []operation{add("a", "1", 0, 1), add("a", "1", 2, 3)}, 0},
		{"doubled", []operation{add("a", "1", 0, 1), add("b", "1", 2, 3)}, 1},
		{"doubled at once", []operation{add("a", "1", 0, 9), add("b", "1", 1, 8)}, 1},
		{"given before it was given back", []operation{add("a", "1", 0, 1), add("b", "1", 2, 3), del("a", true, 4, 5)}, 1},
		{"given while it is given back", []operation{add("a", "1", 0, 1), add("b", "1", 3, 4), del("a", true, 2, 5)}, 0},
		{"lost: another address", []operation{add("a", "1", 0, 1), add("a", "2", 2, 3)}, 1},
		{"an answer that got lost", []operation{add("a", "", 0, 0), add("a", "1", 2, 3), del("a", true, 4, 5)}, 0},
		{"a del without an answer", []operation{add("a", "1", 0, 1), del("a", false, 2, 0), add("b", "1", 4, 5)}, 0},
		{"given before a del without an answer", []operation{add("a", "1", 0, 1), add("b", "1", 2, 3), del("a", false, 4, 0)}, 1},
		{"a del that came to nothing", []operation{add("a", "1", 0, 1), del("a", false, 2, 0), add("a", "1", 4, 5)}, 0},
		{"another address after a del without an answer", []operation{add("a", "1", 0, 1), del("a", false, 2, 0), add("a", "2", 4, 5)}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := judge(tt.ops)
			if len(got) != tt.wrong {
				t.Errorf("judged %v, want %d", got, tt.wrong)
			}
			for _, err := range got {
				if !faults.Final(err.Error()) {
					t.Errorf("a second run excuses: %v", err)
				}
			}
		})
	}
}
