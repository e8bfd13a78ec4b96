package ipam

import (
	"bytes"
	"fmt"
	"net/netip"
	"reflect"
	"testing"
	"time"
	"unsafe"
)

// The tests of this file prove by reflection that no field of the state is
// missing from the snapshot: a field that is added and forgotten fails them.

// codecs has, for each type that is stored, its way through the snapshot's form.
var codecs = map[reflect.Type]func(any) ([]byte, any, error){
	reflect.TypeFor[clusterRecord](): codec((*encoder).cluster, (*decoder).cluster),
	reflect.TypeFor[Network]():       codec((*encoder).network, (*decoder).network),
	reflect.TypeFor[Node]():          codec((*encoder).node, (*decoder).node),
	reflect.TypeFor[Subnet]():        codec((*encoder).subnet, (*decoder).subnet),
	reflect.TypeFor[Reservation]():   codec((*encoder).reservation, (*decoder).reservation),
	reflect.TypeFor[storedLease](): codec(
		func(e *encoder, l storedLease) { e.lease(l.Key, l.Record) },
		func(d *decoder) storedLease { k, r := d.lease(); return storedLease{k, r} }),
	reflect.TypeFor[storedSeq](): codec(
		func(e *encoder, s storedSeq) { e.forgotten(s.Node, s.Seq) },
		func(d *decoder) storedSeq { n, s := d.forgotten(); return storedSeq{n, s} }),
	reflect.TypeFor[storedRequest](): codec(
		func(e *encoder, r storedRequest) { e.request(r.ID, r.Record) },
		func(d *decoder) storedRequest { id, r := d.request(); return storedRequest{id, r} }),
	reflect.TypeFor[Token]():  codec((*encoder).token, (*decoder).token),
	reflect.TypeFor[Result](): codec((*encoder).result, (*decoder).result),
}

type (
	storedLease struct {
		Key    leaseKey
		Record leaseRecord
	}
	storedSeq struct {
		Node NodeID
		Seq  uint64
	}
	storedRequest struct {
		ID     RequestID
		Record requestRecord
	}
)

func codec[T any](enc func(*encoder, T), dec func(*decoder) T) func(any) ([]byte, any, error) {
	return func(v any) ([]byte, any, error) {
		e := &encoder{}
		enc(e, v.(T))
		d := &decoder{buf: e.buf, version: snapshotVersion}
		got := dec(d)
		if len(d.buf) > 0 {
			return e.buf, got, fmt.Errorf("%d bytes are left over", len(d.buf))
		}
		return e.buf, got, d.err
	}
}

func TestEveryFieldIsEncoded(t *testing.T) {
	t.Parallel()
	for typ, roundTrip := range codecs {
		v := reflect.New(typ).Elem()
		fill(t, v, 1)
		before, got, err := roundTrip(v.Interface())
		if err != nil {
			t.Errorf("%s: %v", typ, err)
			continue
		}
		equal(t, typ.String(), got, v.Interface())
		for _, leaf := range leaves(v, typ.Name()) {
			old := reflect.New(leaf.value.Type()).Elem()
			old.Set(leaf.value)
			fill(t, leaf.value, 2)
			after, got, err := roundTrip(v.Interface())
			if err != nil || bytes.Equal(before, after) {
				t.Errorf("%s is not encoded (%v)", leaf.name, err)
			}
			equal(t, leaf.name, got, v.Interface())
			leaf.value.Set(old)
		}
	}
}

type leaf struct {
	name  string
	value reflect.Value
}

// leaves returns the fields below v that are written as one value.
func leaves(v reflect.Value, name string) []leaf {
	if v.Kind() != reflect.Struct || v.Type() == reflect.TypeFor[netip.Addr]() || v.Type() == reflect.TypeFor[netip.Prefix]() {
		return []leaf{{name, v}}
	}
	var all []leaf
	for i := range v.NumField() {
		all = append(all, leaves(v.Field(i), name+"."+v.Type().Field(i).Name)...)
	}
	return all
}

