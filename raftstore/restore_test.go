package raftstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"stellar.io/stellar/ipam"
)

func mustSave(t testing.TB, s *Store) ([]byte, SnapshotInfo) {
	t.Helper()
	var w bytes.Buffer
	info, err := s.SnapshotSave(t.Context(), &w)
	if err != nil {
		t.Fatal(err)
	}
	got, err := SnapshotInspect(bytes.NewReader(w.Bytes()))
	if err != nil || got != info {
		t.Fatalf("inspect: %+v %v, saved %+v", got, err, info)
	}
	return w.Bytes(), info
}

// TestRestore: the cluster goes back to a snapshot, with what is added to it, on all
// nodes, and over a restart; a node that was away gets it too.
func TestRestore(t *testing.T) {
	b := newBed(t, nil)
	b.form(3, 3)
	l := b.anyLeader()
	sub := b.subnet(l.Store, l.id)
	mustPropose(t, l.Store, ipam.Envelope{Commands: []ipam.Command{bind(sub, 2, "kept")}})
	file, info := mustSave(t, l.Store)
	if info.Cluster != cluster || info.Generation != 1 || info.Index == 0 || info.Term == 0 {
		t.Errorf("%+v", info)
	}
	mustPropose(t, l.Store, ipam.Envelope{Commands: []ipam.Command{bind(sub, 3, "lost")}})
	away := b.follower()
	away.stop()
	f := b.follower()
	if _, err := f.SnapshotRestore(t.Context(), bytes.NewReader(file), RestoreOptions{}); !errors.Is(err, ErrNoLeader) {
		t.Errorf("on a follower: %v", err)
	}
	before := l.fsm.index()
	res, err := l.SnapshotRestore(within(t, 20*time.Second), bytes.NewReader(file), RestoreOptions{
		Adjust: func(restored, live *ipam.State) (ipam.Envelope, error) {
			if _, ok := live.LeaseByOwner(owner("lost")); !ok {
				t.Error("not the live state")
			}
			return ipam.Envelope{Commands: []ipam.Command{bind(sub, 4, "added")}}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if res.Index <= before || res.Snapshot != info {
		t.Errorf("%+v, was at %d", res, before)
	}
	saved, err := os.ReadFile(res.Backup)
	if err != nil {
		t.Fatal(err)
	}
	if was, err := SnapshotInspect(bytes.NewReader(saved)); err != nil || was.Index != before {
		t.Errorf("automatic backup: %+v %v", was, err)
	}
	check := func(n *member1) {
		t.Helper()
		n.View(func(st *ipam.State) {
			for id, want := range map[string]bool{"kept": true, "lost": false, "added": true} {
				if _, ok := st.LeaseByOwner(owner(id)); ok != want {
					t.Errorf("%s: lease %s there: %v", n.host, id, ok)
				}
			}
		})
	}
	check(l)
	away.restart()
	b.waitLeader(away)
	b.waitLeader(f)
	mustProposeAny(t, b, 3)
	for _, n := range b.nodes {
		check(n)
	}
	b.same()
	for _, n := range b.nodes {
		n.stop()
	}
	for _, n := range b.nodes {
		n.restart()
	}
	for _, n := range b.nodes {
		b.waitLeader(n)
		check(n)
	}
	b.same()
}

// TestRestoreRefuses: a file that is not a whole snapshot of this cluster changes
// nothing, and neither does an adjustment that is refused.
func TestRestoreRefusals(t *testing.T) {
	cfg := testConfig(t.TempDir())
	mustInit(t, cfg)
	r := mustRun(t, cfg)
	good, _ := mustSave(t, r.Store)

	other := testConfig(t.TempDir())
	env := firstEnvelope()
	env.Commands[0] = ipam.InitCluster{ClusterID: strings.Repeat("b", 32), Network: ipam.DefaultNetwork, Prefix: testPrefix, SubnetBits: 22}
	if err := Init(t.Context(), other, env); err != nil {
		t.Fatal(err)
	}
	foreign, _ := mustSave(t, mustRun(t, other).Store)

	reseal := func(b []byte) []byte {
		binary.BigEndian.PutUint32(b[backupHeader-4:], crc32.Checksum(b[:backupHeader-4], castagnoli))
		return b
	}
	edit := func(at int, v byte) []byte {
		b := slices.Clone(good)
		b[at] = v
		return b
	}
	hash := func() (sum [32]byte) {
		r.View(func(st *ipam.State) { sum = st.Hash() })
		return sum
	}
	before := hash()
	for _, tt := range []struct {
		name string
		file []byte
		want error
	}{
		{"empty", nil, ipam.ErrSnapshotTruncated},
		{"half a header", good[:50], ipam.ErrSnapshotTruncated},
		{"header alone", good[:backupHeader], ipam.ErrSnapshotTruncated},
		{"truncated", good[:len(good)-1], ipam.ErrSnapshotTruncated},
		{"longer", append(slices.Clone(good), 0), ipam.ErrSnapshotFormat},
		{"not ours", []byte("SQLite format 3 and more"), ipam.ErrSnapshotFormat},
		{"newer", reseal(edit(11, 2)), ipam.ErrSnapshotVersion},
		{"flipped header", edit(50, 77), ipam.ErrSnapshotChecksum},
		{"flipped payload", edit(len(good)-100, good[len(good)-100]^1), ipam.ErrSnapshotChecksum},
		{"other generation in header", reseal(edit(67, 9)), ipam.ErrSnapshotInvalid},
		{"other hash in header", reseal(edit(80, good[80]^1)), ipam.ErrSnapshotChecksum},
		{"other cluster", foreign, ErrOtherCluster},
	} {
		if _, err := r.SnapshotRestore(t.Context(), bytes.NewReader(tt.file), RestoreOptions{}); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	_, err := r.SnapshotRestore(t.Context(), bytes.NewReader(good), RestoreOptions{
		Adjust: func(*ipam.State, *ipam.State) (ipam.Envelope, error) {
			return ipam.Envelope{Commands: []ipam.Command{ipam.ClaimSubnet{Node: otherNode, Network: "default"}}}, nil
		},
	})
	if !errors.Is(err, ErrRefused) || !errors.Is(err, ipam.ErrNodeNotFound) {
		t.Errorf("refused adjustment: %v", err)
	}
	if hash() != before {
		t.Error("a refused restore changed the state")
	}
	mustPropose(t, r.Store, tickEnvelope())
	for range 5 { // as often as one likes, also on one node
		if _, err := r.SnapshotRestore(t.Context(), bytes.NewReader(good), RestoreOptions{}); err != nil {
			t.Fatal(err)
		}
		mustPropose(t, r.Store, tickEnvelope())
	}
	list, err := os.ReadDir(filepath.Join(cfg.Dir, backupDir))
	if err != nil || len(list) != backupsKept {
		t.Errorf("%d automatic backups, %v", len(list), err)
	}
	r.mustStop(t)
	mustPropose(t, mustRun(t, cfg).Store, tickEnvelope())
}

// TestRecover: two of three nodes are lost; the third goes on alone, the rest comes
// back empty.
func TestRecover(t *testing.T) {
	b := newBed(t, nil)
	b.form(3, 3)
	l := b.anyLeader()
	sub := b.subnet(l.Store, l.id)
	for i := range 20 {
		mustPropose(t, l.Store, ipam.Envelope{Commands: []ipam.Command{bind(sub, 2+i, string(rune('a'+i)))}})
	}
	b.same()
	n := b.follower()
	ctx := t.Context()
	if _, err := Recover(ctx, n.cfg, RecoverOptions{}); !errors.Is(err, ErrLocked) {
		t.Errorf("recover of a running node: %v", err)
	}
	for _, m := range b.nodes {
		m.stop()
	}
	sv, err := Examine(n.cfg)
	if err != nil || sv.Cluster != cluster || sv.LastIndex < 20 || sv.Voters != 3 || sv.Servers != 3 || sv.LastTerm == 0 {
		t.Errorf("examine: %+v %v", sv, err)
	}
	if _, err := Recover(ctx, n.cfg, RecoverOptions{Adjust: func(*ipam.State, *ipam.State) (ipam.Envelope, error) {
		return ipam.Envelope{Commands: []ipam.Command{ipam.ClaimSubnet{Node: otherNode, Network: "default"}}}, nil
	}}); !errors.Is(err, ErrRefused) {
		t.Errorf("refused adjustment: %v", err)
	}
	if again, err := Examine(n.cfg); err != nil || again != sv {
		t.Errorf("a refused recovery changed the store: %+v %v", again, err)
	}
	res, err := Recover(ctx, n.cfg, RecoverOptions{Adjust: func(st, live *ipam.State) (ipam.Envelope, error) {
		if live != nil {
			t.Error("a live state, offline")
		}
		return ipam.Envelope{Commands: []ipam.Command{bind(sub, 100, "recovered")}}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	if res.Survivor != sv || res.Index != sv.LastIndex+1 {
		t.Errorf("%+v", res)
	}
	copied := n.cfg
	copied.Dir = res.Backup
	if was, err := Examine(copied); err != nil || was != sv {
		t.Errorf("the copy: %+v %v", was, err)
	}
	b.nodes = []*member1{n}
	n.restart()
	n.View(func(st *ipam.State) { // before any leader: nobody sees the old generation
		if _, ok := st.LeaseByOwner(owner("recovered")); !ok && n.Stats().State != "starting" {
			t.Error("the adjustment is not there from the start")
		}
	})
	b.waitLeader(n)
	if st := n.Stats(); st.State != "leader" || st.Voters != 1 || st.Servers != 1 {
		t.Errorf("%+v", st)
	}
	n.View(func(st *ipam.State) {
		for i := range 20 {
			if _, ok := st.LeaseByOwner(owner(string(rune('a' + i)))); !ok {
				t.Errorf("lease %d is lost", i)
			}
		}
		if _, ok := st.LeaseByOwner(owner("recovered")); !ok {
			t.Error("the adjustment is lost")
		}
	})
	b.join(5)
	b.join(6)
	waitIn(t, 15*time.Second, func() bool { m := b.leader(); return m != nil && m.Stats().Voters == 3 })
	b.same()
}
