package journal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"

	"stellar.io/stellar/ipam"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	header  = Header{Node: "0123456789abcdef0123456789abcdef", Cluster: "c1"}
	compare = cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})}
)

func bindRecord(i int) Record {
	return Record{
		Op: OpBind, Addr: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}),
		Owner:    ipam.Owner{Kind: ipam.OwnerContainer, Namespace: "default", ID: strconv.Itoa(i), Created: int64(i) - 3, Interface: "eth0"},
		Static:   i%2 == 0,
		Hostname: "h" + strconv.Itoa(i), Epoch: ipam.Epoch{Generation: 1, Counter: 2},
		Subnet: ipam.SubnetKey{Network: "default", Prefix: netip.MustParsePrefix("10.0.0.0/16")},
		Since:  int64(i) * 1e9, Request: ipam.RequestID{Node: header.Node, Seq: uint64(i + 1)},
	}
}

func mustOpen(t testing.TB, path string, o Options) (*Journal, Recovered) {
	t.Helper()
	if o.Header == (Header{}) {
		o.Header = header
	}
	j, rec, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j, rec
}

func mustAppend(t testing.TB, j *Journal, r ...Record) {
	t.Helper()
	if err := j.Append(t.Context(), r...); err != nil {
		t.Fatal(err)
	}
}

func TestAppendAndReopen(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "j")
	j, rec := mustOpen(t, path, Options{})
	if !rec.Created || len(rec.Records) != 0 {
		t.Errorf("new journal: %+v", rec)
	}
	released := bindRecord(2)
	released.Op = OpRelease
	reserve := Record{Op: OpReserve, Prefix: netip.MustParsePrefix("10.0.0.9/32"), Reason: "printer"}
	mustAppend(t, j, bindRecord(1), bindRecord(2), bindRecord(3))
	mustAppend(t, j, Record{Op: OpSeq, Request: ipam.RequestID{Seq: 1000}}, released)
	mustAppend(t, j, Record{Op: OpFree, Addr: bindRecord(3).Addr}, reserve)
	mustAppend(t, j, Record{Op: OpSeq, Request: ipam.RequestID{Seq: 500}}) // a lower number changes nothing
	mustAppend(t, j)
	want := []Record{reserve, {Op: OpSeq, Request: ipam.RequestID{Seq: 1000}}, released, bindRecord(1)}
	for round := range 3 {
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		j, rec = mustOpen(t, path, Options{})
		if d := cmp.Diff(Recovered{Records: want}, rec, compare); d != "" {
			t.Fatalf("round %d: %s", round, d)
		}
		if round == 1 {
			if err := j.Compact(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st.Mode(), err)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "j")
	j, _ := mustOpen(t, path, Options{})
	mustAppend(t, j, bindRecord(1))
	for _, r := range []Record{{}, {Op: OpBind}, {Op: OpFree}, {Op: OpSeq}, {Op: OpReserve}, {Op: 99, Addr: bindRecord(1).Addr},
		{Op: OpReserve, Prefix: netip.MustParsePrefix("10.0.0.9/32"), Reason: strings.Repeat("x", 100<<10)}} {
		if err := j.Append(t.Context(), bindRecord(2), r); !errors.Is(err, ErrInvalid) {
			t.Errorf("%v: %v", r.Op, err)
		}
	}
	j.Close()
	if err := j.Append(t.Context(), bindRecord(1)); !errors.Is(err, ErrClosed) {
		t.Errorf("append after close: %v", err)
	}
	if err := j.Compact(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("compact after close: %v", err)
	}
	for _, h := range []Header{{Node: header.Node, Cluster: "c2"}, {Node: "f", Cluster: "c1"}} {
		if _, _, err := Open(path, Options{Header: h}); !errors.Is(err, ErrForeign) {
			t.Errorf("%v: %v", h, err)
		}
	}
	if _, rec := mustOpen(t, path, Options{}); len(rec.Records) != 1 {
		t.Errorf("%+v", rec)
	}
}

// Cut anywhere, the journal holds exactly the appends whose last byte is there.
func TestTornTail(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "j")
	j, _ := mustOpen(t, path, Options{})
	ends := []int64{size(t, path)}
	const n = 6
	for i := range n {
		mustAppend(t, j, bindRecord(2*i), bindRecord(2*i+1))
		ends = append(ends, size(t, path))
	}
	j.Close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := 0; cut <= len(whole); cut++ {
		for _, tail := range []string{"", strings.Repeat("\x00", 40), "garbage that is longer than the head of a frame"} {
			torn := filepath.Join(t.TempDir(), "t")
			if err := os.WriteFile(torn, append(slices.Clone(whole[:cut]), tail...), 0o600); err != nil {
				t.Fatal(err)
			}
			j, rec, err := Open(torn, Options{Header: header})
			if int64(cut) < ends[0] {
				if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
					t.Fatalf("cut at %d in the header: %v", cut, err)
				}
				continue
			}
			if err != nil {
				t.Fatalf("cut at %d: %v", cut, err)
			}
			good := 0
			for good+1 < len(ends) && ends[good+1] <= int64(cut) {
				good++
			}
			if len(rec.Records) != 2*good || rec.Torn != int64(cut+len(tail))-ends[good] {
				t.Fatalf("cut at %d: %d records, %d torn; want %d", cut, len(rec.Records), rec.Torn, 2*good)
			}
			mustAppend(t, j, bindRecord(100)) // and it can be written on
			j.Close()
			if _, rec := mustOpen(t, torn, Options{}); len(rec.Records) != 2*good+1 || rec.Torn != 0 {
				t.Fatalf("cut at %d: after an append %+v", cut, rec)
			}
		}
	}
}

