package integration

import (
	"testing"

	"stellar.io/stellar/internal/testx/bench"
)

// BenchmarkTable measures a node, a cluster and its peers and prints one table;
// `make bench` runs it. It takes some minutes. See envReport, envJSON and envQuick.
func BenchmarkTable(b *testing.B) {
	t := newTable(b)
	for _, s := range []struct {
		name  string
		bench func(*testing.B, *table)
	}{
		{"Attach", benchAttachSection}, {"Leases", benchLeaseRate}, {"State", benchState}, {"Node", benchOneNode}, {"Ready", benchReady},
		{"Runtime", benchRuntime}, {"Web", benchWeb}, {"Join", benchJoin}, {"Subnets", benchSubnets}, {"Routes", benchRoutes}, {"Node4k", benchFullNode},
		{"Cluster", benchCluster}, {"Followers", benchFollowers}, {"Throughput", benchThroughput},
	} {
		t.section(b, s.name, s.bench)
	}
}

// newTable is an empty table that is published when the benchmark ends.
func newTable(b *testing.B) *table {
	buildAll(b)
	t := &table{commit: commit(b), report: bench.Report{Machine: machine(b)}}
	// Nothing that is begun before is ended after this: what fails below still shows what
	// was measured, and a missed bar makes no node dump its log.
	b.Cleanup(func() { t.publish(b) })
	return t
}

// buildAll builds what sections measure beside the agent, which is built already: all of
// it is of one commit.
func buildAll(b *testing.B) {
	b.Helper()
	runcWrapper(b)
	if err := cniPlugins(); err != nil {
		b.Fatal(err)
	}
}

// benchOneNode measures one node.
func benchOneNode(b *testing.B, t *table) {
	benchByEvents(b, t)
	n := startBenchNode(b, true)
	benchHeld(b, t, n)
	benchCNI(b, t, n)
	before := n.rested(b)
	benchIdle(b, t, n)
	benchLeak(b, t, n, before)
}
