package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"stellar.io/stellar/internal/testx"
)

const benchADDs = 100 // each side

// benchCNI measures CNI's ADD, from the start of the plugin's process to its end,
// by stellar-cni with a running agent and by the reference plugins, in turns.
func benchCNI(b *testing.B, t *table, n *node) {
	bed := newCNIBed(n)
	ours := fmt.Sprintf(`{"cniVersion":"1.0.0","name":"stellar","type":"stellar-cni","address":%q}`, bed.socket())
	theirs := fmt.Sprintf(`{"cniVersion":"1.0.0","name":"bench","type":"bridge","bridge":"cnibench0","isGateway":true,`+
		`"ipam":{"type":"host-local","dataDir":%q,"ranges":[[{"subnet":"10.99.0.0/16"}]],"routes":[{"dst":"0.0.0.0/0"}]}}`, filepath.Join(scratch(b), "host-local"))
	call := func(plugin, conf, command, id string, ns *testx.NetNS) time.Duration {
		b.Helper()
		cmd, start := n.host.Command(filepath.Join(bed.bins, plugin))
		cmd.Stdin = strings.NewReader(conf)
		cmd.Env = append(os.Environ(), "CNI_COMMAND="+command, "CNI_CONTAINERID="+id, "CNI_NETNS="+ns.Path, "CNI_IFNAME=eth0", "CNI_PATH="+bed.bins)
		var out strings.Builder
		cmd.Stdout = &out
		began := time.Now()
		err := start()
		if err == nil {
			err = cmd.Wait()
		}
		took := time.Since(began)
		if err != nil {
			b.Fatalf("%s %s: %v: %s\n%s", plugin, command, err, out.String(), n.tail())
		}
		return took
	}
	var own, reference, version samples
	total := scaled(benchADDs)
	p := newProgress("CNI ADD by stellar-cni and by bridge and host-local", benchWarm+total)
	for i := range benchWarm + total {
		id := fmt.Sprintf("bench-%d", i)
		first, second := testx.NewNetNS(b), testx.NewNetNS(b)
		var took, ref time.Duration
		sides := []func(){
			func() { took = call("stellar-cni", ours, "ADD", id, first) },
			func() { ref = call("bridge", theirs, "ADD", id, second) },
		}
		sides[i%2]() // what comes second finds the caches warm
		sides[1-i%2]()
		start := call("stellar-cni", ours, "VERSION", id, first)
		call("stellar-cni", ours, "DEL", id, first)
		call("bridge", theirs, "DEL", id, second)
		for _, ns := range []*testx.NetNS{first, second} {
			if err := ns.Close(); err != nil {
				b.Fatal(err)
			}
		}
		p.done(i)
		if i >= benchWarm {
			own.add(took)
			reference.add(ref)
			version.add(start)
		}
	}
	t.spread("CNI ADD, stellar-cni (exec)", "ms", own, bar{p50: 6.5})
	t.spread("  of that the process alone (VERSION)", "ms", version, bar{p50: 3})
	t.spread("CNI ADD, bridge + host-local v1.9.1 (exec)", "ms", reference, bar{})
	t.ratio("bridge + host-local v1.9.1 / stellar-cni", reference, own, bar{p50: 1.5, atLeast: true})
}
