package integration

import (
	"slices"
	"testing"
	"time"

	"stellar.io/stellar/internal/testx/faults"
)

// partition is a class of trouble between nodes. begin makes it and returns; it ends
// when all hear all again.
type partition struct {
	name  string
	begin func(b *faultBed, leader *node, others []*node)
	again time.Duration // begin is called again after so long; 0: once
}

var partitions = []partition{
	{name: "leader alone", begin: func(_ *faultBed, leader *node, others []*node) {
		apart([]*node{leader}, others)
	}},
	{name: "majority and minority", begin: func(_ *faultBed, leader *node, others []*node) {
		apart([]*node{leader, others[0]}, others[1:])
	}},
	{name: "ring: each hears a majority, no two the same", begin: func(b *faultBed, _ *node, _ []*node) {
		for i, n := range b.nodes {
			n.deaf(100, b.nodes[(i+2)%5], b.nodes[(i+3)%5])
		}
	}},
	{name: "one way: the leader is not heard", begin: func(_ *faultBed, leader *node, others []*node) {
		for _, o := range others {
			o.deaf(100, leader)
		}
	}},
	{name: "one way: the leader hears nobody", begin: func(_ *faultBed, leader *node, others []*node) {
		leader.deaf(100, others...)
	}},
	{name: "flapping each second", again: time.Second, begin: func(b *faultBed, leader *node, others []*node) {
		if b.heal(); b.rng.IntN(2) == 0 {
			apart([]*node{leader}, others)
		}
	}},
	{name: "50% loss", begin: func(b *faultBed, _ *node, _ []*node) {
		for i, n := range b.nodes {
			n.deaf(50, append(append([]*node{}, b.nodes[:i]...), b.nodes[i+1:]...)...)
		}
	}},
}

// apart has nobody of one side hear anybody of the other.
func apart(side, other []*node) {
	for _, n := range side {
		n.deaf(100, other...)
	}
	for _, n := range other {
		n.deaf(100, side...)
	}
}

func (b *faultBed) heal() {
	for _, n := range b.nodes {
		n.hears()
	}
}

// TestFaultPartitions: five voters, each class of partition twice, under load. Every
// node goes on giving addresses, alone or not.
func TestFaultPartitions(t *testing.T) {
	const rounds, length = 2, 5 * time.Second
	b := startFaults(t, 5, faultOptions{})
	b.load()
	acked := map[string]int{}
	for range rounds {
		for _, p := range partitions {
			leader, others := leaderIn(t, b.nodes, b.nodes[0])
			since := b.hist.now()
			for began := time.Now(); time.Since(began) < length; {
				p.begin(b, leader, others)
				if p.again == 0 {
					time.Sleep(length)
				} else {
					time.Sleep(p.again)
				}
			}
			for _, n := range b.nodes {
				if b.hist.acked(n.name, since) == 0 {
					t.Errorf("%s: %s has acknowledged nothing", p.name, n.name)
				}
			}
			acked[p.name] += b.hist.acked("", since)
			b.heal()
			b.settled()
		}
	}
	v := b.finish()
	for _, p := range partitions {
		faults.Report(t, faults.Both, "partition: "+p.name, "%d × %s: %d calls acknowledged meanwhile", rounds, length, acked[p.name])
	}
	faults.Report(t, faults.Both, "partitions, all classes", "%s", v)
}

// TestFaultSlowLinks: what nodes say to each other takes 75 ms, ± 50 ms, each way.
func TestFaultSlowLinks(t *testing.T) {
	const rounds, length = 2, 6 * time.Second
	var links *slowLinks
	b := startFaults(t, 3, faultOptions{before: func(nodes []*node) { links = newSlowLinks(t, nodes) }})
	b.load()
	var took, before []time.Duration
	read := func() time.Duration {
		leader, others := leaderIn(t, b.nodes, b.nodes[0])
		began := time.Now()
		if out, err := others[0].run("ipam", "ls", "--linearizable"); err != nil {
			t.Errorf("a read by %s of what %s knows: %v\n%s", others[0].name, leader.name, err, out)
		}
		return time.Since(began)
	}
	for range 15 {
		before = append(before, read())
	}
	acked := 0
	for range rounds {
		since := b.hist.now()
		links.set(75*time.Millisecond, 50*time.Millisecond)
		for began := time.Now(); time.Since(began) < length; time.Sleep(200 * time.Millisecond) {
			took = append(took, read())
		}
		links.set(0, 0)
		for _, n := range b.nodes {
			if b.hist.acked(n.name, since) == 0 {
				t.Errorf("%s has acknowledged nothing over slow links", n.name)
			}
		}
		acked += b.hist.acked("", since)
		b.settled()
	}
	// The fastest of each: what else the machine does comes on top of both.
	slow, quick := slices.Min(took), slices.Min(before)
	if slow < quick+50*time.Millisecond {
		t.Errorf("the fastest read took %s, %s over quick links: they are not slow", slow, quick)
	}
	faults.Report(t, faults.Both, "slow links, 75 ± 50 ms each way", "%d × %s: %d calls acknowledged meanwhile, the fastest linearizable read %s (%s before); %s", rounds, length, acked, slow.Round(time.Millisecond), quick.Round(time.Millisecond), b.finish())
}
