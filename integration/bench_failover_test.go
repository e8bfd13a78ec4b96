package integration

import (
	"syscall"
	"testing"
	"time"
)

const (
	benchKills = 20
	killLimit  = 3 // s from a leader's death to a lease of another node
)

// benchFailover kills the leader's agent again and again, and then cuts the leader off
// in each way, while containers of the other nodes ping each other every 10 ms.
func benchFailover(b *testing.B, t *table, trio []*node) {
	eps := map[*node]endpoint{}
	for _, n := range trio {
		eps[n] = n.start(unique("run-" + n.name))
	}
	var took []time.Duration
	sent, missing := 0, 0
	kills := scaled(benchKills)
	p := newProgress("leader kills", kills)
	for i := range kills {
		leader, others := leaderIn(b, trio, trio[0])
		lost := others[0].pinging(eps[others[0]].Container, eps[others[1]].Address)
		began := time.Now()
		_ = leader.stopAgent(syscall.SIGKILL)
		took = append(took, others[0].committed(began, unique("new")))
		s, m := lost()
		sent, missing = sent+s, missing+m
		leader.startAgent()
		leader.cli("status", "--wait", "--timeout", "30s")
		awaitVoters(b, trio)
		p.done(i + 1)
	}
	t.seconds("leader killed → a lease of another node committed", took, killLimit)
	t.value("  pings lost between containers of the others, every 10 ms", "", sent, float64(missing), bar{none: true})

	for _, cut := range []struct {
		name  string
		hooks []string
	}{
		{"both ways", []string{"input", "output"}},
		{"it hears nothing", []string{"input"}},
		{"nobody hears it", []string{"output"}},
	} {
		leader, others := leaderIn(b, trio, trio[0])
		began := time.Now()
		heal := leader.cut(cut.hooks...)
		t.value("leader cut off, "+cut.name+" → a lease of another node committed", "s", 1, others[0].committed(began, unique("cut")).Seconds(), bar{})
		heal()
		awaitVoters(b, trio)
	}
}

// seconds adds rows of the median and the worst, which has the limit.
func (t *table) seconds(what string, took []time.Duration, limit float64) {
	var s samples
	for _, d := range took {
		s = append(s, d.Seconds())
	}
	t.value(what+", median", "s", len(s), s.quantile(0.5), bar{})
	t.value("  worst", "s", len(s), s.quantile(1), bar{p50: limit})
}
