package main

import (
	"log/slog"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// agentNice is the agent's nice value. Between the creation of a task and its
// program's start lie some ten milliseconds in which the agent must have had a
// processor, also when fifty tasks start at once and every runtime wants one.
// What it does then is little.
const agentNice = -10

// raisePriority gives the agent its nice value where that is permitted. The value
// is one of threads (sched(7)); those that are made later inherit it.
func raisePriority(log *slog.Logger) {
	threads, err := os.ReadDir("/proc/self/task")
	for _, t := range threads {
		if tid, e := strconv.Atoi(t.Name()); e == nil {
			if now, e := unix.Getpriority(unix.PRIO_PROCESS, tid); e == nil && 20-now <= agentNice {
				continue // somebody has set a better one
			}
			err = unix.Setpriority(unix.PRIO_PROCESS, tid, agentNice)
		}
		if err != nil {
			break
		}
	}
	if err != nil {
		log.Debug("the agent runs at its ordinary priority", "err", err)
	}
}
