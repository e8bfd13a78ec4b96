package integration

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"stellar.io/stellar/ipam"
)

const (
	stateNodes = 1024
	stateTimes = 5
	pickRounds = 200
	pickBatch  = 5000
)

// benchState measures the largest state that is promised, 1,024 nodes of a /22 in routed
// mode with every address leased, one of a sixteenth of it, and the choice of an address.
func benchState(b *testing.B, t *table) {
	benchLeasesOf(b, t, scaled(stateNodes)/16, func(bar) bar { return bar{} })
	benchLeasesOf(b, t, scaled(stateNodes), func(limit bar) bar { return limit })
	for _, bits := range []int{22, 20} {
		empty, full := benchPick(b, bits)
		t.spread(fmt.Sprintf("an address picked and released, empty /%d", bits), "ns", empty, bar{})
		t.spread(fmt.Sprintf("  one address free in a /%d", bits), "ns", full, bar{})
		t.ratio(fmt.Sprintf("one free / empty, /%d", bits), full, empty, bar{p50: 1.2})
	}
}

// benchLeasesOf measures one size; limit makes a bar of what is one at the full size.
func benchLeasesOf(b *testing.B, t *table, nodes int, limit func(bar) bar) {
	b.Helper()
	s, leases, heapBytes := leasesOf(b, nodes)
	t.value(fmt.Sprintf("heap of each of %d leases with ids of 64 characters", leases), "B", leases, heapBytes, limit(bar{p50: 250}))
	var take, write, restore samples
	for range 20 * stateTimes {
		start := time.Now()
		s.Snapshot()
		take.add(time.Since(start))
	}
	var data bytes.Buffer
	if _, err := s.Snapshot().WriteTo(&data); err != nil {
		b.Fatal(err)
	}
	p := newProgress("snapshots of all leases", stateTimes)
	for i := range stateTimes {
		start := time.Now()
		if _, err := s.Snapshot().WriteTo(io.Discard); err != nil {
			b.Fatal(err)
		}
		write.add(time.Since(start))
		start = time.Now()
		restored, err := ipam.Restore(bytes.NewReader(data.Bytes()))
		if err != nil {
			b.Fatal(err)
		}
		restore.add(time.Since(start))
		runtime.KeepAlive(restored)
		p.done(i + 1)
	}
	t.spread("  a snapshot of it taken", "ms", take, limit(bar{p50: 1}))
	t.spread("  written", "ms", write, limit(bar{p50: 2000}))
	t.spread("  restored and checked", "ms", restore, limit(bar{p50: 3000}))
	t.value("  size of a lease in it", "B", leases, float64(data.Len())/float64(leases), bar{})
}

// leasesOf fills the subnets of so many nodes and returns the state and the heap that each lease takes.
func leasesOf(b *testing.B, nodes int) (s *ipam.State, leases int, bytesEach float64) {
	b.Helper()
	s = ipam.New()
	apply := func(cmds ...ipam.Command) {
		data, err := ipam.Envelope{Commands: cmds}.Encode()
		if err != nil {
			b.Fatal(err)
		}
		out, err := s.Apply(s.Index()+1, data)
		if err != nil {
			b.Fatal(err)
		}
		for _, r := range out.Results {
			if r.Err != nil {
				b.Fatal(r.Err)
			}
		}
	}
	apply(ipam.InitCluster{ClusterID: storeCluster, Network: ipam.DefaultNetwork, Prefix: netip.MustParsePrefix("172.16.0.0/12"), SubnetBits: 22})
	for i := range nodes {
		id := ipam.NodeID(fmt.Sprintf("%032x", i+1))
		apply(ipam.RegisterNode{Node: id, Name: fmt.Sprint("node", i), MachineID: string(id), Address: "192.0.2.1:9640", Version: "1", Mode: ipam.ModeRouted},
			ipam.ClaimSubnet{Node: id, Network: ipam.DefaultNetwork})
	}
	before := heapInUse()
	p := newProgress("leases made, nodes", nodes)
	for sub := range s.Subnets() {
		addr := sub.Prefix.Addr().Next()
		var cmds []ipam.Command
		for range 1022 {
			id := fmt.Sprintf("%064x", uint64(leases)*0x9e3779b97f4a7c15)
			cmds = append(cmds, ipam.BindLease{Fence: sub.Fence(), Addr: addr, Owner: ipam.Owner{
				Kind: ipam.OwnerContainer, Namespace: "default", ID: id, Created: 1_700_000_000_000_000_000 + int64(leases), Interface: "eth0",
			}})
			addr = addr.Next()
			leases++
		}
		apply(cmds[:511]...)
		apply(cmds[511:]...)
		p.done(leases / 1022)
	}
	return s, leases, float64(heapInUse()-before) / float64(leases)
}

func heapInUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// benchPick measures, in turns, an empty subnet and one with a single address free.
func benchPick(b *testing.B, bits int) (empty, full samples) {
	b.Helper()
	prefix := netip.PrefixFrom(netip.MustParseAddr("10.0.0.0"), bits)
	pickers := [2]*ipam.Picker{ipam.NewPicker(prefix, time.Minute), ipam.NewPicker(prefix, time.Minute)}
	now := int64(0)
	for pickers[1].Counts().Free > 1 {
		if _, err := pickers[1].Pick(now); err != nil {
			b.Fatal(err)
		}
	}
	each := func(p *ipam.Picker) float64 {
		start := time.Now()
		for range pickBatch {
			now += int64(61 * time.Second)
			a, err := p.Pick(now)
			if err != nil {
				b.Fatal(err)
			}
			p.Release(a, now)
		}
		return float64(time.Since(start)) / pickBatch
	}
	for range pickRounds {
		empty, full = append(empty, each(pickers[0])), append(full, each(pickers[1]))
	}
	return empty, full
}
