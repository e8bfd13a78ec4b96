package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"stellar.io/stellar/ipam/ipampb"
)

// everyCommand holds one of each, with no field zero.
func everyCommand() []Command {
	f := Fence{Subnet: SubnetKey{DefaultNetwork, mustPrefix("172.16.0.0/22")}, Node: nodeID(1), Epoch: Epoch{2, 3}}
	addr, o := mustAddr("172.16.0.9"), owner("a")
	return []Command{
		initCmd(), registerCmd(1),
		UpdateNode{Node: nodeID(1), Address: "192.0.2.1:1", Version: "2", Mode: ModeRouted},
		RemoveNode{Node: nodeID(1), Force: true, Dead: true},
		ClaimSubnet{Node: nodeID(1), Network: DefaultNetwork},
		ReleaseSubnet{Network: DefaultNetwork, Prefix: f.Subnet.Prefix},
		BindLease{Fence: f, Addr: addr, Owner: o, Static: true, Hostname: "web"},
		MarkLease{f, addr, o, Attached},
		ReleaseLease{f, addr, o},
		FreeLease{f, addr, o},
		ReserveAddress{DefaultNetwork, addrPrefix(addr), "printer", nodeID(1), Epoch{2, 3}},
		UnreserveAddress{DefaultNetwork, addrPrefix(addr), nodeID(1), Epoch{2, 3}},
		Tick{3 * time.Second},
		tokenCmd(1), RevokeToken{tokenID(1)},
		JoinNode{
			RegisterNode: func() RegisterNode { c := registerCmd(2); c.Role = RoleNode; return c }(),
			TokenID:      tokenID(1), SecretHash: hashOf(1), KeyHash: hashOf(2), Now: tokenNow, Network: DefaultNetwork,
			Replace: "nodeb", HostRanges: []netip.Prefix{mustPrefix("172.17.0.0/16"), mustPrefix("10.0.0.0/24")},
		},
		DrainNode{nodeID(1), true},
		RaiseGeneration{7}, EndReclaim{7}, ClaimHeld{f},
	}
}

func TestEnvelopeRoundTrip(t *testing.T) {
	t.Parallel()
	kinds := (&ipampb.Command{}).ProtoReflect().Descriptor().Oneofs().Get(0).Fields().Len()
	if got := len(everyCommand()); got != kinds {
		t.Fatalf("everyCommand has %d of %d kinds", got, kinds)
	}
	want := Envelope{Request: RequestID{nodeID(1), 7}, Commands: everyCommand()}
	data, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeEnvelope(data)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "envelope", got, want)
}

// TestEnvelopeZeroValues: what is missing arrives as missing, never as something else.
func TestEnvelopeZeroValues(t *testing.T) {
	t.Parallel()
	want := Envelope{Commands: []Command{
		InitCluster{}, RegisterNode{}, UpdateNode{}, RemoveNode{}, ClaimSubnet{}, ReleaseSubnet{}, BindLease{},
		MarkLease{}, ReleaseLease{}, FreeLease{}, ReserveAddress{}, UnreserveAddress{}, Tick{},
		CreateToken{}, RevokeToken{}, JoinNode{}, DrainNode{}, RaiseGeneration{}, EndReclaim{}, ClaimHeld{},
	}}
	data, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeEnvelope(data)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "envelope", got, want)
	// On an empty state as on a full one they are refused.
	for _, s := range []*State{New(), cluster(t, 1)} {
		for _, c := range want.Commands {
			switch c.(type) {
			case Tick, EndReclaim: // mean something without any field
				if s.cluster.ID != "" {
					unchanged(t, s, c)
					continue
				}
			}
			if r := do(t, s, c).Results[0]; r.Err == nil || ErrorCode(r.Err) <= 1 {
				t.Errorf("%T: %v", c, r.Err)
			}
		}
	}
}

