package api

import (
	"path"
	"slices"
	"strings"
	"time"
)

// EventHistory is how many events each agent remembers, in memory: who asks later
// hears of no more.
const EventHistory = 1000

const (
	// EventLost tells a reader that events were forgotten before it read them.
	EventLost = "lost-events"
	// EventUnreachable tells a reader of several nodes' events that one of them
	// cannot be asked, and why.
	EventUnreachable = "unreachable"
)

// Event is something that happened and that an operator may want to know.
type Event struct {
	Time    time.Time `json:"time"`
	Type    string    `json:"type"`
	Node    string    `json:"node"`
	Subject string    `json:"subject"` // what it happened to, e.g. "default/web"
	Message string    `json:"message"`
}

// EventQuery says which events are wanted. The zero value wants all that one node
// remembers.
type EventQuery struct {
	Follow bool      // go on with new events after the remembered ones
	Since  time.Time // only events at or after it; zero: all that are remembered
	Tail   int       // only the newest so many of the remembered ones; 0: all, -1: none
	Types  []string  // only of one of these types; empty: all
	// Subject is what they are about: "default/web", "web" in any namespace, the
	// beginning of an id of 64 digits, or a pattern with * and ?; empty: all.
	Subject  string
	Nodes    []string // of these nodes, by name or id; empty: of the one that is asked
	AllNodes bool
	Mark     bool // the zero Event comes between the remembered and the new
}

// Validate refuses what cannot be asked for. The error is CodeInvalid.
func (q EventQuery) Validate() error {
	if _, err := path.Match(q.Subject, ""); err != nil {
		return Errorf(CodeInvalid, "subject %q is no pattern", q.Subject).WithHint(`* stands for any text but "/", ? for one letter; \ before them makes them plain`)
	}
	if q.Tail < -1 {
		return Errorf(CodeInvalid, "the newest %d events cannot be shown", q.Tail)
	}
	return nil
}

// Match reports whether e is asked for. What tells of the events themselves always is.
func (q EventQuery) Match(e Event) bool {
	switch {
	case e.Type == EventLost, e.Type == EventUnreachable:
		return true
	case e.Time.Before(q.Since), len(q.Types) > 0 && !slices.Contains(q.Types, e.Type):
		return false
	}
	return q.Subject == "" || subjectMatches(q.Subject, e.Subject)
}

// Filter returns those that are asked for.
func (q EventQuery) Filter(events []Event) []Event {
	var out []Event
	for _, e := range events {
		if q.Match(e) {
			out = append(out, e)
		}
	}
	return out
}

// Newest cuts remembered events, which are in order, to those of Tail.
func (q EventQuery) Newest(events []Event) []Event {
	switch {
	case q.Tail < 0:
		return nil
	case q.Tail > 0 && len(events) > q.Tail:
		return events[len(events)-q.Tail:]
	}
	return events
}

func subjectMatches(pattern, subject string) bool {
	candidates := []string{subject}
	if _, id, ok := strings.Cut(subject, "/"); ok && !strings.Contains(pattern, "/") {
		candidates = append(candidates, id)
		if long := len(id) == 64 && strings.Trim(id, "0123456789abcdef") == ""; long && strings.HasPrefix(id, pattern) {
			return true
		}
	}
	return slices.ContainsFunc(candidates, func(s string) bool {
		ok, err := path.Match(pattern, s)
		return err == nil && ok || s == pattern
	})
}
