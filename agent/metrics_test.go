package agent

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestCardinality: a thousand endpoints make no more series than ten, but for grades
// that only then occur, and no label tells which container it was.
func TestCardinality(t *testing.T) {
	withSubnet(t, "172.16.0.0/20", func(b *bed) {
		b.reg.MustRegister(b.a)
		run := func(from, to int) {
			for i := from; i < to; i++ {
				x := b.c.create(key(fmt.Sprintf("unique-%d", i)), networked)
				b.wait(10 * time.Millisecond)
				b.c.task(x)
				b.wait(10 * time.Millisecond)
				b.c.run(x)
			}
			b.wait(time.Second)
		}
		series := func() (n int) {
			families, err := b.reg.Gather()
			if err != nil {
				b.Fatal(err)
			}
			for _, f := range families {
				n += len(f.GetMetric())
				for _, m := range f.GetMetric() {
					for _, l := range m.GetLabel() {
						if strings.Contains(l.GetValue(), "unique") || strings.Contains(l.GetValue(), "172.16.") {
							b.Fatalf("%s has the label %s", f.GetName(), l)
						}
					}
				}
			}
			return n
		}
		run(0, 10)
		few := series()
		run(10, 1000)
		if got := b.counted("stellar_attach_total", "attached"); got != 1000 {
			t.Errorf("%d endpoints", got)
		}
		if many := series(); few < 50 || many > few+5 {
			t.Errorf("%d series with 10 endpoints, %d with 1,000", few, many)
		}
	})
}

// TestEveryReasonIsASeries: each code with which a container can be rejected is there
// from the start; and the phases, sources and results that occur are.
func TestEveryReasonIsASeries(t *testing.T) {
	withAgent(t, func(b *bed) {
		count := func() map[string]int {
			families, err := b.reg.Gather()
			if err != nil {
				b.Fatal(err)
			}
			out := map[string]int{}
			for _, f := range families {
				out[f.GetName()] = len(f.GetMetric())
			}
			return out
		}
		before := count()
		x := b.running("a", networked)
		b.running("b", with(labelMTU, "x"))
		b.running("c", with(labelIP, "10.0.0.1"))
		b.c.exit(x)
		b.wait(time.Second)
		compare := func() {
			for name, n := range count() {
				if n != before[name] {
					t.Errorf("%s has %d series at the start and %d at work", name, before[name], n)
				}
			}
		}
		compare()
		b.running("d", networked)
		b.restart() // with other metrics, and an endpoint to adopt
		compare()
	})
}
