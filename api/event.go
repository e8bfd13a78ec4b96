package api

import "time"

// Event is something that happened and that an operator may want to know.
type Event struct {
	Time    time.Time `json:"time"`
	Type    string    `json:"type"`
	Node    string    `json:"node"`
	Subject string    `json:"subject"` // what it happened to, e.g. "default/web"
	Message string    `json:"message"`
}

// EventQuery says which events are wanted.
type EventQuery struct {
	Follow bool      // go on with new events after the remembered ones
	Since  time.Time // only events at or after it; zero: all that are remembered
}
