package agent

import (
	"context"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"time"

	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore"
	"stellar.io/stellar/raftstore/journal"
)

const (
	simNode    = ipam.NodeID("0123456789abcdef0123456789abcdef")
	simCluster = "00112233445566778899aabbccddeeff"
)

// simStore is the log and this node's replica of the state, by the real Apply.
type simStore struct {
	w      *world
	state  *ipam.State
	log    [][]byte // committed; the replica has applied the first of them
	late   [][]byte // of unknown outcome: they come later, or never
	leader bool
	subnet ipam.Subnet
}

// simFirst is the cluster at its beginning.
var simFirst = func() []byte {
	data, err := ipam.Envelope{Commands: []ipam.Command{
		ipam.InitCluster{ClusterID: simCluster, Network: ipam.DefaultNetwork, Prefix: netip.MustParsePrefix("172.16.0.0/16"), SubnetBits: 28},
		ipam.RegisterNode{Node: simNode, Name: "a", MachineID: strings.Repeat("1", 32), Address: "127.0.0.1:9640", Version: "1", Mode: ipam.ModeBridge},
		ipam.ClaimSubnet{Node: simNode, Network: ipam.DefaultNetwork},
	}}.Encode()
	if err != nil {
		panic(err)
	}
	return data
}()

func (s *simStore) init(w *world) {
	s.w, s.state, s.leader = w, ipam.New(), true
	s.log = append(s.log, simFirst)
	s.catchUp()
	for sub := range s.state.SubnetsOf(simNode) {
		s.subnet = sub
	}
}

// catchUp applies what is committed.
func (s *simStore) catchUp() (last []ipam.Result) {
	for i := s.state.Index(); i < uint64(len(s.log)); i++ {
		out, err := s.state.Apply(i+1, s.log[i])
		if err != nil {
			s.w.breaks("entry %d: %v", i+1, err)
			return nil
		}
		last = out.Results
	}
	return last
}

// reopen is a start of the process: what the replica had applied last may not be
// known to be committed before a leader says so.
func (s *simStore) reopen() {
	behind := 0
	if s.w.faults && s.w.luck(250) {
		behind = min(s.w.rng.IntN(6), len(s.log)-1)
	}
	if behind == 0 {
		return
	}
	s.state = ipam.New()
	for i, data := range s.log[:len(s.log)-behind] {
		if _, err := s.state.Apply(uint64(i)+1, data); err != nil {
			s.w.breaks("entry %d: %v", i+1, err)
		}
	}
	s.w.trace.line("replica behind").num(int64(behind)).end(s.w)
}

// lateComes commits one of the entries of unknown outcome, or loses it.
func (s *simStore) lateComes() {
	i := s.w.rng.IntN(len(s.late))
	data := s.late[i]
	s.late = slices.Delete(s.late, i, i+1)
	if s.w.luck(300) {
		s.w.trace.line("late entry lost").end(s.w)
		return
	}
	s.w.trace.line("late entry").num(int64(len(data))).end(s.w)
	s.log = append(s.log, data)
	s.catchUp()
}

// simProposer is the store as one process sees it.
type simProposer struct {
	*simStore
	l *life
}

func (p simProposer) View(fn func(*ipam.State)) { fn(p.state) }

