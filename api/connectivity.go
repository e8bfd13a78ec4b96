package api

import (
	"encoding/json"
	"net/netip"
	"time"
)

// Millis is a duration that is written to JSON as milliseconds, with microseconds.
type Millis time.Duration

// MarshalJSON implements json.Marshaler.
func (m Millis) MarshalJSON() ([]byte, error) {
	return json.Marshal(float64(time.Duration(m).Microseconds()) / 1000)
}

// UnmarshalJSON implements json.Unmarshaler.
func (m *Millis) UnmarshalJSON(b []byte) error {
	var ms float64
	if err := json.Unmarshal(b, &ms); err != nil {
		return err
	}
	*m = Millis(ms * float64(time.Millisecond))
	return nil
}

// PingRequest asks for ICMP echo requests. From and Target are as a person types
// them: a container, NAMESPACE/ID, a node or an address; From "" is this node's host.
type PingRequest struct {
	From     string
	Target   string
	Count    int // 0: without end
	Interval time.Duration
	Wait     time.Duration // for the reply to each
	Size     int           // payload in bytes
}

// Limits of a PingRequest.
const (
	MinPingInterval = 2 * time.Millisecond // that of ping(8) for ordinary users
	MaxPingWait     = time.Minute
	MaxPingSize     = 65507
)

// Validate refuses what cannot be sent. The error is CodeInvalid.
func (r PingRequest) Validate() error {
	switch {
	case r.Target == "":
		return Errorf(CodeInvalid, "no target named").WithHint("name a container, NAMESPACE/ID, a node or an address")
	case r.Count < 0:
		return Errorf(CodeInvalid, "%d requests cannot be sent", r.Count)
	case r.Interval < MinPingInterval:
		return Errorf(CodeInvalid, "the interval %s is shorter than %s", r.Interval, MinPingInterval)
	case r.Wait <= 0 || r.Wait > MaxPingWait:
		return Errorf(CodeInvalid, "the wait for a reply, %s, is not above 0 and at most %s", r.Wait, MaxPingWait)
	case r.Size < 0 || r.Size > MaxPingSize:
		return Errorf(CodeInvalid, "a payload of %d bytes is not between 0 and %d", r.Size, MaxPingSize)
	}
	return nil
}

// PingStart says what is pinged, once the names are resolved.
type PingStart struct {
	Node    string     `json:"node"`    // that sends
	From    string     `json:"from"`    // NAMESPACE/ID; empty: its host
	Target  string     `json:"target"`  // NAMESPACE/ID, a node's name or an address
	Address netip.Addr `json:"address"` // of the target
}

// PingReply is what came of one request.
type PingReply struct {
	Seq   int        `json:"seq"`  // from 1
	From  netip.Addr `json:"from"` // who answered; zero: nobody
	Bytes int        `json:"bytes"`
	TTL   int        `json:"ttl"`
	RTT   Millis     `json:"rttMs"`
	// Problem says why there is no reply; empty: it is the reply.
	Problem string `json:"problem"`
}

// PingMessage has one of the two; the start comes first, and once.
type PingMessage struct {
	Start *PingStart
	Reply *PingReply
}

// ConnectivityTest asks for a test of the cluster's paths.
type ConnectivityTest struct {
	Own    bool          // with throw-away endpoints only
	Sample int           // at most so many pairs of nodes; 0: all
	Out    netip.Addr    // what the way out is tried with; zero: each node's default gateway
	Limit  time.Duration // for the whole
}

// MaxConnectivityLimit bounds how long a test, and what is lent for it, may last.
const MaxConnectivityLimit = time.Hour

// Validate refuses what cannot be tested. The error is CodeInvalid.
func (t ConnectivityTest) Validate() error {
	switch {
	case t.Sample < 0:
		return Errorf(CodeInvalid, "a sample of %d pairs cannot be taken", t.Sample)
	case t.Out.IsValid() && !t.Out.Is4():
		return Errorf(CodeInvalid, "%s is not an IPv4 address", t.Out)
	case t.Limit <= 0 || t.Limit > MaxConnectivityLimit:
		return Errorf(CodeInvalid, "a test of %s is not above 0 and at most %s", t.Limit, MaxConnectivityLimit)
	}
	return nil
}

