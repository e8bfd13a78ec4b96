package ipam

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
	"testing"
	"testing/iotest"
	"time"
)

// fullState returns a state with something in every table.
func fullState(t fatalizer) *State {
	t.Helper()
	s := firstState(t)
	ok(t, s, tokenCmd(1), tokenCmd(2), tokenCmd(4), joinCmd(4), RevokeToken{tokenID(2)}, DrainNode{nodeID(2), true},
		RaiseGeneration{2})
	return s
}

// firstState is the part of fullState that the first version had. It must not
// change: testdata holds its snapshot.
func firstState(t fatalizer) *State {
	t.Helper()
	s := cluster(t, 3)
	ok(t, s, Tick{7 * time.Second})
	for i := range 40 {
		bind(t, s, 1+i%2, uintToAddr(addrToUint(fence(t, s, 1+i%2).Subnet.Prefix.Addr())+uint32(2+i)).String(), fmt.Sprintf("c%d", i))
	}
	f := fence(t, s, 1)
	ok(t, s, MarkLease{f, mustAddr("172.16.0.2"), owner("c0"), Attached},
		ReleaseLease{f, mustAddr("172.16.0.4"), owner("c2")},
		ReserveAddress{Network: DefaultNetwork, Prefix: mustPrefix("172.17.0.0/16"), Reason: "docker0"},
		RemoveNode{Node: nodeID(3), Force: true})
	for seq := range uint64(maxRequests + 3) {
		apply(t, s, Envelope{RequestID{nodeID(2), seq + 1}, []Command{Tick{time.Millisecond}}})
	}
	return s
}

func TestSnapshotRoundTrip(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]*State{"empty": New(), "full": fullState(t)} {
		data := written(t, s)
		got, err := Restore(iotest.OneByteReader(bytes.NewReader(data)))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got.Hash() != s.Hash() || got.Index() != s.Index() || !bytes.Equal(written(t, got), data) {
			t.Errorf("%s: restored another state", name)
		}
		equal(t, name+": derived", got.derived, s.derived)
	}
}

