package ipam

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"testing"
)

// FuzzApply: whatever the log holds, Apply neither panics nor breaks the state,
// and the same bytes do the same twice.
func FuzzApply(f *testing.F) {
	everything, err := Envelope{Request: RequestID{nodeID(1), 9}, Commands: everyCommand()}.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(everything)
	for _, c := range everyCommand() {
		data, err := Envelope{Commands: []Command{c}}.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	full := written(f, fullState(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		var hashes [2][32]byte
		for i := range hashes {
			s, err := Restore(bytes.NewReader(full))
			if err != nil {
				t.Fatal(err)
			}
			before := s.Hash()
			if _, err := s.Apply(s.Index()+1, data); err != nil {
				if !errors.Is(err, ErrUnknownCommand) || s.Hash() != before {
					t.Fatalf("apply: %v, changed: %v", err, s.Hash() != before)
				}
			}
			if err := s.Check(); err != nil {
				t.Fatal(err)
			}
			hashes[i] = s.Hash()
		}
		if hashes[0] != hashes[1] {
			t.Fatal("two states differ")
		}
	})
}

// FuzzDecode: what the quick way decodes, the general way decodes to the same, and what
// is written comes back.
func FuzzDecode(f *testing.F) {
	for _, e := range []Envelope{{Commands: leaseCommands()}, {Request: RequestID{nodeID(1), 9}, Commands: leaseCommands()}, {}} {
		data, err := e.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) == 0 {
			return
		}
		quick, ok := decodeLeases(data[1:])
		if !ok {
			return
		}
		general, err := decodeAny(data[1:])
		if err != nil || !reflect.DeepEqual(quick, general) {
			t.Fatalf("quick: %+v\ngeneral: %+v, %v", quick, general, err)
		}
	})
}

// leaseCommands are the commands that the quick way knows, with all their fields and
// without any.
func leaseCommands() []Command {
	f := Fence{Subnet: SubnetKey{Network: "default", Prefix: mustPrefix("172.16.4.0/22")}, Node: nodeID(1), Epoch: Epoch{1, 300}}
	var all []Command
	for _, o := range []Owner{owner("a"), {Kind: OwnerCNI, Namespace: "k8s.io", ID: "ü", Created: -1, Interface: "eth1"}} {
		for _, a := range []netip.Addr{mustAddr("172.16.4.9"), mustAddr("2001:db8::1"), {}} {
			all = append(all, BindLease{Fence: f, Addr: a, Owner: o, Static: true, Hostname: "web"}, BindLease{Fence: f, Addr: a, Owner: o},
				MarkLease{f, a, o, Attached}, MarkLease{f, a, o, 0}, ReleaseLease{f, a, o}, FreeLease{f, a, o})
		}
		f.Epoch.Counter++
	}
	return all
}

// The quick way is the one that what is written takes.
func TestDecodeLeases(t *testing.T) {
	for _, e := range []Envelope{{Commands: leaseCommands()}, {Request: RequestID{nodeID(1), 9}, Commands: leaseCommands()}} {
		data, err := e.Encode()
		if err != nil {
			t.Fatal(err)
		}
		quick, ok := decodeLeases(data[1:])
		general, err := decodeAny(data[1:])
		if !ok || err != nil || !reflect.DeepEqual(quick, general) || !reflect.DeepEqual(quick, e) {
			t.Errorf("quick %v: %+v\ngeneral: %+v, %v", ok, quick, general, err)
		}
		for i := range data { // what is not whole is left to the general way, or read alike
			for _, b := range []byte{0, 1, 0x80, 0xff, data[i] ^ 8, data[i] ^ 2} {
				bad := slices.Clone(data)
				bad[i] = b
				for _, d := range [][]byte{bad, bad[:i]} {
					if len(d) == 0 {
						continue
					}
					quick, ok := decodeLeases(d[1:])
					if general, err := decodeAny(d[1:]); ok && (err != nil || !reflect.DeepEqual(quick, general)) {
						t.Fatalf("byte %d: quick %+v\ngeneral: %+v, %v", i, quick, general, err)
					}
				}
			}
		}
	}
	for _, c := range everyCommand() {
		data, err := Envelope{Commands: []Command{c}}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		quick, ok := decodeLeases(data[1:])
		if general, err := decodeAny(data[1:]); ok && (err != nil || !reflect.DeepEqual(quick, general)) {
			t.Errorf("quick %+v\ngeneral: %+v, %v", quick, general, err)
		}
	}
}

// FuzzRestore: damaged data gives an error of ours or the very state it was
// written from; data with right checksums but any records gives a sound state or
// an error.
func FuzzRestore(f *testing.F) {
	full := fullState(f)
	var records []byte
	if err := full.encode(func(b []byte) error { records = append(records, b...); return nil }); err != nil {
		f.Fatal(err)
	}
	f.Add(written(f, full), false)
	f.Add(written(f, New()), false)
	if first, err := os.ReadFile("testdata/snapshot-v1.bin"); err != nil {
		f.Fatal(err)
	} else {
		f.Add(first, false)
	}
	f.Add(records, true)
	f.Fuzz(func(t *testing.T, data []byte, sealed bool) {
		if sealed && len(data) > 0 && len(data) <= maxFrame {
			var b bytes.Buffer
			w := newFrameWriter(&b)
			if err := errors.Join(w.header(snapshotVersion, 1<<40), w.frame(data), w.end()); err != nil {
				t.Fatal(err)
			}
			data = b.Bytes()
		}
		s, err := Restore(bytes.NewReader(data))
		if err != nil {
			for _, want := range []error{
				ErrSnapshotTruncated, ErrSnapshotFormat, ErrSnapshotVersion, ErrSnapshotChecksum, ErrSnapshotInvalid,
			} {
				if errors.Is(err, want) {
					return
				}
			}
			t.Fatalf("restore: %v", err)
		}
		again, err := Restore(bytes.NewReader(written(t, s)))
		if err != nil || again.Hash() != s.Hash() {
			t.Fatalf("a restored state does not survive its own snapshot: %v", err)
		}
	})
}
