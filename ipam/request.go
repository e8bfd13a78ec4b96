package ipam

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"slices"
)

// MaxCommands is how many commands an envelope may hold; a larger one is refused whole.
const MaxCommands = 1024

// What is remembered of each node: the requests with the highest Seq, at most so
// many and with at most so many results together.
const (
	maxRequests = 128
	maxResults  = 2 * MaxCommands
)

// requestRecord is a remembered request. Only codes and values are kept, no
// texts, for the wording may differ between versions while the state may not.
type requestRecord struct {
	Sum     uint64 // fingerprint of the entry
	Count   uint32 // number of results
	Results string // their encodings
}

// window counts what is remembered of one node.
type window struct {
	requests int
	results  int
}

func compareRequestIDs(a, b RequestID) int {
	if c := cmp.Compare(a.Node, b.Node); c != 0 {
		return c
	}
	return cmp.Compare(a.Seq, b.Seq)
}

// fingerprint tells an entry from others (FNV-1a; it guards against mistakes,
// not against attackers).
func fingerprint(data []byte) uint64 {
	h := fnv.New64a()
	h.Write(data)
	return h.Sum64()
}

// recall returns the answer to a request that must not be executed: one that was
// executed before, one of which that cannot be told, one that is malformed.
func (s *State) recall(env Envelope, sum uint64) ([]Result, bool) {
	id := env.Request
	if len(env.Commands) > MaxCommands {
		return refuseAll(env, fmt.Errorf("%w: %d commands, at most %d", ErrInvalid, len(env.Commands), MaxCommands)), true
	}
	if id == (RequestID{}) {
		return nil, false
	}
	if !id.Node.Valid() || id.Seq == 0 {
		return refuseAll(env, fmt.Errorf("%w: request id", ErrInvalid)), true
	}
	if r, ok := s.requests.get(id); ok {
		if r.Sum != sum || int(r.Count) != len(env.Commands) {
			return refuseAll(env, fmt.Errorf("%s/%d: %w", id.Node.Short(), id.Seq, ErrRequestReused)), true
		}
		return decodeResults(r), true
	}
	if last, ok := s.forgotten.get(id.Node); ok && id.Seq <= last {
		return refuseAll(env, fmt.Errorf("%s/%d: %w", id.Node.Short(), id.Seq, ErrRequestForgotten)), true
	}
	return nil, false
}

func refuseAll(env Envelope, err error) []Result {
	return slices.Repeat([]Result{{Err: err}}, len(env.Commands))
}

// remember keeps the results of a request of a member. Those of strangers are
// not kept, so that the table cannot grow beyond the members.
func (s *State) remember(id RequestID, sum uint64, results []Result) {
	if id == (RequestID{}) {
		return
	}
	n, ok := s.nodes.get(id.Node)
	if !ok || n.Removed {
		return
	}
	id.Node = n.ID // one string for all records of the node
	s.requests.set(id, requestRecord{Sum: sum, Count: uint32(len(results)), Results: encodeResults(results)})
	w := s.windows[id.Node]
	w.requests++
	w.results += len(results)
	for w.requests > 1 && (w.requests > maxRequests || w.results > maxResults) {
		w = s.forgetOldest(id.Node, w)
	}
	s.windows[id.Node] = w
}

// forgetOldest drops the remembered request of a node with the lowest Seq.
func (s *State) forgetOldest(node NodeID, w window) window {
	for k, r := range s.requests.from(RequestID{Node: node}) {
		s.requests.delete(k)
		s.forgotten.set(node, k.Seq)
		return window{requests: w.requests - 1, results: w.results - int(r.Count)}
	}
	return w
}

// forgetNode drops all that is remembered of a node that was removed.
func (s *State) forgetNode(node NodeID) {
	for w := s.windows[node]; w.requests > 0; {
		w = s.forgetOldest(node, w)
	}
	s.forgotten.delete(node)
	delete(s.windows, node)
}

func encodeResults(results []Result) string {
	e := &encoder{}
	for _, r := range results {
		e.result(r)
	}
	return string(e.buf)
}

// decodeResults is the inverse of encodeResults; the record is known to be good.
func decodeResults(r requestRecord) []Result {
	d := &decoder{buf: []byte(r.Results)}
	results := make([]Result, 0, r.Count)
	for range r.Count {
		results = append(results, d.result())
	}
	return results
}
