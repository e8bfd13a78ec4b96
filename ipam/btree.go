package ipam

import (
	"iter"
	"slices"
)

// A node of a tree holds at most treeMax entries. 63 entries of 48 bytes fill a
// 3 KiB size class; three levels hold a quarter of a million leases, four any number.
const (
	treeMax = 63
	treeMin = treeMax / 2
)

// tree is an ordered map that can be copied in O(1): a B-tree whose nodes are
// copied on the first write after a snapshot. It answers two problems: a
// snapshot may not stop Apply, however large the state is, and it must come out
// in the same order on every node.
//
// A tree is not safe for concurrent use. Its snapshots are: a snapshot may be
// read while the original is written, since no node that two trees share is ever
// written again.
//
// Unlike in a textbook B-tree, nodes may be underfull (never empty): a node that
// overflows at its end is split unevenly, so that entries which come in order
// leave full nodes behind.
type tree[K, V any] struct {
	root  *treeNode[K, V]
	count int
	cmp   func(a, b K) int
	owner *treeOwner
}

// treeOwner is the identity of the one tree that may write a node. It has a
// size, because two pointers to zero-size values may be equal.
type treeOwner struct{ _ byte }

type treeEntry[K, V any] struct {
	key   K
	value V
}

type treeNode[K, V any] struct {
	owner    *treeOwner
	entries  []treeEntry[K, V]
	children []*treeNode[K, V] // nil in a leaf, else len(entries)+1
}

func newTree[K, V any](cmp func(a, b K) int) tree[K, V] {
	return tree[K, V]{cmp: cmp, owner: new(treeOwner)}
}

// snapshot returns a copy of t in O(1). Both may be written afterwards, each by
// its own goroutine.
func (t *tree[K, V]) snapshot() tree[K, V] {
	t.owner = new(treeOwner)
	return tree[K, V]{root: t.root, count: t.count, cmp: t.cmp, owner: new(treeOwner)}
}

func (t *tree[K, V]) len() int { return t.count }

func (t *tree[K, V]) get(k K) (V, bool) {
	for n := t.root; n != nil; {
		i, found := t.search(n, k)
		if found {
			return n.entries[i].value, true
		}
		if n.children == nil {
			break
		}
		n = n.children[i]
	}
	var zero V
	return zero, false
}

// set puts v at k and reports whether k was there before.
func (t *tree[K, V]) set(k K, v V) bool {
	if t.root == nil {
		t.root = &treeNode[K, V]{owner: t.owner}
	}
	t.root = t.own(t.root)
	if len(t.root.entries) >= treeMax {
		old := t.root
		t.root = &treeNode[K, V]{owner: t.owner, children: []*treeNode[K, V]{old}}
		t.split(t.root, 0, k)
	}
	replaced := t.insert(t.root, k, v)
	if !replaced {
		t.count++
	}
	return replaced
}

// insert walks down from n, which is owned and not full.
func (t *tree[K, V]) insert(n *treeNode[K, V], k K, v V) bool {
	for {
		i, found := t.search(n, k)
		if found {
			n.entries[i].value = v
			return true
		}
		if n.children == nil {
			n.entries = slices.Insert(n.entries, i, treeEntry[K, V]{k, v})
			return false
		}
		if len(n.children[i].entries) >= treeMax {
			t.split(n, i, k)
			continue
		}
		n = t.ownChild(n, i)
	}
}

// split divides the full child i of n, which is owned and not full, for an
// insertion of k. It favours the left side when k goes to the very end.
func (t *tree[K, V]) split(n *treeNode[K, V], i int, k K) {
	left := t.ownChild(n, i)
	at := treeMin
	if t.cmp(k, left.entries[treeMax-1].key) > 0 {
		at = treeMax - 2
	}
	mid := left.entries[at]
	right := &treeNode[K, V]{owner: t.owner}
	right.entries = append(make([]treeEntry[K, V], 0, treeMax), left.entries[at+1:]...)
	clear(left.entries[at:])
	left.entries = left.entries[:at]
	if left.children != nil {
		right.children = append(make([]*treeNode[K, V], 0, treeMax+1), left.children[at+1:]...)
		clear(left.children[at+1:])
		left.children = left.children[:at+1]
	}
	n.entries = slices.Insert(n.entries, i, mid)
	n.children = slices.Insert(n.children, i+1, right)
}

// delete removes k and reports whether it was there.
func (t *tree[K, V]) delete(k K) bool {
	if _, ok := t.get(k); !ok {
		return false
	}
	t.root = t.own(t.root)
	t.remove(t.root, k)
	for t.root != nil && len(t.root.entries) == 0 {
		if t.root.children == nil {
			t.root = nil
		} else {
			t.root = t.root.children[0]
		}
	}
	t.count--
	return true
}

// remove deletes k, which is there, below n, which is owned. Before it goes down
// it refills the child, so that no node but the root (or a chain of only
// children below it, which delete cuts off) can become empty.
func (t *tree[K, V]) remove(n *treeNode[K, V], k K) {
	for {
		i, found := t.search(n, k)
		switch {
		case n.children == nil:
			n.entries = slices.Delete(n.entries, i, i+1)
			return
		case t.refill(n, i):
			continue // the entries of n have moved
		case found:
			n.entries[i] = t.removeMax(t.ownChild(n, i))
			return
		}
		n = t.ownChild(n, i)
	}
}

