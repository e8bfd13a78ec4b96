package routes

import (
	"context"
	"log/slog"
)

// news is a kind of change: what was done, and whether it undoes somebody's act.
type news struct {
	op     Op
	repair bool
}

// logChanges writes a line for each kind of change, however many there were.
func logChanges(log *slog.Logger, done map[news][]Route) {
	for _, n := range []struct {
		news
		level slog.Level
		text  string
	}{
		{news{Add, true}, slog.LevelWarn, "routes restored"},
		{news{Replace, true}, slog.LevelWarn, "routes put right"},
		{news{Add, false}, slog.LevelInfo, "routes added"},
		{news{Replace, false}, slog.LevelInfo, "routes replaced"},
		{news{Delete, false}, slog.LevelInfo, "routes removed"},
	} {
		if rs := done[n.news]; len(rs) > 0 {
			log.Log(context.Background(), n.level, n.text, "count", len(rs), "first", rs[0].Destination, "via", rs[0].Gateway, "node", rs[0].Node)
		}
	}
}

// logTrouble writes a line for each kind of trouble that the last round did not have.
func logTrouble(log *slog.Logger, old, now []Status, oldConditions, conditions []Condition) {
	before := make(map[key]State, len(old))
	for _, s := range old {
		before[key{destination: s.Destination, metric: s.Metric}] = s.State
	}
	first, count := map[State]Status{}, map[State]int{}
	for _, s := range now {
		if (s.State == Conflict || s.State == NotAdjacent) && before[key{destination: s.Destination, metric: s.Metric}] != s.State {
			if count[s.State]++; count[s.State] == 1 {
				first[s.State] = s
			}
		}
	}
	for _, state := range []State{Conflict, NotAdjacent} {
		if s := first[state]; count[state] > 0 {
			log.Warn("routes are not in use", "state", state, "count", count[state], "first", s.Destination, "node", s.Node, "reason", s.Reason)
		}
	}
	known := make(map[Condition]bool, len(oldConditions))
	for _, c := range oldConditions {
		known[c] = true
	}
	for _, c := range conditions {
		if !known[c] {
			log.Warn("packets of peers may be lost", "condition", c.Name, "subject", c.Subject, "reason", c.Reason)
		}
	}
}
