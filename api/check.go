package api

import "time"

// Severities of a CheckFinding.
const (
	// SeverityError: packets of containers are lost now, or will be.
	SeverityError = "error"
	// SeverityWarning: containers have their packets; something is not as it should be.
	SeverityWarning = "warning"
)

// CheckFinding is one cause that a host check has found.
type CheckFinding struct {
	Node     string `json:"node"`
	Code     string `json:"code"` // a stable word: package check lists them
	Severity string `json:"severity"`
	Subject  string `json:"subject"` // an interface, a range, a node, a container
	Message  string `json:"message"` // what was seen
	Mend     string `json:"mend"`    // what to type
}

// CheckedNode is a node that was to check itself.
type CheckedNode struct {
	Node  string `json:"node"`
	Error string `json:"error,omitempty"` // why it could not be asked
}

// CheckReport is the outcome of a host check, the root causes first.
type CheckReport struct {
	Node  string         `json:"node"`
	Time  time.Time      `json:"time"`
	Items []CheckFinding `json:"items"`
	Nodes []CheckedNode  `json:"nodes"`
	// Notes say what could not be learned, and so is not judged.
	Notes []string `json:"notes"`
}