// removeMax takes the largest entry out of the subtree at n, which is owned.
func (t *tree[K, V]) removeMax(n *treeNode[K, V]) treeEntry[K, V] {
	for n.children != nil {
		for t.refill(n, len(n.children)-1) {
		}
		n = t.ownChild(n, len(n.children)-1)
	}
	last := n.entries[len(n.entries)-1]
	n.entries = slices.Delete(n.entries, len(n.entries)-1, len(n.entries))
	return last
}

// refill makes sure that child i of n can lose an entry and its children can be
// merged. It reports whether it changed n: then look again, in n and in the child.
func (t *tree[K, V]) refill(n *treeNode[K, V], i int) bool {
	if len(n.children[i].entries) > treeMin || len(n.entries) == 0 {
		return false
	}
	switch {
	case i > 0 && len(n.children[i-1].entries) > treeMin:
		t.borrowLeft(n, i)
	case i < len(n.entries) && len(n.children[i+1].entries) > treeMin:
		t.borrowRight(n, i)
	case i > 0:
		t.merge(n, i-1)
	default:
		t.merge(n, i)
	}
	return true
}

func (t *tree[K, V]) borrowLeft(n *treeNode[K, V], i int) {
	left, child := t.ownChild(n, i-1), t.ownChild(n, i)
	last := len(left.entries) - 1
	child.entries = slices.Insert(child.entries, 0, n.entries[i-1])
	n.entries[i-1] = left.entries[last]
	left.entries = slices.Delete(left.entries, last, last+1)
	if child.children != nil {
		child.children = slices.Insert(child.children, 0, left.children[last+1])
		left.children = slices.Delete(left.children, last+1, last+2)
	}
}

func (t *tree[K, V]) borrowRight(n *treeNode[K, V], i int) {
	child, right := t.ownChild(n, i), t.ownChild(n, i+1)
	child.entries = append(child.entries, n.entries[i])
	n.entries[i] = right.entries[0]
	right.entries = slices.Delete(right.entries, 0, 1)
	if child.children != nil {
		child.children = append(child.children, right.children[0])
		right.children = slices.Delete(right.children, 0, 1)
	}
}

// merge joins children i and i+1 of n and the entry between them.
func (t *tree[K, V]) merge(n *treeNode[K, V], i int) {
	left, right := t.ownChild(n, i), n.children[i+1]
	left.entries = append(append(left.entries, n.entries[i]), right.entries...)
	if left.children != nil {
		left.children = append(left.children, right.children...)
	}
	n.entries = slices.Delete(n.entries, i, i+1)
	n.children = slices.Delete(n.children, i+1, i+2)
}

// own returns n if t may write it, else a copy that t may write.
func (t *tree[K, V]) own(n *treeNode[K, V]) *treeNode[K, V] {
	if n.owner == t.owner {
		return n
	}
	c := &treeNode[K, V]{owner: t.owner}
	c.entries = append(make([]treeEntry[K, V], 0, treeMax), n.entries...)
	if n.children != nil {
		c.children = append(make([]*treeNode[K, V], 0, treeMax+1), n.children...)
	}
	return c
}

func (t *tree[K, V]) ownChild(n *treeNode[K, V], i int) *treeNode[K, V] {
	c := t.own(n.children[i])
	n.children[i] = c
	return c
}

// search returns the place of the first entry of n that is not below k.
func (t *tree[K, V]) search(n *treeNode[K, V], k K) (int, bool) {
	lo, hi := 0, len(n.entries)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		switch c := t.cmp(n.entries[mid].key, k); {
		case c < 0:
			lo = mid + 1
		case c > 0:
			hi = mid
		default:
			return mid, true
		}
	}
	return lo, false
}

// all yields every entry in ascending order. The tree may not be written meanwhile.
func (t *tree[K, V]) all() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		if t.root != nil {
			t.root.walk(yield)
		}
	}
}

// from yields the entries that are not below k, in ascending order.
func (t *tree[K, V]) from(k K) iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		if t.root != nil {
			t.walkFrom(t.root, k, yield)
		}
	}
}

func (n *treeNode[K, V]) walk(yield func(K, V) bool) bool {
	for i := range n.entries {
		if n.children != nil && !n.children[i].walk(yield) {
			return false
		}
		if !yield(n.entries[i].key, n.entries[i].value) {
			return false
		}
	}
	return n.children == nil || n.children[len(n.entries)].walk(yield)
}

func (t *tree[K, V]) walkFrom(n *treeNode[K, V], k K, yield func(K, V) bool) bool {
	at, found := t.search(n, k)
	if n.children != nil && !found && !t.walkFrom(n.children[at], k, yield) {
		return false
	}
	for i := at; i < len(n.entries); i++ {
		if !yield(n.entries[i].key, n.entries[i].value) {
			return false
		}
		if n.children != nil && !n.children[i+1].walk(yield) {
			return false
		}
	}
	return true
}