func size(t *testing.T, path string) int64 {
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return st.Size()
}

// A flipped bit is refused, or it was in the last write and that is reported as
// torn. It never changes a record.
func TestBitFlips(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "j")
	j, _ := mustOpen(t, path, Options{})
	var last int64
	for i := range 5 {
		last = size(t, path)
		mustAppend(t, j, bindRecord(i))
	}
	j.Close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(t.TempDir(), "b")
	for i := range whole {
		for bit := range 8 {
			flipped := slices.Clone(whole)
			flipped[i] ^= 1 << bit
			if err := os.WriteFile(bad, flipped, 0o600); err != nil {
				t.Fatal(err)
			}
			j, rec, err := Open(bad, Options{Header: header})
			switch {
			case err == nil && int64(i) >= last:
				j.Close()
				if rec.Torn == 0 || len(rec.Records) != 4 {
					t.Fatalf("byte %d bit %d: %+v", i, bit, rec)
				}
			case err == nil:
				t.Fatalf("byte %d bit %d went unnoticed", i, bit)
			case !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion):
				t.Fatalf("byte %d bit %d: %v", i, bit, err)
			default:
				if now, err := os.ReadFile(bad); err != nil || !slices.Equal(now, flipped) {
					t.Fatalf("byte %d: a corrupt file was touched", i)
				}
			}
		}
	}
}

// countingFS counts fsyncs and fails on demand.
type countingFS struct {
	OS
	syncs  atomic.Int32
	delay  time.Duration
	failAt func(op string) error // may be nil
}

func (c *countingFS) fail(op string) error {
	if c.failAt == nil {
		return nil
	}
	return c.failAt(op)
}

func (c *countingFS) Create(path string) (File, error) {
	if err := c.fail("create"); err != nil {
		return nil, err
	}
	f, err := c.OS.Create(path)
	return countingFile{f, c}, err
}

func (c *countingFS) OpenAppend(path string) (File, error) {
	f, err := c.OS.OpenAppend(path)
	return countingFile{f, c}, err
}

func (c *countingFS) Rename(from, to string) error {
	return errors.Join(c.fail("rename"), c.OS.Rename(from, to))
}

func (c *countingFS) SyncDir(dir string) error {
	return errors.Join(c.fail("syncdir"), c.OS.SyncDir(dir))
}

type countingFile struct {
	File
	c *countingFS
}

func (f countingFile) Write(b []byte) (int, error) {
	if err := f.c.fail("write"); err != nil {
		n, _ := f.File.Write(b[:rand.IntN(len(b))])
		return n, err
	}
	return f.File.Write(b)
}

func (f countingFile) Sync() error {
	f.c.syncs.Add(1)
	time.Sleep(f.c.delay)
	if err := f.c.fail("sync"); err != nil {
		return err
	}
	return f.File.Sync()
}

func TestGroupCommit(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "j")
	disk := &countingFS{delay: time.Millisecond}
	j, _ := mustOpen(t, path, Options{FS: disk})
	var wg sync.WaitGroup
	const workers, each = 64, 30
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				if err := j.Append(context.Background(), bindRecord(w*each+i)); err != nil {
					t.Error(err)
				}
				if w == 0 && i%10 == 5 {
					if err := j.Compact(context.Background()); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	if n := disk.syncs.Load(); n > workers*each/4 {
		t.Errorf("%d fsyncs for %d appends", n, workers*each)
	}
	j.Close()
	if _, rec := mustOpen(t, path, Options{}); len(rec.Records) != workers*each {
		t.Errorf("%d records of %d", len(rec.Records), workers*each)
	}
}

var errDisk = errors.New("input/output error")