// What a ConnectivityResult tells of.
const (
	TestContainers      = "containers" // container to container
	TestHostToContainer = "host-to-container"
	TestContainerToHost = "container-to-host"
	TestPathMTU         = "path-mtu" // container to container, in one piece
	TestWayOut          = "way-out"  // container to outside the cluster
)

// What came of a test.
const (
	TestOK   = "OK"
	TestFail = "FAIL"
	TestSkip = "SKIP" // cannot be told; Reason says why
)

// ConnectivityResult is one path in one direction.
type ConnectivityResult struct {
	From     string `json:"from"` // node
	To       string `json:"to"`   // node; From itself: within it
	Test     string `json:"test"`
	State    string `json:"state"`
	Source   string `json:"source"` // NAMESPACE/ID or host, and the address
	Target   string `json:"target"`
	Sent     int    `json:"sent"`
	Received int    `json:"received"`
	RTT      Millis `json:"rttMs"`         // mean of those received
	MTU      int    `json:"mtu,omitempty"` // of path-mtu: the largest packet that passes
	Reason   string `json:"reason"`        // why it is not OK
}

// ConnectivityEndpoint is an endpoint that a test uses.
type ConnectivityEndpoint struct {
	Namespace string     `json:"namespace"`
	Container string     `json:"container"`
	Ifname    string     `json:"ifname"`
	Address   netip.Addr `json:"address"`
	MTU       int        `json:"mtu"`
	Own       bool       `json:"own"` // made for the test, and gone after it
}

// Ref returns the full name of e.
func (e ConnectivityEndpoint) Ref() EndpointRef {
	return EndpointRef{Namespace: e.Namespace, Container: e.Container, Ifname: e.Ifname}
}

// ConnectivityNode is a node that a test is about.
type ConnectivityNode struct {
	Node      string                 `json:"node"`
	Address   netip.Addr             `json:"address"` // of its host; zero: unknown
	Endpoints []ConnectivityEndpoint `json:"endpoints"`
	Error     string                 `json:"error"` // why it could take no part; empty: it did
}

// ConnectivityReport is what a test has found.
type ConnectivityReport struct {
	Time     time.Time            `json:"time"`
	Node     string               `json:"node"`  // that tested
	Pairs    int                  `json:"pairs"` // of nodes, tried
	AllPairs int                  `json:"allPairs"`
	Nodes    []ConnectivityNode   `json:"nodes"`
	Results  []ConnectivityResult `json:"results"`
}

// Count returns how many results have the state.
func (r ConnectivityReport) Count(state string) (n int) {
	for _, t := range r.Results {
		if t.State == state {
			n++
		}
	}
	return n
}

// ConnectivityProgress says how far a test is.
type ConnectivityProgress struct {
	Phase               string
	Done, Total, Failed int
}

// ConnectivityMessage has one of the two; the report comes last, and once.
type ConnectivityMessage struct {
	Progress *ConnectivityProgress
	Report   *ConnectivityReport
}

// ConnectivityLoan is what a node lends for a test.
type ConnectivityLoan struct {
	ID      string
	Node    ConnectivityNode
	Gateway netip.Addr // the host's default gateway; zero: it has none
}

// ConnectivityProbe is one path to be tried from a node.
type ConnectivityProbe struct {
	ID     int
	From   EndpointRef // zero: the host
	Target netip.Addr
	MTU    int // above 0: packets of this size must pass in one piece
}

// ConnectivityProbed is what came of a probe.
type ConnectivityProbed struct {
	ID       int
	Sent     int
	Received int
	RTT      Millis
	MTU      int    // of a probe with an MTU: the largest packet that passes
	Problem  string // why it failed; empty: it did not
}
