package agent

import (
	"context"
	"time"
)

// strictPatience is how long a task whose container is strict may run while its
// network is being made: design D13's deadline.
const strictPatience = 2 * time.Second

// strict reports whether the container must not run without its network.
func (r *record) strict() bool {
	return r.wish != nil && r.wish.Strict || r.refused != nil && r.refused.strict
}

// enforce keeps a strict container from running without its network: at once
// where it cannot get one, after strictPatience where it has not got one yet.
// That the first instruction had the network, an attach by events cannot say.
func (j *job) enforce(ctx context.Context) {
	shown := j.shown.State
	if !j.strict() || j.taskPID == 0 || shown == StateAttached || shown == StateProvisional || shown == StateShared {
		j.bare = time.Time{}
		return
	}
	if j.bare.IsZero() {
		j.bare = j.now()
	}
	if wait := strictPatience - j.now().Sub(j.bare); wait > 0 && shown != StateRejected {
		j.queue.addAfter(j.key, wait)
		return
	}
	reason := j.shown.Reason
	if err := j.cfg.Containers.Kill(ctx, j.key, j.taskPID); err != nil {
		j.log.Warn("strict container could not be killed", "container", j.key, "err", err)
		j.queue.addAfter(j.key, strictPatience)
		return
	}
	j.bare = time.Time{}
	j.log.Warn("strict container killed", "container", j.key, "reason", reason)
	j.Record("kill", j.key.String(), "strict, and without a network: "+reason)
}
