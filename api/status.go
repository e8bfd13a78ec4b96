package api

// CheckState judges one property of a node.
type CheckState string

const (
	// OK: as it should be.
	OK CheckState = "OK"
	// Warn: works in part, or will repair itself; running containers are fine.
	Warn CheckState = "WARN"
	// Err: a human must act.
	Err CheckState = "ERR"
)

// Names of checks that commands wait for. A backend reports others as it likes.
const (
	// CheckReady is OK once containerd is connected, the first reconcile round
	// is over and the node has its subnet; otherwise Warn with what is missing.
	CheckReady = "ready"
	// CheckLeader is OK while a Raft leader is known and answers.
	CheckLeader = "leader"
)

// Check is one judged property of a node.
type Check struct {
	Name  string     `json:"name"`
	State CheckState `json:"state"`
	// Reason says why; on OK it may carry a figure, such as a version.
	Reason string `json:"reason"`
}

// StatusReport judges a node as a whole.
type StatusReport struct {
	Node    string  `json:"node"`
	Cluster string  `json:"cluster"` // cluster id, empty before init or join
	Checks  []Check `json:"checks"`
}

// Worst returns the worst state among the checks, OK when there are none.
func (r StatusReport) Worst() CheckState {
	worst := OK
	for _, c := range r.Checks {
		switch {
		case c.State == Err:
			return Err
		case c.State != OK:
			worst = Warn
		}
	}
	return worst
}

// Check returns the check of that name.
func (r StatusReport) Check(name string) (Check, bool) {
	for _, c := range r.Checks {
		if c.Name == name {
			return c, true
		}
	}
	return Check{}, false
}

// VersionInfo says what a binary was built from.
type VersionInfo struct {
	Version   string `json:"version"`
	Commit    string `json:"commit"`
	GoVersion string `json:"goVersion"`
	Platform  string `json:"platform"` // GOOS/GOARCH
}
