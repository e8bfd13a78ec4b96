package integration

import "testing"

// BenchmarkTable measures a node, a cluster and its peers and prints one table;
// `make bench` runs it. It takes some minutes. See envReport, envJSON and envQuick.
func BenchmarkTable(b *testing.B) {
	t := &table{}
	// The first cleanup is the last to run: what fails below still shows what was
	// measured before it, and a missed bar makes no node dump its log.
	b.Cleanup(func() { t.publish(b) })
	t.Machine = append(t.Machine, load("before"))
	for _, s := range []struct {
		name  string
		bench func(*testing.B, *table)
	}{
		{"Node", benchOneNode}, {"Ready", benchReady}, {"Runtime", benchRuntime}, {"Join", benchJoin}, {"Subnets", benchSubnets}, {"Routes", benchRoutes}, {"Cluster", benchCluster},
		{"Throughput", benchThroughput},
	} {
		// Each with an end of its own: what one has started does not slow the next.
		b.Run(s.name, func(b *testing.B) {
			b.ReportMetric(0, "ns/op") // the table says it all
			s.bench(b, t)
		})
	}
	t.Machine = append(t.Machine, load("after"))
}

// benchOneNode measures one node.
func benchOneNode(b *testing.B, t *table) {
	benchAttach(b, t)
	n := startBenchNode(b)
	version, err := n.containerd.Ctr("version")
	if err != nil {
		b.Fatal(err)
	}
	t.Machine = append([]string{machine(serverVersion(version))}, t.Machine...)
	benchRun(b, t, n)
	benchCNI(b, t, n)
	before := n.rested(b)
	benchIdle(b, t, n)
	benchLeak(b, t, n, before)
}
