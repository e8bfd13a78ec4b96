package ipam

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// check names the first broken rule of the tree's form.
func (t *tree[K, V]) check(fatal func(...any)) {
	if t.root == nil {
		if t.count != 0 {
			fatal("empty tree counts", t.count)
		}
		return
	}
	depth, count := -1, 0
	var walk func(n *treeNode[K, V], level int)
	walk = func(n *treeNode[K, V], level int) {
		count += len(n.entries)
		if len(n.entries) == 0 || len(n.entries) > treeMax {
			fatal("node with entries:", len(n.entries))
		}
		if n.children == nil {
			if depth >= 0 && depth != level {
				fatal("leaves at levels", depth, "and", level)
			}
			depth = level
			return
		}
		if len(n.children) != len(n.entries)+1 {
			fatal("entries and children:", len(n.entries), len(n.children))
		}
		for _, c := range n.children {
			walk(c, level+1)
		}
	}
	walk(t.root, 0)
	if count != t.count {
		fatal("tree counts", t.count, "has", count)
	}
}

func pairs(t *tree[int, int]) map[int]int { return maps.Collect(t.all()) }

// TestTreeAgainstMap runs random operations on a tree and on a map. The pattern
// of keys is part of the draw, since rising, falling and random ones split and
// merge nodes in different ways.
func TestTreeAgainstMap(t *testing.T) {
	t.Parallel()
	type frozen struct {
		tree tree[int, int]
		want map[int]int
	}
	rapid.Check(t, func(t *rapid.T) {
		tr, model := newTree[int, int](cmp.Compare[int]), map[int]int{}
		var snapshots []frozen
		for range rapid.IntRange(1, 40).Draw(t, "rounds") {
			first := rapid.IntRange(0, 2000).Draw(t, "first")
			count := rapid.IntRange(1, 300).Draw(t, "count")
			step := rapid.SampledFrom([]int{1, -1, 7, -13}).Draw(t, "step")
			remove := rapid.Bool().Draw(t, "remove")
			for i := range count {
				k := first + i*step
				_, had := model[k]
				if remove {
					if tr.delete(k) != had {
						t.Fatalf("delete(%d), want %v", k, had)
					}
					delete(model, k)
				} else {
					if tr.set(k, i) != had {
						t.Fatalf("set(%d), want %v", k, had)
					}
					model[k] = i
				}
			}
			tr.check(func(a ...any) { t.Fatal(a...) })
			if rapid.IntRange(0, 3).Draw(t, "snapshot") == 0 {
				snapshots = append(snapshots, frozen{tr.snapshot(), maps.Clone(model)})
			}
			checkFrom(t, &tr, model, rapid.IntRange(-100, 6000).Draw(t, "from"))
		}
		for _, s := range append(snapshots, frozen{tr, model}) {
			if diff := gocmp.Diff(s.want, pairs(&s.tree)); diff != "" {
				t.Fatal(diff)
			}
		}
	})
}

func checkFrom(t *rapid.T, tr *tree[int, int], model map[int]int, from int) {
	var want, got []int
	for _, k := range slices.Sorted(maps.Keys(model)) {
		if k >= from {
			want = append(want, k)
		}
	}
	for k, v := range tr.from(from) {
		if w, ok := tr.get(k); !ok || w != v || model[k] != v {
			t.Fatalf("get(%d) = %d, %v, want %d", k, w, ok, model[k])
		}
		got = append(got, k)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("from(%d): got %d keys, want %d", from, len(got), len(want))
	}
	if _, ok := tr.get(1 << 40); ok {
		t.Fatal("found what was never put")
	}
}

// TestTreeInOrder proves that keys which come in order leave full nodes behind.
func TestTreeInOrder(t *testing.T) {
	t.Parallel()
	tr := newTree[int, int](cmp.Compare[int])
	const n = 100_000
	for i := range n {
		tr.set(i, i)
	}
	nodes := 0
	var walk func(n *treeNode[int, int])
	walk = func(n *treeNode[int, int]) {
		nodes++
		for _, c := range n.children {
			walk(c)
		}
	}
	walk(tr.root)
	if limit := n*11/(10*treeMax) + 5; nodes > limit {
		t.Errorf("%d nodes, want at most %d", nodes, limit)
	}
	tr.check(t.Fatal)
	for i := range n {
		tr.delete(i)
	}
	if tr.root != nil || tr.len() != 0 {
		t.Error("tree is not empty")
	}
}

// TestTreeSnapshotIsolated has the race detector prove that writes to a tree
// never touch what a snapshot reads, nor the other way round.
func TestTreeSnapshotIsolated(t *testing.T) {
	t.Parallel()
	tr := newTree[int, int](cmp.Compare[int])
	for i := range 5000 {
		tr.set(i, 0)
	}
	var wg sync.WaitGroup
	for round := 1; round <= 4; round++ {
		s := tr.snapshot()
		wg.Go(func() {
			for range 3 {
				for k, v := range s.all() {
					if v != round-1 {
						t.Errorf("round %d: %d = %d", round, k, v)
						return
					}
				}
			}
			s.set(-1, -1)
			s.delete(17)
		})
		for i := range 5000 {
			tr.set(i, round)
		}
	}
	wg.Wait()
	if _, ok := tr.get(-1); ok {
		t.Error("a snapshot's write is in the tree")
	}
	if _, ok := tr.get(17); !ok {
		t.Error("a snapshot's delete is in the tree")
	}
}

// TestTreeStopsEarly proves that a consumer may stop a walk at any entry.
func TestTreeStopsEarly(t *testing.T) {
	t.Parallel()
	tr := newTree[int, int](cmp.Compare[int])
	for i := range 1000 {
		tr.set(i, i)
	}
	for stop := range 1000 {
		seen := 0
		for k := range tr.all() {
			seen++
			if k == stop {
				break
			}
		}
		if seen != stop+1 {
			t.Fatalf("saw %d of %d", seen, stop+1)
		}
	}
}
