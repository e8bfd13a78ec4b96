package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"hash/crc32"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/apitest"
	"stellar.io/stellar/api/server"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore"
)

var update = flag.Bool("update", false, "write golden files and scripts anew")

func TestMain(m *testing.M) {
	if dir := os.Getenv(lockEnv); dir != "" {
		lockChild(dir)
	}
	testscript.Main(m, map[string]func(){"stellar": main})
}

// TestScripts runs the real binary against a backend in memory on a real socket.
// Commands besides testscript's own: `fake` (see runFake), `exits CODE
// COMMAND…`, `lock DIR`, `plugins DIR` (the CNI plugins), and those that damage a file into another: `truncate IN
// OUT`, `flip IN OUT BYTE`, `newer IN OUT`.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           filepath.Join("testdata", "script"),
		UpdateScripts: *update,
		Setup: func(env *testscript.Env) error {
			// $WORK has the name of the script in it and may be too long for a socket.
			dir, err := os.MkdirTemp("", "stellar-cli-")
			if err != nil {
				return err
			}
			f := &fakeAgent{Backend: apitest.New(fixedTime), path: filepath.Join(dir, "s")}
			env.Defer(func() {
				f.stop()
				os.RemoveAll(dir)
			})
			env.Values[fakeKey{}] = f
			env.Setenv("STELLAR_ADDRESS", "unix://"+f.path)
			env.Setenv("SOCKET", f.path)
			env.Setenv("TZ", "UTC")
			env.Setenv("GORACE", "atexit_sleep_ms=0") // with -race each process would take a second to end
			env.Setenv("ESC", "\x1b[2Jreason")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"fake": runFake, "exits": runExits, "lock": runLock, "plugins": runPlugins,
			"truncate": damage(func(b []byte, _ int) []byte { return b[:len(b)-7] }),
			"flip":     damage(func(b []byte, at int) []byte { b[at] ^= 1; return b }),
			"newer":    damage(newer),
		},
	})
}

func fixedTime() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }

type fakeKey struct{}

// fakeAgent serves a fake backend while a script wants it.
type fakeAgent struct {
	*apitest.Backend
	path string

	mu     sync.Mutex // guards what follows; a script may start and stop "later"
	cancel context.CancelFunc
	done   chan error
}

func (f *fakeAgent) start() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, err := server.Listen(f.path, "")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	f.cancel, f.done = cancel, make(chan error, 1)
	go func() { f.done <- server.New(f.Backend, nil).Run(ctx, l) }()
	return nil
}

func (f *fakeAgent) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cancel != nil {
		f.cancel()
		<-f.done
		f.cancel = nil
	}
}

// runFake is the script's hand on the backend:
//
//	fake start | stop | init
//	fake put NAMESPACE/CONTAINER STATE IP|- AGE|TIME [REASON]
//	fake container NAMESPACE/CONTAINER: one without an endpoint
//	fake rm CONTAINER; fake break CONTAINER WHAT…
//	fake check NAME STATE [REASON]; fake fail METHOD CODE [MESSAGE [HINT]]
//	fake finding CODE SEVERITY SUBJECT MESSAGE MEND
//	fake event TYPE SUBJECT MESSAGE
//	fake node NAME ROLE; fake lease NODE IP; fake lose NODE [found]
//	fake followed: by two nodes; fake follow SERVER BEHIND AGE; fake follow: none is reached
//	fake route DESTINATION VIA|- DEV NODE STATE [REASON]
//	fake report NAME TEXT: a file of the agent's bug report
//	fake trace ok|broken|unknown
//	fake snapshot FILE [CLUSTER-ID]: makes one, and has the backend save it
//	fake drop ADDRESS [PROBLEM]; fake connectivity healthy|filtered|absent PACE
//	fake later DURATION …: any of these, after a while
func runFake(ts *testscript.TestScript, neg bool, args []string) {
	f := ts.Value(fakeKey{}).(*fakeAgent)
	if neg || len(args) == 0 {
		ts.Fatalf("usage: fake VERB …")
	}
	if args[0] == "later" {
		d, err := time.ParseDuration(args[1])
		ts.Check(err)
		time.AfterFunc(d, func() { _ = f.do(args[2:]) }) // the script sees what came of it
		return
	}
	if args[0] == "snapshot" {
		args[1] = ts.MkAbs(args[1])
	}
	ts.Check(f.do(args))
}

