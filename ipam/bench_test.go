package ipam

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"testing"
	"time"
)

// BenchmarkPick compares a pick from an empty subnet with one when a single
// address is free: both take O(1) time.
func BenchmarkPick(b *testing.B) {
	for _, bits := range []int{22, 20} {
		prefix := netip.PrefixFrom(mustAddr("10.0.0.0"), bits)
		for _, full := range []bool{false, true} {
			name := fmt.Sprintf("/%d empty", bits)
			if full {
				name = fmt.Sprintf("/%d one free", bits)
			}
			b.Run(name, func(b *testing.B) {
				p := NewPicker(prefix, time.Minute)
				for full && p.Counts().Free > 1 {
					pick(b, p, 0)
				}
				now := int64(0)
				for b.Loop() {
					now += int64(61 * time.Second)
					p.Release(pick(b, p, now), now)
				}
			})
		}
	}
}

// BenchmarkApplyBind is one committed BindLease, decoded and applied, and the
// release and freeing of its address: three entries.
func BenchmarkApplyBind(b *testing.B) {
	s := cluster(b, 1)
	f := fence(b, s, 1)
	a, o := mustAddr("172.16.0.9"), owner(containerID(1))
	var entries [3][]byte
	for i, c := range []Command{
		BindLease{Fence: f, Addr: a, Owner: o, Hostname: "web"}, ReleaseLease{f, a, o}, FreeLease{f, a, o},
	} {
		data, err := Envelope{Commands: []Command{c}}.Encode()
		if err != nil {
			b.Fatal(err)
		}
		entries[i] = data
	}
	b.ReportAllocs()
	for b.Loop() {
		for _, data := range entries {
			out, err := s.Apply(s.Index()+1, data)
			if err != nil || out.Results[0].Err != nil {
				b.Fatal(err, out.Results)
			}
		}
	}
}

func containerID(i int) string { return fmt.Sprintf("%064x", uint64(i)*0x9e3779b97f4a7c15) }

// million is the largest state that is promised: 1,024 nodes, every address of
// every subnet but those reserved or not (routed mode: 1,022 of 1,024).
func million(b *testing.B) (s *State, leases int, bytesPerLease float64) {
	b.Helper()
	s = New()
	index := uint64(0)
	do := func(cmds ...Command) {
		data, err := Envelope{Commands: cmds}.Encode()
		if err != nil {
			b.Fatal(err)
		}
		index++
		out, err := s.Apply(index, data)
		if err != nil {
			b.Fatal(err)
		}
		for _, r := range out.Results {
			if r.Err != nil {
				b.Fatal(r.Err)
			}
		}
	}
	do(initCmd())
	for i := range 1024 {
		c := registerCmd(1)
		c.Node, c.Name, c.Mode = NodeID(fmt.Sprintf("%032x", i)), fmt.Sprint("node", i), ModeRouted
		do(c, ClaimSubnet{Node: c.Node, Network: DefaultNetwork})
	}
	before := heap()
	for sub := range s.Subnets() {
		addr := sub.Prefix.Addr().Next()
		for range 2 {
			cmds := make([]Command, 0, 511)
			for range 511 {
				cmds = append(cmds, BindLease{Fence: sub.Fence(), Addr: addr, Owner: owner(containerID(leases))})
				addr = addr.Next()
				leases++
			}
			do(cmds...)
		}
	}
	return s, leases, float64(heap()-before) / float64(leases)
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkMillion takes, writes and restores a snapshot of 1,046,528 leases.
func BenchmarkMillion(b *testing.B) {
	s, leases, perLease := million(b)
	var data bytes.Buffer
	if _, err := s.Snapshot().WriteTo(&data); err != nil {
		b.Fatal(err)
	}
	b.Run("take", func(b *testing.B) {
		for b.Loop() {
			s.Snapshot()
		}
		b.ReportMetric(float64(leases), "leases")
		b.ReportMetric(perLease, "heap-B/lease")
	})
	b.Run("write", func(b *testing.B) {
		for b.Loop() {
			if _, err := s.Snapshot().WriteTo(io.Discard); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(data.Len())/float64(leases), "B/lease")
	})
	b.Run("restore", func(b *testing.B) {
		before := heap()
		var restored *State
		for b.Loop() {
			restored = nil
			var err error
			if restored, err = Restore(bytes.NewReader(data.Bytes())); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(heap()-before)/float64(leases), "heap-B/lease")
		runtime.KeepAlive(restored)
	})
	b.Run("check", func(b *testing.B) {
		for b.Loop() {
			if err := s.Check(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("first write after a snapshot", func(b *testing.B) {
		entry, err := Envelope{Commands: []Command{Tick{1}, MarkLease{}}}.Encode()
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			s.Snapshot()
			if _, err := s.Apply(s.Index()+1, entry); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkDecode is an entry of 128 binds, by the quick way and the general one.
func BenchmarkDecode(b *testing.B) {
	s := cluster(b, 1)
	e := Envelope{Request: RequestID{nodeID(1), 1 << 40}}
	for i := range 128 {
		e.Commands = append(e.Commands, BindLease{Fence: fence(b, s, 1), Addr: mustAddr("172.16.0.9"), Owner: owner(containerID(i))})
	}
	data, err := e.Encode()
	if err != nil {
		b.Fatal(err)
	}
	b.Run("quick", func(b *testing.B) {
		for b.Loop() {
			if _, ok := decodeLeases(data[1:]); !ok {
				b.Fatal("not in the form")
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/128, "ns/command")
	})
	b.Run("general", func(b *testing.B) {
		for b.Loop() {
			if _, err := decodeAny(data[1:]); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/128, "ns/command")
	})
	b.Run("encode", func(b *testing.B) {
		for b.Loop() {
			if _, err := e.Encode(); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/128, "ns/command")
	})
}