// fill puts values that differ for each seed into every field below v.
func fill(t *testing.T, v reflect.Value, seed int) {
	t.Helper()
	switch v.Interface().(type) {
	case netip.Addr:
		v.Set(reflect.ValueOf(netip.AddrFrom4([4]byte{10, 0, 0, byte(seed)})))
		return
	case netip.Prefix:
		v.Set(reflect.ValueOf(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(seed), 0, 0}), 16+seed)))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i), seed)
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(t, v.Index(i), seed)
		}
	case reflect.String:
		v.SetString(fmt.Sprintf("text %d", seed))
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(20 + seed))
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(seed))
	case reflect.Bool:
		v.SetBool(seed == 1)
	case reflect.Interface: // Result.Err
		v.Set(reflect.ValueOf([]error{nil, ErrStaleEpoch, ErrAddressTaken}[seed]))
	default:
		t.Fatalf("fill does not know %s", v.Type())
	}
}

// TestEveryTableIsWritten: each field of tables has a value in the full state, and
// that value comes back; each field of State is either a table or derived.
func TestEveryTableIsWritten(t *testing.T) {
	t.Parallel()
	typ := reflect.TypeFor[State]()
	for i := range typ.NumField() {
		switch typ.Field(i).Type {
		case reflect.TypeFor[tables](), reflect.TypeFor[derived]():
		default:
			t.Errorf("State.%s is neither in tables nor in derived", typ.Field(i).Name)
		}
	}
	s := fullState(t)
	got, err := Restore(bytes.NewReader(written(t, s)))
	if err != nil {
		t.Fatal(err)
	}
	want, have := reflect.ValueOf(&s.tables).Elem(), reflect.ValueOf(&got.tables).Elem()
	for i := range want.NumField() {
		name := want.Type().Field(i).Name
		w, h := contents(want.Field(i)), contents(have.Field(i))
		if reflect.ValueOf(w).IsZero() || reflect.ValueOf(w).Kind() == reflect.Slice && reflect.ValueOf(w).Len() == 0 {
			t.Errorf("the test's state has nothing in %s", name)
		}
		equal(t, name, h, w)
	}
	// A snapshot holds all of them too.
	sn := s.Snapshot()
	for i, v := range reflect.ValueOf(&sn.tables).Elem().Fields() {
		equal(t, "snapshot of "+i.Name, contents(v), contents(want.FieldByIndex(i.Index)))
	}
}

// TestDerivedIsRebuilt: every field of derived is used in the full state, so the
// comparison of restored states covers it.
func TestDerivedIsRebuilt(t *testing.T) {
	t.Parallel()
	s := fullState(t)
	for f, v := range reflect.ValueOf(s.derived).Fields() {
		if v.Kind() == reflect.Struct {
			v = v.FieldByName("root").Elem().FieldByName("entries") // a tree
		}
		if v.Len() == 0 {
			t.Errorf("the test's state has nothing in %s", f.Name)
		}
	}
	for range 2 {
		before := s.derived
		s.rebuild()
		equal(t, "derived", s.derived, before)
		ok(t, s, Tick{time.Second})
	}
}

// contents returns what an unexported field holds; of a tree its entries in order.
func contents(v reflect.Value) any {
	v = reflect.NewAt(v.Type(), unsafe.Pointer(v.UnsafeAddr())).Elem()
	switch x := v.Addr().Interface().(type) {
	case *tree[string, Network]:
		return collect(x)
	case *tree[NodeID, Node]:
		return collect(x)
	case *tree[SubnetKey, Subnet]:
		return collect(x)
	case *tree[reservationKey, Reservation]:
		return collect(x)
	case *tree[leaseKey, leaseRecord]:
		return collect(x)
	case *tree[NodeID, uint64]:
		return collect(x)
	case *tree[RequestID, requestRecord]:
		return collect(x)
	case *tree[string, Token]:
		return collect(x)
	}
	return v.Interface()
}

type pair[K, V any] struct {
	Key   K
	Value V
}

func collect[K, V any](t *tree[K, V]) []pair[K, V] {
	var all []pair[K, V]
	for k, v := range t.all() {
		all = append(all, pair[K, V]{k, v})
	}
	return all
}