// TestSnapshotIsAMoment: later entries do not show in a snapshot, even while it
// is written.
func TestSnapshotIsAMoment(t *testing.T) {
	t.Parallel()
	s := fullState(t)
	want, hash := written(t, s), s.Hash()
	sn := s.Snapshot()
	var wg sync.WaitGroup
	wg.Go(func() {
		for range 20 {
			var b bytes.Buffer
			if _, err := sn.WriteTo(&b); err != nil || !bytes.Equal(b.Bytes(), want) || sn.Hash() != hash {
				t.Error("the snapshot has changed")
				return
			}
		}
	})
	f := fence(t, s, 1)
	for i := range 300 {
		data, err := Envelope{Commands: []Command{
			BindLease{Fence: f, Addr: uintToAddr(addrToUint(f.Subnet.Prefix.Addr()) + 100 + uint32(i)), Owner: owner(fmt.Sprint("x", i))},
			ReleaseLease{f, mustAddr("172.16.0.2"), owner("c0")},
			Tick{time.Millisecond},
		}}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Apply(s.Index()+1, data); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
}

func TestRestoreRefuses(t *testing.T) {
	t.Parallel()
	good := written(t, fullState(t))
	newer := bytes.Clone(good)
	binary.BigEndian.PutUint32(newer[8:], snapshotVersion+1)
	binary.BigEndian.PutUint32(newer[20:], crc32.Checksum(newer[:20], castagnoli))
	flipped := func(at int) []byte {
		b := bytes.Clone(good)
		b[at] ^= 0x10
		return b
	}
	for _, tt := range []struct {
		name string
		data []byte
		want error
	}{
		{"nothing", nil, ErrSnapshotTruncated},
		{"half a header", good[:12], ErrSnapshotTruncated},
		{"header alone", good[:headerSize], ErrSnapshotTruncated},
		{"half a frame", good[:len(good)/2], ErrSnapshotTruncated},
		{"no trailer", good[:len(good)-32], ErrSnapshotTruncated},
		{"half a trailer", good[:len(good)-1], ErrSnapshotTruncated},
		{"foreign", append([]byte("SQLite format 3\x00"), good...), ErrSnapshotFormat},
		{"more data", append(bytes.Clone(good), 0), ErrSnapshotFormat},
		{"newer", newer, ErrSnapshotVersion},
		{"damaged header", flipped(13), ErrSnapshotChecksum},
		{"damaged frame length", flipped(headerSize + 1), ErrSnapshotChecksum},
		{"damaged record", flipped(headerSize + 40), ErrSnapshotChecksum},
		{"damaged trailer", flipped(len(good) - 1), ErrSnapshotChecksum},
	} {
		if _, err := Restore(bytes.NewReader(tt.data)); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
	broken := errors.New("disk")
	r := io.MultiReader(bytes.NewReader(good[:100]), iotest.ErrReader(broken))
	if _, err := Restore(r); !errors.Is(err, broken) {
		t.Errorf("the reader's error: got %v", err)
	}
}

// TestRestoreEveryDamage cuts a snapshot at every byte and flips every bit.
func TestRestoreEveryDamage(t *testing.T) {
	t.Parallel()
	good := written(t, cluster(t, 1))
	for i := range good {
		if _, err := Restore(bytes.NewReader(good[:i])); !errors.Is(err, ErrSnapshotTruncated) {
			t.Fatalf("cut at %d: %v", i, err)
		}
		for bit := range 8 {
			b := bytes.Clone(good)
			b[i] ^= 1 << bit
			want := ErrSnapshotChecksum
			if i < len(snapshotMagic) {
				want = ErrSnapshotFormat
			}
			if _, err := Restore(bytes.NewReader(b)); !errors.Is(err, want) {
				t.Fatalf("bit %d of byte %d: %v", bit, i, err)
			}
		}
	}
}

// forged writes records with right checksums.
func forged(t *testing.T, index uint64, records func(*encoder)) []byte {
	t.Helper()
	var b bytes.Buffer
	f, e := newFrameWriter(&b), &encoder{}
	records(e)
	err := errors.Join(f.header(snapshotVersion, index), f.frame(e.buf), f.end())
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestRestoreInvalid: undamaged data that no state can be is refused.
func TestRestoreInvalid(t *testing.T) {
	t.Parallel()
	net := Network{Name: DefaultNetwork, ID: 1, Prefix: mustPrefix("172.16.0.0/12"), SubnetBits: 22}
	cl := func(e *encoder) {
		e.byte(tagCluster)
		e.cluster(clusterRecord{ID: clusterID, Generation: 1})
	}
	for name, records := range map[string]func(*encoder){
		"unknown record": func(e *encoder) { cl(e); e.byte(99) },
		"no cluster":     func(e *encoder) { e.byte(tagNetwork); e.network(net) },
		"two clusters":   func(e *encoder) { cl(e); cl(e) },
		"a table late": func(e *encoder) {
			cl(e)
			e.byte(tagNode)
			e.node(Node{ID: nodeID(1), Name: "a", Mode: ModeBridge, Role: RoleServer})
			e.byte(tagNetwork)
			e.network(net)
		},
		"a record twice": func(e *encoder) {
			cl(e)
			for range 2 {
				e.byte(tagNetwork)
				e.network(net)
			}
		},
		"cut record":      func(e *encoder) { cl(e); e.byte(tagNetwork); e.text(DefaultNetwork) },
		"long text":       func(e *encoder) { cl(e); e.byte(tagNetwork); e.uint(1 << 40) },
		"empty, yet time": func(e *encoder) { e.byte(tagCluster); e.cluster(clusterRecord{Time: 5}) },
		"lease nowhere": func(e *encoder) {
			cl(e)
			e.byte(tagNetwork)
			e.network(net)
			e.byte(tagLease)
			r := newLeaseRecord(owner("a"), "")
			r.State = Bound
			e.lease(leaseKey{1, addrToUint(mustAddr("172.16.0.2"))}, r)
		},
	} {
		if _, err := Restore(bytes.NewReader(forged(t, 5, records))); !errors.Is(err, ErrSnapshotInvalid) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// TestWriteToError: the writer's error is reported, and so is what got out.
func TestWriteToError(t *testing.T) {
	t.Parallel()
	s := fullState(t)
	size := len(written(t, s))
	for limit := 0; limit < size; limit += 97 {
		w := &limitedWriter{left: limit}
		n, err := s.Snapshot().WriteTo(w)
		if !errors.Is(err, io.ErrShortWrite) || n != int64(limit) {
			t.Fatalf("limit %d: wrote %d, %v", limit, n, err)
		}
	}
}

type limitedWriter struct{ left int }

func (w *limitedWriter) Write(b []byte) (int, error) {
	if len(b) > w.left {
		n := w.left
		w.left = 0
		return n, io.ErrShortWrite
	}
	w.left -= len(b)
	return len(b), nil
}
