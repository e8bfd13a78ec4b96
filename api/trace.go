package api

import "net/netip"

// TraceState judges one hop.
type TraceState string

const (
	TraceOK      TraceState = "OK"
	TraceWarn    TraceState = "WARN"    // may take packets away, or some of them
	TraceBroken  TraceState = "BROKEN"  // packets end here
	TraceUnknown TraceState = "UNKNOWN" // could not be looked at
)

// Kinds of a TraceEnd.
const (
	TraceContainer = "container"
	TraceHost      = "host"
	TraceOutside   = "outside"
)

// Ways of a packet.
const (
	TraceThere = "there"
	TraceBack  = "back"
)

// TraceEnd is where a packet begins or ends.
type TraceEnd struct {
	Kind      string     `json:"kind"` // container, host or outside
	Node      string     `json:"node"` // "" outside
	Namespace string     `json:"namespace,omitempty"`
	Container string     `json:"container,omitempty"`
	Address   netip.Addr `json:"address"`
}

// String names e for people.
func (e TraceEnd) String() string {
	switch e.Kind {
	case TraceContainer:
		return e.Namespace + "/" + e.Container
	case TraceHost:
		return "node " + e.Node
	}
	return e.Address.String()
}

// TraceHop is one step of a packet's way.
type TraceHop struct {
	Hop       int        `json:"hop"`
	Direction string     `json:"direction"` // there or back
	Node      string     `json:"node"`
	What      string     `json:"what"`    // the kind of hop
	Subject   string     `json:"subject"` // the interface, address or container it is about
	State     TraceState `json:"state"`
	Detail    string     `json:"detail"`
	Code      string     `json:"code,omitempty"` // the cause, of what is not OK
	Mend      string     `json:"mend,omitempty"` // a command that ends it
}

// TraceCause is why packets do not arrive.
type TraceCause struct {
	Code    string `json:"code"`
	Node    string `json:"node"`
	Subject string `json:"subject"`
	Message string `json:"message"`
	Mend    string `json:"mend"`
	Hop     int    `json:"hop"`
}

// Trace is the way of a packet from one end to the other, and back.
type Trace struct {
	From TraceEnd   `json:"from"`
	To   TraceEnd   `json:"to"`
	Hops []TraceHop `json:"hops"`
	// Cause is the first broken hop on the packet's way; nil: none was found.
	Cause *TraceCause `json:"cause,omitempty"`
	// Further are the other faults, each once.
	Further []TraceCause `json:"further,omitempty"`
	// Unjudged says why not all of the way could be looked at; "": it was.
	Unjudged string      `json:"unjudged,omitempty"`
	Probe    *TraceProbe `json:"probe,omitempty"`
}

// TraceProbe is what became of real packets.
type TraceProbe struct {
	Sent     int     `json:"sent"`
	Received int     `json:"received"`
	RTT      float64 `json:"rttMs"` // milliseconds, the median
	// PathMTU is the largest packet, headers included, that was answered; 0: not found out.
	PathMTU int `json:"pathMtu"`
	// MTU is that of the sender's interface.
	MTU int `json:"mtu"`
	// Vanished says where the packets were seen last; "": not known, or all came back.
	Vanished string `json:"vanished,omitempty"`
}

// TraceSpec asks for a trace.
type TraceSpec struct {
	From, To string // container, NAMESPACE/CONTAINER, address or node
	Probe    bool
}

// TraceSideSpec asks a node for its part of the way between two ends, of which
// Local is on it.
type TraceSideSpec struct {
	Local, Remote TraceEnd
	// NextHop is the address of the node that Remote is on; zero outside.
	NextHop netip.Addr
	// ArrivalMAC is the hardware address that the other side sends to; "": not known.
	ArrivalMAC string
	// Answering: Local answers to what Remote has sent; the filters may tell the two apart.
	Answering bool
	// Probe has packets sent from Local to Remote.
	Probe bool
}

// TraceSide is a node's part of the way.
type TraceSide struct {
	Node  string
	Leave []TraceHop // from Local to the wire
	Enter []TraceHop // from the wire to Local
	// MACs are those of the host's interfaces.
	MACs []string
	// NextHopMAC is where it sends packets for Remote, Answers are all that answer for
	// the next hop's address, if Asked.
	NextHopMAC string
	Answers    []string
	Asked      bool
	// Static: NextHopMAC was set by hand.
	Static bool
	// Counters are packets that have passed, in the order of Leave.
	Counters []TraceCounter
	Probe    *TraceProbe
}

// TraceCounter counts the packets that have passed an interface on the way from the
// local end to the wire, and on the way back.
type TraceCounter struct {
	Name         string // "eth0 in default/web", "stellar0"
	Leave, Enter uint64
}