func (f *fakeAgent) do(args []string) error {
	arg := func(i int) string {
		if i < len(args) {
			return args[i]
		}
		return ""
	}
	switch args[0] {
	case "start":
		return f.start()
	case "stop":
		f.stop()
	case "init":
		_, err := f.InitCluster(context.Background(), api.ClusterSpec{})
		return err
	case "put":
		return f.put(arg(1), arg(2), arg(3), arg(4), arg(5))
	case "container":
		ref := api.ParseEndpointRef(arg(1))
		f.PutContainer(api.ContainerRef{Namespace: ref.Namespace, Container: ref.Container}, api.Asked{})
	case "rm":
		f.RemoveEndpoint(arg(1))
	case "break":
		f.Break(arg(1), args[2:]...)
	case "check":
		f.SetCheck(api.Check{Name: arg(1), State: api.CheckState(arg(2)), Reason: arg(3)})
	case "fail":
		if arg(2) == "" {
			f.Fail(arg(1), nil)
			return nil
		}
		f.Fail(arg(1), api.Errorf(api.Code(arg(2)), "%s", arg(3)).WithHint(arg(4)))
	case "node":
		return f.AddNode(arg(1), arg(2))
	case "followed":
		f.Followed(api.RaftFollowers{Count: 2, BehindMax: 5, SnapshotsSent: 3})
	case "follow":
		return f.follow(arg(1), arg(2), arg(3))
	case "lease":
		return f.AddLease(arg(1), netip.MustParseAddr(arg(2)))
	case "lose":
		f.Lose(arg(1), arg(2) != "found")
	case "finding":
		f.Find(api.CheckFinding{Node: apitest.NodeName, Code: arg(1), Severity: arg(2), Subject: arg(3), Message: arg(4), Mend: arg(5)})
	case "route":
		r := api.Route{Destination: netip.MustParsePrefix(arg(1)), Dev: arg(3), Node: arg(4), State: arg(5), Reason: arg(6)}
		if arg(2) != "-" {
			r.Via = netip.MustParseAddr(arg(2))
		}
		f.SetRoute(r)
	case "report":
		f.SetReport(api.ReportFile{Name: arg(1), Data: []byte(arg(2))})
	case "trace":
		f.SetTrace(fakeTrace(arg(1)))
	case "snapshot":
		return f.snapshot(arg(1), cmp.Or(arg(2), apitest.ClusterID))
	case "drop":
		f.Drop(netip.MustParseAddr(arg(1)), arg(2))
	case "connectivity":
		pace, err := time.ParseDuration(arg(2))
		if err != nil {
			return err
		}
		f.SetConnectivity(connectivityReport(arg(1)), pace)
	case "event":
		f.AddEvent(arg(1), arg(2), arg(3))
	default:
		return errors.New("fake does not know " + args[0])
	}
	return nil
}

// follow makes the node one that follows a server; without one it has never heard any.
func (f *fakeAgent) follow(server, behind, age string) (err error) {
	now := api.RaftFollowing{Server: server, Connected: server != "", LastBeat: -1}
	if now.Connected {
		now.SnapshotsReceived = 1
		now.Behind, err = strconv.ParseUint(behind, 10, 64)
		if err == nil {
			now.LastBeat, err = time.ParseDuration(age)
		}
	}
	f.Follow(now)
	return err
}