func (p simProposer) Propose(ctx context.Context, env ipam.Envelope) ([]ipam.Result, error) {
	w := p.w
	data, err := env.Encode()
	if err != nil {
		w.breaks("proposed what cannot be: %v", err)
		return nil, err
	}
	if p.l.dead {
		return nil, errDead
	}
	unknown := fmt.Errorf("simulated: %w", raftstore.ErrUnknownOutcome)
	n := 1000
	if w.faults {
		w.now += 500 * time.Microsecond
		if w.luck(100) {
			w.meanwhile()
		}
		n = w.rng.IntN(1000)
	}
	switch {
	case p.l.dead:
		return nil, errDead
	case !p.leader:
		return nil, fmt.Errorf("simulated: %w", raftstore.ErrNoLeader)
	case n < 2: // the process dies, the entry may be on its way
		w.crash(p.l, "propose")
		if n == 0 {
			p.late = append(p.late, data)
		}
		return nil, errDead
	case n < 20:
		w.trace.line("proposal lost").end(w)
		return nil, unknown
	case n < 40:
		w.trace.line("proposal late").end(w)
		p.late = append(p.late, data)
		return nil, unknown
	case n < 60: // it waits longer than its caller
		w.now += time.Second
		if ctx.Err() != nil {
			p.late = append(p.late, data)
			return nil, unknown
		}
	}
	p.log = append(p.log, data)
	results := p.catchUp()
	if w.trace.line("commit").num(int64(len(results))); len(results) > 0 {
		for _, r := range results {
			w.trace.ok(r.Err)
		}
	}
	w.trace.end(w)
	if n < 75 {
		return nil, unknown // committed, and the answer is lost
	}
	if err := w.after(p.l, "propose"); err != nil {
		return nil, err
	}
	return results, nil
}

// simDisk has the journal. What is not synced is lost, or torn, when the machine
// dies; when the process does, it stays.
type simDisk struct {
	w     *world
	files map[string]*simFile
}

type simFile struct {
	data   []byte
	synced int
}

func (d *simDisk) init(w *world) { d.w, d.files = w, map[string]*simFile{} }

// reboot leaves what was synced, and some bytes of what was not.
func (d *simDisk) reboot() {
	if f := d.files["/sim/journal"]; f != nil && len(f.data) > f.synced {
		f.data = f.data[:f.synced+d.w.rng.IntN(len(f.data)-f.synced+1)]
		f.synced = len(f.data)
	}
}

// simFS is the disk as one process sees it. Its calls are not interrupted: the
// journal holds its turn over them.
type simFS struct {
	*simDisk
	l *life
}

func (d simFS) fails(op string) error {
	if d.l.dead {
		return errDead
	}
	if !d.w.faults {
		return nil
	}
	switch n := d.w.rng.IntN(1000); {
	case n == 0:
		d.w.crash(d.l, op)
		return errDead
	case n < 4:
		d.w.trace.line("disk fails").text(op).end(d.w)
		return errLuck
	}
	return nil
}

func (d simFS) ReadFile(path string) ([]byte, error) {
	f := d.files[path]
	if f == nil {
		return nil, fs.ErrNotExist
	}
	return slices.Clone(f.data), nil
}

func (d simFS) OpenAppend(path string) (journal.File, error) {
	if d.files[path] == nil {
		return nil, fs.ErrNotExist
	}
	return &simOpenFile{d, d.files[path]}, d.fails("open")
}

func (d simFS) Create(path string) (journal.File, error) {
	if err := d.fails("create"); err != nil {
		return nil, err
	}
	f := &simFile{}
	d.files[path] = f
	return &simOpenFile{d, f}, nil
}

func (d simFS) Rename(from, to string) error {
	if err := d.fails("rename"); err != nil {
		return err
	}
	d.files[to] = d.files[from]
	delete(d.files, from)
	return nil
}

func (d simFS) Remove(path string) error {
	if err := d.fails("remove"); err != nil {
		return err
	}
	delete(d.files, path)
	return nil
}

func (d simFS) SyncDir(string) error { return d.fails("sync directory") }

type simOpenFile struct {
	d simFS
	f *simFile
}

func (o *simOpenFile) Write(b []byte) (int, error) {
	err := o.d.fails("write")
	if err != nil && o.d.w.faults {
		b = b[:o.d.w.rng.IntN(len(b)+1)]
	}
	if err == errDead && !o.d.w.luck(500) {
		return 0, err
	}
	o.f.data = append(o.f.data, b...)
	return len(b), err
}

func (o *simOpenFile) Truncate(size int64) error {
	if err := o.d.fails("truncate"); err != nil {
		return err
	}
	o.f.data = o.f.data[:size]
	o.f.synced = min(o.f.synced, len(o.f.data))
	return nil
}

func (o *simOpenFile) Sync() error {
	if err := o.d.fails("sync"); err != nil {
		return err
	}
	o.f.synced = len(o.f.data)
	return nil
}

func (o *simOpenFile) Close() error { return nil }
