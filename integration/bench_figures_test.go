package integration

import (
	"strings"
	"testing"

	"stellar.io/stellar/internal/testx/bench"
)

func TestTable(t *testing.T) {
	var out table
	out.spread("within", "ms", samples{1, 2, 3, 4}, bar{p50: 4, p99: 20})
	out.spread("beyond", "ms", samples{1, 30}, bar{p50: 4, p99: 20})
	out.spread("nothing measured", "ms", nil, bar{p50: 4})
	out.ratio("twice", samples{4}, samples{2}, bar{p50: 3, atLeast: true})
	out.ratio("once", samples{2}, samples{2}, bar{p50: 3, atLeast: true, explained: "it is so"})
	out.value("none", "", 1, 0, bar{none: true})
	out.spread("rate", "/s", samples{1, 2, 3, 4}, bar{})
	out.value("plain", "MB", 1, 12.25, bar{})
	var got strings.Builder
	if err := out.write(&got); err != nil {
		t.Fatal(err)
	}
	const want = `WHAT              N  P50       P99    BAR                   VERDICT
within            4  2 ms      4 ms   ≤ 4 ms, p99 ≤ 20 ms   ok
beyond            2  1 ms      30 ms  ≤ 4 ms, p99 ≤ 20 ms   MISS
nothing measured  0  0 ms      0 ms   ≤ 4 ms                MISS
twice             1  2×               ≥ 3× MISS
once              1  1×               ≥ 3× explained
none              1  0                none                  ok
rate              4  2 /s      1 /s
plain             1  12.25 MB                               
`
	if squeeze(got.String()) != squeeze(want) {
		t.Errorf("got:\n%s\nwant:\n%s", got.String(), want)
	}
	for i, want := range []string{bench.Less, bench.Less, bench.Less, bench.More, bench.More, bench.Less, bench.More, bench.Less} {
		if out.Rows[i].Better != want {
			t.Errorf("%s: better is %q, want %q", out.Rows[i].What, out.Rows[i].Better, want)
		}
	}
	if n := len(out.misses()); n != 3 {
		t.Errorf("%d misses, want 3", n)
	}
}

func squeeze(s string) string { return strings.Join(strings.Fields(s), " ") }

func TestQuantile(t *testing.T) {
	s := make(samples, 0, 200)
	for i := range 200 {
		s = append(s, float64(200-i))
	}
	for _, tc := range []struct{ q, want float64 }{{0.5, 100}, {0.99, 198}, {1, 200}, {0, 1}} {
		if got := s.quantile(tc.q); got != tc.want {
			t.Errorf("quantile %v = %v, want %v", tc.q, got, tc.want)
		}
	}
}
