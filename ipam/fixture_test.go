package ipam

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"

	gocmp "github.com/google/go-cmp/cmp"
)

// fatalizer is what *testing.T and *rapid.T share.
type fatalizer interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

var (
	mustAddr   = netip.MustParseAddr
	mustPrefix = netip.MustParsePrefix
)

const clusterID = "00112233445566778899aabbccddeeff"

// nodeID returns the n-th of the tests' node ids.
func nodeID(n int) NodeID {
	return NodeID(strings.Repeat("0123456789abcdef"[n:n+1], 32))
}

func owner(id string) Owner {
	return Owner{Kind: OwnerContainer, Namespace: "default", ID: id, Created: 1700000000123456789, Interface: "eth0"}
}

func registerCmd(n int) RegisterNode {
	return RegisterNode{
		Node: nodeID(n), Name: "node" + string(rune('a'+n)), MachineID: "machine" + string(rune('a'+n)),
		Address: "192.0.2.1:9640", Version: "1.0", Mode: ModeBridge,
	}
}

const tokenNow = 1_700_000_000

func tokenID(n int) string { return string(nodeID(n)[:16]) }

func hashOf(n byte) (h [32]byte) {
	for i := range h {
		h[i] = n
	}
	return h
}

// tokenCmd creates the n-th of the tests' tokens, good for an hour.
func tokenCmd(n int) CreateToken {
	return CreateToken{ID: tokenID(n), SecretHash: hashOf(byte(n)), Role: RoleServer, Expires: tokenNow + 3600, Now: tokenNow}
}

// joinCmd lets node n join with the n-th token.
func joinCmd(n int) JoinNode {
	return JoinNode{
		RegisterNode: registerCmd(n), TokenID: tokenID(n), SecretHash: hashOf(byte(n)), KeyHash: hashOf(byte(100 + n)),
		Now: tokenNow + 1, Network: DefaultNetwork,
	}
}

func initCmd() InitCluster {
	return InitCluster{ClusterID: clusterID, Network: DefaultNetwork, Prefix: mustPrefix("172.16.0.0/12"), SubnetBits: 22}
}

// cluster returns a state with a cluster and nodes 1 to n, each with a subnet.
func cluster(t fatalizer, n int) *State {
	t.Helper()
	s := New()
	ok(t, s, initCmd())
	for i := 1; i <= n; i++ {
		ok(t, s, registerCmd(i), ClaimSubnet{Node: nodeID(i), Network: DefaultNetwork})
	}
	return s
}

// fence returns the fence of the node's first subnet.
func fence(t fatalizer, s *State, n int) Fence {
	t.Helper()
	for sub := range s.SubnetsOf(nodeID(n)) {
		return sub.Fence()
	}
	t.Fatalf("node %d holds no subnet", n)
	return Fence{}
}

// apply applies one envelope at the next index and checks the state afterwards.
func apply(t fatalizer, s *State, env Envelope) Outcome {
	t.Helper()
	data, err := env.Encode()
	if err != nil {
		t.Fatalf("encode: %v", err)
	}
	out, err := s.Apply(s.Index()+1, data)
	if err != nil {
		t.Fatalf("apply: %v", err)
	}
	if len(out.Results) != len(env.Commands) {
		t.Fatalf("%d results for %d commands", len(out.Results), len(env.Commands))
	}
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
	return out
}

// do applies commands without a request id.
func do(t fatalizer, s *State, cmds ...Command) Outcome {
	t.Helper()
	return apply(t, s, Envelope{Commands: cmds})
}

// ok applies commands that must succeed.
func ok(t fatalizer, s *State, cmds ...Command) Outcome {
	t.Helper()
	out := do(t, s, cmds...)
	for i, r := range out.Results {
		if r.Err != nil {
			t.Fatalf("%T: %v", cmds[i], r.Err)
		}
	}
	return out
}

// refused applies a command that must be refused and change nothing.
func refused(t fatalizer, s *State, want error, c Command) Result {
	t.Helper()
	before := s.Hash()
	out := do(t, s, c)
	if r := out.Results[0]; !errors.Is(r.Err, want) {
		t.Fatalf("%T: got %v, want %v", c, r.Err, want)
	}
	if s.Hash() != before || len(out.Deltas) > 0 {
		t.Fatalf("%T was refused, yet changed the state: %v", c, out.Deltas)
	}
	return out.Results[0]
}

// unchanged applies a command that must succeed and change nothing.
func unchanged(t fatalizer, s *State, c Command) Result {
	t.Helper()
	before := s.Hash()
	out := ok(t, s, c)
	if s.Hash() != before || len(out.Deltas) > 0 {
		t.Fatalf("%T changed the state: %v", c, out.Deltas)
	}
	return out.Results[0]
}

// bind binds an address in node n's subnet.
func bind(t fatalizer, s *State, n int, addr, id string) BindLease {
	t.Helper()
	c := BindLease{Fence: fence(t, s, n), Addr: mustAddr(addr), Owner: owner(id)}
	ok(t, s, c)
	return c
}

// written returns the state's snapshot as bytes.
func written(t fatalizer, s *State) []byte {
	t.Helper()
	var b bytes.Buffer
	n, err := s.Snapshot().WriteTo(&b)
	if err != nil || n != int64(b.Len()) {
		t.Fatalf("write: %d of %d bytes, %v", n, b.Len(), err)
	}
	return b.Bytes()
}

func equal(t fatalizer, what string, got, want any) {
	t.Helper()
	if diff := gocmp.Diff(want, got, cmpOptions...); diff != "" {
		t.Fatalf("%s (-want +got):\n%s", what, diff)
	}
}

var cmpOptions = gocmp.Options{
	gocmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	gocmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	gocmp.Comparer(func(a, b error) bool { return ErrorCode(a) == ErrorCode(b) }),
	gocmp.AllowUnexported(derived{}, window{}),
	gocmp.Transformer("entries", func(t tree[nodeSubnet, struct{}]) (keys []nodeSubnet) {
		for k := range t.all() {
			keys = append(keys, k)
		}
		return keys
	}),
}

// deltaKinds returns the types of deltas by name.
func deltaKinds(deltas []Delta) string {
	var names []string
	for _, d := range deltas {
		switch d.(type) {
		case ClusterPut:
			names = append(names, "cluster")
		case TimePut:
			names = append(names, "time")
		case NetworkPut:
			names = append(names, "network")
		case NodePut:
			names = append(names, "node")
		case SubnetPut:
			names = append(names, "subnet")
		case LeasePut:
			names = append(names, "lease")
		case LeaseRemoved:
			names = append(names, "-lease")
		case ReservationPut:
			names = append(names, "reservation")
		case ReservationRemoved:
			names = append(names, "-reservation")
		case TokenPut:
			names = append(names, "token")
		case TokenRemoved:
			names = append(names, "-token")
		}
	}
	return strings.Join(names, " ")
}
