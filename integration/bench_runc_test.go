package integration

import (
	"fmt"
	"testing"
	"time"

	"stellar.io/stellar/internal/testx"
)

const (
	runtimePairs = 200 // ctr run behind stellar-runc and without it, in turns
	runtimeMost  = 10  // ms that stellar-runc may add
)

// benchRuntime measures what stellar-runc adds to a whole `ctr run` of a program that
// ends at once: its start for each of runc's verbs, its question, its hook, and the
// attach, which is not waited for without it.
func benchRuntime(b *testing.B, t *table) {
	n := readyNode(b, false)
	program := runcWrapper(b)
	for _, c := range []struct {
		what   string
		labels map[string]string
		most   bar
	}{
		{"with a network", networked(), bar{p50: runtimeMost}},
		{"that asks for nothing", nil, bar{p50: runtimeMost}},
	} {
		var behind, plain samples
		pairs := scaled(runtimePairs)
		p := newProgress("ctr run by stellar-runc and by runc, "+c.what, benchWarm+pairs)
		for i := range benchWarm + pairs {
			one := n.timedBy(program, fmt.Sprintf("behind%d", i), c.labels)
			two := n.timedBy("runc", fmt.Sprintf("plain%d", i), c.labels)
			if p.done(i); i >= benchWarm {
				behind.add(one)
				plain.add(two)
			}
		}
		t.spread("ctr run by stellar-runc, "+c.what, "ms", behind, bar{})
		t.spread("  by runc", "ms", plain, bar{})
		t.value("  stellar-runc adds", "ms", len(behind), max(0, behind.quantile(0.5)-plain.quantile(0.5)), c.most)
	}
}

// timedBy runs a container by the given runtime binary to its end.
func (n *node) timedBy(runtime, id string, labels map[string]string) time.Duration {
	n.t.Helper()
	r := testx.Run{ID: id, Labels: labels, Flags: []string{"--runc-binary", runtime}, Args: []string{"/bin/true"}}
	start := time.Now()
	if out, err := n.containerd.Output(r); err != nil {
		n.t.Errorf("%v: %s", err, out)
	}
	return time.Since(start)
}
