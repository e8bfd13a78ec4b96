package integration

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"stellar.io/stellar/api"
	"stellar.io/stellar/internal/failpoint"
	"stellar.io/stellar/internal/failpoint/failctl"
	"stellar.io/stellar/internal/testx"
	"stellar.io/stellar/internal/testx/faults"
)

// key is what `endpoint ls` calls a container of the default namespace.
func key(id string) string { return "default/" + id }

// crashOp is something that happens on a node, in whose midst the agent is to die.
// It is made anew for each crash.
type crashOp struct {
	before func() // while all is well
	during func() // the failpoint is armed: what is asked for here may fail
	after  func() // the agent has been started again, once
}

// dies has the operation meet its end at a failpoint, and checks what is left.
func (b *crashBed) dies(p failpoint.Name, op crashOp) {
	b.t.Helper()
	if !b.running() { // an earlier case has failed
		b.restart()
	}
	if op.before != nil {
		op.before()
	}
	b.arm(p, failctl.Crash, 1, 0)
	op.during()
	b.awaitCrash(p)
	b.restart()
	if op.after != nil {
		op.after()
	}
	b.check()
}

// attach: a container is started. Whenever the agent dies, it has its network when
// the agent is back, and it can go.
func (b *crashBed) attach() crashOp {
	id := unique("attach")
	return crashOp{
		during: func() { b.runContainer(testx.Run{ID: id, Labels: networked()}) },
		after: func() {
			b.settled(id)
			b.reaches(id, b.held[key("anchor")].String())
			b.reaches("anchor", b.held[key(id)].String())
			b.check()
			b.removes(id)
		},
	}
}

// attachHeld is attach with time for the program to come to its first instruction
// before its network is there.
func (b *crashBed) attachHeld() crashOp {
	op := b.attach()
	op.before = func() { b.arm(failpoint.AgentBind, failctl.Sleep, 1, 500*time.Millisecond) }
	return op
}

// detach: a container is deleted.
func (b *crashBed) detach() crashOp {
	id := unique("detach")
	return crashOp{
		before: func() { b.runs(id) },
		during: func() {
			if err := b.containerd.Remove("default", id); err != nil {
				b.t.Fatal(err)
			}
		},
		after: func() { b.vanished(id) },
	}
}

// cniAdd: a CNI client's ADD. After a failure the client sends DEL, as the protocol
// asks for, and may try again.
func (b *crashBed) cniAdd() crashOp {
	id := unique("add")
	return crashOp{
		during: func() { _ = b.add(id, b.pod) },
		after: func() {
			b.must(b.del(id, b.pod))
			b.check()
			b.must(b.add(id, b.pod))
			b.pings(b.pod, b.held[key("anchor")])
			b.check()
			b.must(b.del(id, b.pod))
		},
	}
}

// cniAddAgain: the client does not send DEL but asks again.
func (b *crashBed) cniAddAgain() crashOp {
	op, id := b.cniAdd(), unique("again")
	op.during = func() { _ = b.add(id, b.pod) }
	op.after = func() {
		if _, acknowledged := b.held["stellar/"+id]; acknowledged {
			b.requests--
		}
		b.must(b.add(id, b.pod))
		b.pings(b.pod, b.held[key("anchor")])
		b.check()
		b.must(b.del(id, b.pod))
	}
	return op
}

// cniDel: a CNI client's DEL, which it repeats when it has no answer.
func (b *crashBed) cniDel() crashOp {
	id := unique("del")
	return crashOp{
		before: func() { b.must(b.add(id, b.pod)) },
		during: func() { _ = b.del(id, b.pod) },
		after:  func() { b.must(b.del(id, b.pod)) },
	}
}

// cniDown: a CNI client's DEL of a container of containerd, which keeps its address.
func (b *crashBed) cniDown() crashOp {
	id := unique("down")
	at := api.Attachment{Network: "stellar", ContainerID: "default-" + id, Ifname: "eth0"}
	return crashOp{
		before: func() {
			b.runContainer(testx.Run{ID: id})
			up := at
			up.NetNS = fmt.Sprintf("/proc/%d/ns/net", b.pidOf(id))
			ctx, cancel := b.ctx()
			defer cancel()
			_, err := b.api.AddAttachment(ctx, api.AttachmentSpec{Attachment: up})
			b.must(err)
			b.settled(id)
		},
		during: func() {
			ctx, cancel := b.ctx()
			defer cancel()
			_, _ = b.api.DelAttachment(ctx, at)
		},
		after: func() {
			ctx, cancel := b.ctx()
			defer cancel()
			_, err := b.api.DelAttachment(ctx, at)
			b.must(err)
			if e := b.await(id, "bound"); e.Address != b.held[key(id)].String() {
				faults.Safety(b.t, "after DEL: %+v, it had %s", e, b.held[key(id)])
			}
			b.removes(id)
		},
	}
}