// After a failed write nothing is acknowledged until Compact; what was acknowledged
// is there afterwards, and nothing that was refused before a successful Compact.
func TestDiskErrors(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"write", "sync", "create", "rename", "syncdir"} {
		path := filepath.Join(t.TempDir(), "j")
		disk := &countingFS{}
		j, _ := mustOpen(t, path, Options{FS: disk})
		mustAppend(t, j, bindRecord(1))
		broken := true
		disk.failAt = func(o string) error {
			if broken && o == op {
				return fmt.Errorf("%s: %w", o, errDisk)
			}
			return nil
		}
		onAppend := op == "write" || op == "sync"
		err := j.Append(t.Context(), bindRecord(2))
		if onAppend && (!errors.Is(err, ErrFailed) || !errors.Is(err, errDisk)) || !onAppend && err != nil {
			t.Errorf("%s: append: %v", op, err)
		}
		if err := j.Compact(t.Context()); !errors.Is(err, errDisk) {
			t.Errorf("%s: compact: %v", op, err)
		}
		healthy := op == "create" // the old file is still good
		if err := j.Append(t.Context(), bindRecord(3)); healthy != (err == nil) {
			t.Errorf("%s: append after a failed compact: %v", op, err)
		}
		if failed := j.Failed(); healthy != (failed == nil) {
			t.Errorf("%s: Failed: %v", op, failed)
		}
		broken = false
		if err := j.Compact(t.Context()); err != nil {
			t.Errorf("%s: %v", op, err)
		}
		mustAppend(t, j, bindRecord(4))
		j.Close()
		want := []Record{bindRecord(1)}
		if !onAppend {
			want = append(want, bindRecord(2))
		}
		if healthy {
			want = append(want, bindRecord(3))
		}
		want = append(want, bindRecord(4))
		if _, rec := mustOpen(t, path, Options{}); cmp.Diff(want, rec.Records, compare) != "" {
			t.Errorf("%s: %s", op, cmp.Diff(want, rec.Records, compare))
		}
	}
}

// A caller may leave a disk that hangs; the append goes on.
func TestAppendContext(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "j")
	hang := make(chan struct{})
	disk := &countingFS{}
	j, _ := mustOpen(t, path, Options{FS: disk})
	disk.failAt = func(op string) error {
		if op == "sync" {
			<-hang
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := j.Append(ctx, bindRecord(1)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if err := j.Compact(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	close(hang)
	if err := j.Close(); err != nil {
		t.Error(err)
	}
	if _, rec := mustOpen(t, path, Options{}); len(rec.Records) != 1 {
		t.Errorf("%+v", rec)
	}
}

// TestLeftover: what a crash has left of a rotation is gone when the journal is open.
func TestLeftover(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "j")
	j, _ := mustOpen(t, path, Options{})
	mustAppend(t, j, bindRecord(1))
	j.Close()
	if err := os.WriteFile(path+newSuffix, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, rec := mustOpen(t, path, Options{}); len(rec.Records) != 1 {
		t.Errorf("%+v", rec)
	}
	if _, err := os.Stat(path + newSuffix); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left over: %v", err)
	}
}

func TestCompactShrinks(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "j")
	j, _ := mustOpen(t, path, Options{})
	for i := range 4000 {
		mustAppend(t, j, bindRecord(i%10))
	}
	before, worth := j.Size()
	if !worth || before != size(t, path) {
		t.Errorf("size %d, worth compacting: %v", before, worth)
	}
	if err := j.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after, worth := j.Size(); worth || after > 4<<10 || after != size(t, path) {
		t.Errorf("size %d after compaction", after)
	}
	if _, err := os.Stat(path + ".new"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left behind: %v", err)
	}
}

// No field of a record is missing from its wire form.
func TestRecordIsComplete(t *testing.T) {
	t.Parallel()
	r := bindRecord(2)
	r.Prefix, r.Reason = netip.MustParsePrefix("10.0.0.9/32"), "why"
	v := reflect.ValueOf(r)
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Errorf("the test does not set %s", v.Type().Field(i).Name)
		}
	}
	b, err := appendRecord(nil, r)
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeRecords(b)
	if err != nil || len(got) != 1 {
		t.Fatal(got, err)
	}
	if d := cmp.Diff(r, got[0], compare); d != "" {
		t.Error(d)
	}
}

func FuzzDecodeRecords(f *testing.F) {
	for i := range 3 {
		b, err := appendRecord(nil, bindRecord(i))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		records, err := decodeRecords(b)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
				t.Fatal(err)
			}
			return
		}
		var again []byte
		for _, r := range records {
			if again, err = appendRecord(again, r); err != nil {
				return // longer than what we would write
			}
		}
		back, err := decodeRecords(again)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(records, back, compare); d != "" {
			t.Fatal(d)
		}
	})
}

func FuzzOpen(f *testing.F) {
	path := filepath.Join(f.TempDir(), "j")
	j, _ := mustOpen(f, path, Options{})
	mustAppend(f, j, bindRecord(1), bindRecord(2))
	j.Close()
	b, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "j")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		j, _, err := Open(path, Options{Header: header})
		if err == nil {
			j.Close()
		}
	})
}

func BenchmarkAppendSerial(b *testing.B) {
	j, _ := mustOpen(b, filepath.Join(b.TempDir(), "j"), Options{})
	for i := 0; b.Loop(); i++ {
		mustAppend(b, j, bindRecord(i%1000))
	}
}

func BenchmarkAppend64(b *testing.B) {
	j, _ := mustOpen(b, filepath.Join(b.TempDir(), "j"), Options{})
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			mustAppend(b, j, bindRecord(i%1000))
		}
	})
}
