package check

import (
	"fmt"
	"strings"
)

// guard judges the tables that keep containers from speaking for others. What is
// missing lets packets pass that should not; an element that is missing stops all of
// one container's.
func (j *judgement) guard() {
	f := j.f
	if missing := f.Guard.Missing; len(missing) > 0 {
		j.error(Guard, missing[0], "containers may speak for others: the nftables rules against it are not complete; missing: "+strings.Join(missing, ", "), f.repair(restartMend))
	}
	for _, e := range f.Guard.Dropped {
		who := e.Owner.Namespace + "/" + e.Owner.ID
		j.error(Guard, who, fmt.Sprintf("everything that %s sends is dropped: the nftables set endpoints in table stellar lacks %s with %s", who, e.HostIfname, e.Addr), f.repair(restartMend))
	}
}
