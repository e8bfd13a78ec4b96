package agent

import (
	"maps"
	"slices"
	"strings"
	"time"

	"stellar.io/stellar/events"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/netsetup"
)

// judge decides what the container asks for.
func (j *job) judge(c *events.Container) {
	if !j.known || !j.created.Equal(c.Created) {
		j.meet(c)
	}
	if c.ImageKnown && !j.verdict.imageKnown {
		j.verdict.imageKnown, j.verdict.imageLabels = true, maps.Clone(c.ImageLabels)
	}
	if j.verdict.imageKnown {
		c.ImageKnown, c.ImageLabels = true, j.verdict.imageLabels
	}
	j.asked = j.request(c)
	trust := Trust{Prior: j.verdict.prior, Copies: j.verdict.copies}
	if j.asked != nil && !j.asked.off() {
		trust.Asked = j.asked.Source
	}
	wish, err := parseWish(c, trust)
	if wish != nil && trust.Asked != "" {
		if refused := wish.demand(j.asked); refused != nil {
			refused.strict = wish.Strict
			wish, err = nil, refused
		}
	}
	if j.asked.off() {
		wish, err = nil, nil
	}
	j.wish, j.refused = wish, nil
	j.path = c.NetNS == events.NetNSPath
	if refused, ok := asRejection(err); ok {
		j.refused = refused
		return
	}
	switch {
	case wish == nil:
	case c.NetNS == events.NetNSHost:
		j.refused = rejectf("host-network", "host network: the container shares the host's namespace")
	case strings.HasPrefix(c.Runtime, "io.containerd.runsc"), strings.HasPrefix(c.Runtime, "io.containerd.kata"):
		j.refused = rejectf("runtime", "runtime: %s does not use the kernel's network namespaces", printable(c.Runtime))
	}
}

// meet takes a container in that this agent has not seen before. Where an
// earlier agent gave it a lease, its labels were judged when its image could be
// read, and whether it has a network of its own had been found out.
func (j *job) meet(c *events.Container) {
	j.verdict = verdict{copies: copiedAnnotations(c)}
	j.crowded = false
	former := []ipam.Owner{j.owner}
	for _, s := range j.strays {
		former = append(former, s.owner)
	}
	for _, o := range former {
		if o.Created != c.Created.UnixNano() {
			continue
		}
		if _, held := j.cfg.Leases.Lookup(o); held {
			j.verdict.prior = true
		}
		j.crowded = j.crowded || o.Interface == besideIfname && c.Labels[labelIfname] == "" && c.Annotations[labelIfname] == ""
	}
}

// learn makes the record that of c. An owner that differs from the one before
// turns that one into a stray, or takes up what a stray holds.
func (j *job) learn(c *events.Container, seen time.Time) {
	j.sight(livePID(c.Task), c, seen)
	j.remember(j.record, c)
	j.known = true
	// Where the network is ours by CNI, it is no network of somebody else.
	j.beside = (c.CNI || j.crowded) && !j.byCNI()
	owner := j.ownerOf(c)
	if owner == j.owner {
		return
	}
	if j.owner != (ipam.Owner{}) {
		// The process that has the endpoint can be another container's than the
		// owner's only if an event was taken for the owner's.
		wrong := j.alive() && j.proc.PID() == livePID(c.Task) && j.owner.Created != owner.Created
		wrong = wrong || j.elsewhere()
		j.strays = append(j.strays, stray{owner: j.owner, endpoint: j.endpoint, wrong: wrong})
		j.leaveBehind()
	}
	j.closeProc()
	j.unserve(j.record)
	j.endpoint, j.grade, j.phases, j.warning, j.shared = nil, "", nil, "", false
	j.setOwner(j.record, owner)
	j.strays = slices.DeleteFunc(j.strays, func(s stray) bool {
		if s.owner == owner {
			j.endpoint = s.endpoint
		}
		return s.owner == owner
	})
}

// sight notes since when the task is known to have its pid: since containerd was
// seen to say so, or since the event of its creation, if there was one. A look that
// comes later than the event does not count: containerd may not have noticed yet
// that the task has ended, and another process may have its number. A task that has
// the number of the one before, whose end was told, is seen for the first time.
func (j *job) sight(pid int, c *events.Container, seen time.Time) {
	first := pid != j.taskPID || !j.created.Equal(c.Created) || pid == j.hint.exited && j.hint.exit.After(j.pidSeen)
	if first {
		j.pidSeen = seen
	}
	if pid == 0 || pid != j.hint.pid || j.hint.created.Before(c.Created) {
		return
	}
	if first || j.hint.created.After(j.pidSeen) {
		j.pidSeen = j.hint.created
	}
}

// leaveBehind notes that the owner's endpoint goes on serving its namespace without
// its record: whoever is to be attached there has to ask the kernel.
func (j *job) leaveBehind() {
	if j.endpoint == nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.adopted[j.owner] = true
}

// ownerOf is what c holds an address as. What it has, it has as the owner it
// was: while no network is asked for, and as long as a task may be using it.
func (j *job) ownerOf(c *events.Container) ipam.Owner {
	owner := ipam.Owner{
		Kind: ipam.OwnerContainer, Namespace: c.Namespace, ID: c.ID,
		Created: c.Created.UnixNano(), Interface: j.slot(),
	}
	if j.owner.Created != owner.Created {
		return owner
	}
	misplaced := j.crowded && j.owner.Interface == defaultIfname || j.elsewhere()
	if j.wish == nil || j.endpoint != nil && !misplaced && (j.path || !j.taskOver(c)) {
		return j.owner
	}
	return owner
}

// byCNI reports whether a CNI client has asked for the container's network.
func (j *job) byCNI() bool { return j.asked != nil && j.asked.Source == SourceCNI }

// elsewhere reports whether a client that waits has asked for another interface
// than the owner has: it gets that one now, not with the next task.
func (j *job) elsewhere() bool {
	return j.asked != nil && !j.asked.Down && j.asked.Ifname != "" && j.asked.Ifname != j.owner.Interface
}

// taskOver reports whether the task that the endpoint was made for is known to be over.
func (j *job) taskOver(c *events.Container) bool {
	if j.proc == nil {
		return stateOf(c.Task) == taskNone
	}
	pid := livePID(c.Task)
	return j.proc.Exited() || pid != 0 && pid != j.proc.PID()
}

// slot is the interface that the labels ask for, by name or by leaving it to us.
func (j *job) slot() string {
	switch {
	case j.wish != nil && j.wish.Ifname != "":
		return j.wish.Ifname
	case j.beside:
		return besideIfname
	}
	return defaultIfname
}

// verdict is what is decided once for each container, so that an image that is
// removed or replaced later changes nothing.
type verdict struct {
	prior       bool            // an earlier agent trusted the labels
	copies      map[string]bool // annotations that repeated a label at first sight
	imageKnown  bool
	imageLabels map[string]string // at first sight; valid if imageKnown
}

// stray is an owner that is not its key's container now: one of before, or one
// that holds something under another interface name.
type stray struct {
	owner    ipam.Owner
	endpoint *netsetup.Endpoint // what the kernel has for it; nil: nothing
	wrong    bool               // the endpoint was made in a namespace that was never the owner's
}