func (f *fakeAgent) put(name, state, ip, when, reason string) error {
	since, err := time.Parse(time.RFC3339, when)
	if err != nil {
		age, err := time.ParseDuration(when)
		if err != nil {
			return err
		}
		since = time.Now().Add(-age)
	}
	ref := api.ParseEndpointRef(name)
	d := api.EndpointDetail{
		Endpoint: api.Endpoint{
			Namespace: ref.Namespace, Container: ref.Container, Network: "default", Ifname: "eth0",
			State: state, Source: "label", Reason: reason, Since: since,
		},
		Created: fixedTime(), LeaseState: "bound",
	}
	if ip != "-" {
		if d.Address, err = netip.ParseAddr(ip); err != nil {
			return err
		}
	}
	if d.Up() {
		d.MAC, d.HostIfname, d.Ready, d.LeaseState = "02:73:ac:10:00:02", "veth5f3a9c01e2b", "early", "attached"
		d.PID, d.NetNS, d.MTU, d.DefaultRoute = 4711, 4026532800, 1500, true
		d.Subnet, d.Gateway = netip.MustParsePrefix("172.16.0.0/22"), netip.MustParseAddr("172.16.0.1")
		d.Phases = []api.Phase{{Name: "bind", Duration: 321 * time.Microsecond}, {Name: "link", Duration: 1500 * time.Microsecond}}
	}
	return f.PutEndpoint(d)
}

// snapshot writes what a store of that cluster saves to a file.
func (f *fakeAgent) snapshot(path, cluster string) error {
	file, err := makeSnapshot(cluster)
	if err != nil {
		return err
	}
	f.SetSnapshot(file)
	return os.WriteFile(path, file, 0o600)
}

// makeSnapshot runs a store for long enough to save its state.
func makeSnapshot(cluster string) (file []byte, err error) {
	dir, err := os.MkdirTemp("", "stellar-snapshot-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	cfg := raftstore.Config{Dir: filepath.Join(dir, "raft"), NodeID: apitest.NodeID}
	err = raftstore.Init(ctx, cfg, ipam.Envelope{Commands: []ipam.Command{
		ipam.InitCluster{ClusterID: cluster, Network: ipam.DefaultNetwork, Prefix: netip.MustParsePrefix("172.16.0.0/12"), SubnetBits: 22},
	}})
	if err != nil {
		return nil, err
	}
	s, err := raftstore.Open(cfg)
	if err != nil {
		return nil, err
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var buf bytes.Buffer
	if err = s.WaitLeader(ctx); err == nil {
		_, err = s.SnapshotSave(ctx, &buf)
	}
	cancel()
	return buf.Bytes(), errors.Join(err, <-done)
}

// runExits runs a command and compares its exit code.
func runExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%s: %v", strings.Join(args[1:], " "), err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("%s: exit code %d, want %d", strings.Join(args[1:], " "), got, want)
	}
}

// damage makes a command that writes a changed copy of a file.
func damage(how func(b []byte, at int) []byte) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) < 2 {
			ts.Fatalf("usage: VERB IN OUT [BYTE]")
		}
		at := 0
		if len(args) > 2 {
			var err error
			at, err = strconv.Atoi(args[2])
			ts.Check(err)
		}
		data, err := os.ReadFile(ts.MkAbs(args[0]))
		ts.Check(err)
		ts.Check(os.WriteFile(ts.MkAbs(args[1]), how(data, at), 0o600))
	}
}

// newer makes the header of a snapshot say that a later version wrote it.
func newer(b []byte, _ int) []byte {
	b[len("STLRBKUP")+3]++
	head := len("STLRBKUP") + 4 + 32 + 8 + 8 + 8 + 8 + 32
	binary.BigEndian.PutUint32(b[head:], crc32.Checksum(b[:head], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// runLock holds a data directory, as an agent does, until the script ends.
func runLock(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: lock DIR")
	}
	d, err := openDataDir(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Defer(func() { d.Close() })
}