// comeBack: the agent is started while containers run.
func (b *crashBed) comeBack() crashOp {
	return crashOp{during: func() {
		_ = b.stopAgent(syscall.SIGKILL)
		b.launch()
	}}
}

// newNodeHere: the node is made anew, as on its first day, while containers run.
func (b *crashBed) newNodeHere() crashOp {
	return crashOp{
		before: func() {
			_ = b.stopAgent(syscall.SIGTERM)
			if out, err := b.host.Output(binary, "agent", "cleanup", "-y"); err != nil {
				b.t.Fatalf("%v\n%s", err, out)
			}
			b.must(os.RemoveAll(filepath.Join(b.dir, "data")))
			// What a CNI client had has gone with its interface; containers begin anew.
			b.held, b.netns, b.requests = map[string]netip.Addr{}, map[string]string{}, 0
		},
		during: func() { b.launch("--init") },
	}
}

// makeNew is dies for newNodeHere, which needs --init after the crash as well.
func (b *crashBed) makeNew(p failpoint.Name) {
	b.t.Helper()
	op := b.newNodeHere()
	op.before()
	b.arm(p, failctl.Crash, 1, 0)
	op.during()
	b.awaitCrash(p)
	b.restart("--init")
	b.settled("anchor")
	b.must(b.add("kept", b.keptPod))
	b.check()
}

// halfMade: the agent dies once between a link and its alias, and again when it finds
// that link.
func (b *crashBed) halfMade() crashOp {
	op := b.attach()
	begin := op.during
	op.during = func() {
		b.table.Disarm()
		b.arm(failpoint.NetLink, failctl.Crash, 1, 0)
		begin()
		b.awaitCrash(failpoint.NetLink)
		b.arm(failpoint.NetHalfMade, failctl.Crash, 1, 0)
		b.launch()
	}
	return op
}

// inFlight: a lease is in the journal, its proposal hangs; the agent dies, and again
// when it proposes it once more.
func (b *crashBed) inFlight() crashOp {
	op := b.attach()
	begin := op.during
	op.during = func() {
		b.table.Disarm()
		b.arm(failpoint.RaftPropose, failctl.Sleep, 0, 2*time.Second)
		b.arm(failpoint.AgentBound, failctl.Crash, 1, 0)
		begin()
		b.awaitCrash(failpoint.AgentBound)
		b.table.Disarm()
		b.arm(failpoint.HolderFlight, failctl.Crash, 1, 0)
		b.launch()
	}
	return op
}

// rotate: a write of the journal fails, so it is written anew.
func (b *crashBed) rotate() crashOp {
	op := b.attach()
	op.before = func() { b.arm(failpoint.JournalAppend, failctl.Error, 1, 0) }
	return op
}

// commands: entries come until Raft takes a snapshot.
func (b *crashBed) commands() crashOp {
	return crashOp{during: func() {
		for range 100 {
			for _, verb := range []string{"reserve", "release"} {
				if _, err := b.run("ipam", verb, "-y", "172.20.0.0/22"); err != nil && !b.running() {
					return
				}
			}
		}
	}, after: func() { _, _ = b.run("ipam", "release", "-y", "172.20.0.0/22") }}
}

// backup: the state is saved to a file.
func (b *crashBed) backup() crashOp {
	file := filepath.Join(b.dir, unique("backup"))
	return crashOp{
		during: func() { _, _ = b.run("raft", "snapshot", "save", file) },
		after:  func() { b.cli("raft", "snapshot", "save", file) },
	}
}

// restore: a backup is restored that knows of a lease too many and of one too few.
func (b *crashBed) restore() crashOp {
	file := filepath.Join(b.dir, unique("backup"))
	gone, late := unique("gone"), unique("late")
	return crashOp{
		before: func() {
			b.runs(gone)
			b.cli("raft", "snapshot", "save", file)
			b.removes(gone)
			b.checkAll(true)
			b.runs(late)
		},
		during: func() { _, _ = b.run("raft", "snapshot", "restore", "-y", file) },
		after: func() {
			b.cli("raft", "snapshot", "restore", "-y", file)
			b.settled(late)
			b.check()
			b.removes(late)
			b.cli("cluster", "end-reclaim", "-y")
		},
	}
}

// reroute: somebody has deleted a route.
func (b *crashBed) reroute() crashOp {
	return crashOp{during: func() {
		b.host.Run(b.t, "ip", "route", "del", "unreachable", "172.16.0.0/12", "metric", b.metric())
	}}
}

// metric is that of the route of the whole network.
func (b *crashBed) metric() string {
	fields := strings.Fields(b.host.Run(b.t, "ip", "route", "show", "exact", "172.16.0.0/12", "type", "unreachable"))
	for i, f := range fields {
		if f == "metric" {
			return fields[i+1]
		}
	}
	return "0"
}

func (b *crashBed) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatalf("%v\n%s", err, b.tail())
	}
}