func TestEncodeRefuses(t *testing.T) {
	t.Parallel()
	for name, e := range map[string]Envelope{
		"mode":       {Commands: []Command{RegisterNode{Mode: 3}}},
		"role":       {Commands: []Command{CreateToken{Role: 3}}},
		"join mode":  {Commands: []Command{JoinNode{RegisterNode: RegisterNode{Mode: 3}}}},
		"state":      {Commands: []Command{MarkLease{State: 4}}},
		"owner kind": {Commands: []Command{FreeLease{Owner: Owner{Kind: 4}}}},
		"not UTF-8":  {Commands: []Command{RegisterNode{Name: "\xff"}}},
		"bits":       {Commands: []Command{InitCluster{SubnetBits: -1}}},
		"too many":   {Commands: make([]Command, MaxCommands+1)},
		"too large":  {Commands: []Command{RegisterNode{Name: strings.Repeat("a", maxEntry)}}},
	} {
		if _, err := e.Encode(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestApplyUnknown: what a newer version might write is noticed, whole and
// before anything has changed.
func TestApplyUnknown(t *testing.T) {
	t.Parallel()
	good, err := Envelope{Commands: everyCommand()}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	newKind := protowire.AppendTag(nil, 2, protowire.BytesType) // commands
	newKind = protowire.AppendBytes(newKind, append(protowire.AppendTag(nil, 999, protowire.BytesType), 0))
	emptyKind := protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), nil)
	cases := map[string][]byte{
		"empty":             {},
		"newer version":     append([]byte{2}, good[1:]...),
		"version 0":         append([]byte{0}, good[1:]...),
		"garbage":           {1, 0xff, 0xff},
		"truncated":         good[:len(good)-1],
		"new command":       append(good[:len(good):len(good)], newKind...),
		"no command":        append(good[:len(good):len(good)], emptyKind...),
		"field in envelope": append(good[:len(good):len(good)], protowire.AppendVarint(protowire.AppendTag(nil, 77, protowire.VarintType), 1)...),
	}
	for name, data := range unknownInside(t, good) {
		cases[name] = data
	}
	for name, data := range cases {
		s := cluster(t, 1)
		before, index := s.Hash(), s.Index()
		out, err := s.Apply(index+1, data)
		if !errors.Is(err, ErrUnknownCommand) || len(out.Results) > 0 {
			t.Errorf("%s: %v", name, err)
		}
		if s.Hash() != before || s.Index() != index {
			t.Errorf("%s: the state has changed", name)
		}
	}
	if len(cases) < 60 {
		t.Errorf("only %d cases: the walk over the messages found too little", len(cases))
	}
}

// unknownInside returns the envelope once for every message in it, with an
// unknown field in that message, and once for every enum, with an unknown value.
func unknownInside(t *testing.T, good []byte) map[string][]byte {
	t.Helper()
	cases := map[string][]byte{}
	root := &ipampb.Envelope{}
	if err := proto.Unmarshal(good[1:], root); err != nil {
		t.Fatal(err)
	}
	save := func(what string, m protoreflect.Message) {
		data, err := proto.Marshal(root)
		if err != nil {
			t.Fatal(err)
		}
		cases[fmt.Sprintf("%d: %s %s", len(cases), m.Descriptor().Name(), what)] = append([]byte{1}, data...)
	}
	field := protowire.AppendVarint(protowire.AppendTag(nil, 500, protowire.VarintType), 1)
	var walk func(m protoreflect.Message)
	walk = func(m protoreflect.Message) {
		m.SetUnknown(field)
		save("field", m)
		m.SetUnknown(nil)
		m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
			switch {
			case f.IsList():
				for i := range v.List().Len() {
					walk(v.List().Get(i).Message())
				}
			case f.Message() != nil:
				walk(v.Message())
			case f.Enum() != nil:
				m.Set(f, protoreflect.ValueOfEnum(99))
				save("enum", m)
				m.Set(f, v)
			}
			return true
		})
	}
	walk(root.ProtoReflect())
	return cases
}

func TestApplyOrder(t *testing.T) {
	t.Parallel()
	s := cluster(t, 1)
	data, err := Envelope{Commands: []Command{Tick{time.Second}}}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	before, index := s.Hash(), s.Index()
	for _, i := range []uint64{0, index - 1, index} {
		if _, err := s.Apply(i, data); !errors.Is(err, ErrEntryOrder) {
			t.Errorf("index %d after %d: %v", i, index, err)
		}
	}
	if s.Hash() != before || s.Index() != index {
		t.Error("the state has changed")
	}
	if out, err := s.Apply(index+100, data); err != nil || out.Index != index+100 || s.Index() != index+100 {
		t.Errorf("gaps are normal (Raft's own entries): %v", err)
	}
}

// TestEnvelopeRefusalInTheMiddle: a refused command does not stop the next one.
func TestEnvelopeRefusalInTheMiddle(t *testing.T) {
	t.Parallel()
	s := cluster(t, 1)
	f := fence(t, s, 1)
	out := do(t, s,
		BindLease{Fence: f, Addr: mustAddr("172.16.0.2"), Owner: owner("a")},
		BindLease{Fence: f, Addr: mustAddr("172.16.0.2"), Owner: owner("b")},
		BindLease{Fence: f, Addr: mustAddr("172.16.0.3"), Owner: owner("b")},
	)
	equal(t, "codes", []uint32{ErrorCode(out.Results[0].Err), ErrorCode(out.Results[1].Err), ErrorCode(out.Results[2].Err)},
		[]uint32{0, ErrorCode(ErrAddressTaken), 0})
	equal(t, "deltas", deltaKinds(out.Deltas), "lease lease")
}
