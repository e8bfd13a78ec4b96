package netsetup

import (
	"context"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"stellar.io/stellar/internal/nsx"
)

// BenchmarkGuardThroughput sends by TCP from one container to another, with the
// guard and without it in turns, and reports the median of the ratios.
func BenchmarkGuardThroughput(b *testing.B) {
	bed := newBed(b).ensure()
	from, to := bed.attach("172.16.0.2"), bed.attach("172.16.0.3")
	with := func() float64 {
		if err := bed.n.syncGuard(context.Background()); err != nil {
			b.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond) // what the change itself has put off
		return throughput(b, from, to)
	}
	without := func() float64 {
		if err := bed.n.guard.remove(); err != nil {
			b.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
		return throughput(b, from, to)
	}
	var ratios []float64
	for i := 0; b.Loop(); i++ {
		var g, u float64
		if i%2 == 0 { // neither is always first
			g, u = with(), without()
		} else {
			u, g = without(), with()
		}
		ratios = append(ratios, g/u)
	}
	slices.Sort(ratios)
	b.ReportMetric(ratios[len(ratios)/2], "with/without")
}

// throughput returns the bytes per second of one connection.
func throughput(b *testing.B, from, to *container) float64 {
	b.Helper()
	var lis net.Listener
	err := nsx.Do(int(to.ns.file.Fd()), func() (err error) {
		lis, err = net.Listen("tcp4", to.spec.Addr.String()+":0")
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	defer lis.Close()
	var out net.Conn
	err = nsx.Do(int(from.ns.file.Fd()), func() (err error) {
		d := net.Dialer{Timeout: time.Second, FallbackDelay: -1}
		out, err = d.Dial("tcp4", lis.Addr().String())
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	in, err := lis.Accept()
	if err != nil {
		b.Fatal(err)
	}
	go func() {
		defer out.Close()
		block := make([]byte, 128<<10)
		for {
			if _, err := out.Write(block); err != nil {
				return
			}
		}
	}()
	defer in.Close()
	began, total, block := time.Now(), 0, make([]byte, 256<<10)
	for time.Since(began) < 300*time.Millisecond {
		n, err := io.ReadAtLeast(in, block, 1)
		if err != nil {
			b.Fatal(err)
		}
		total += n
	}
	return float64(total) / time.Since(began).Seconds()
}
