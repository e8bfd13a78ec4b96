package node

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"stellar.io/stellar/agent"
	"stellar.io/stellar/api"
	"stellar.io/stellar/internal/nsx"
)

const (
	// lentNetwork is the CNI network that throw-away endpoints belong to; nobody else's.
	lentNetwork = "stellar-connectivity-test"
	// lentEach is how many endpoints a test wants of a node: two can speak to each other.
	lentEach = 2
	// maxLoans bounds the tests that a node takes part in at once.
	maxLoans = 8
	// takeBackTime is how long the end of a throw-away endpoint may take before it is
	// left to the next sweep, takeBackRetry how long that is in coming.
	takeBackTime  = 20 * time.Second
	takeBackRetry = 10 * time.Second
)

// loans are what this node has lent for tests. A throw-away endpoint has a network
// namespace that only this process holds, so that nothing of it outlives the process
// in the kernel; its address is given back by the next sweep then.
type loans struct {
	mu    sync.Mutex // guards all
	all   map[string]*loan
	swept chan struct{} // closed when what an earlier process had lent is taken back
	dirty chan struct{} // filled when something could not be taken back
}

type loan struct {
	cancel context.CancelFunc
	gone   chan struct{} // closed when nothing is left of it
}

func newLoans() *loans {
	return &loans{all: map[string]*loan{}, swept: make(chan struct{}), dirty: make(chan struct{}, 1)}
}

// begin enters a loan and returns its id and its end.
func (l *loans) begin(cancel context.CancelFunc) (id string, end func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.all) >= maxLoans {
		return "", nil, api.Errorf(api.CodeConflict, "%d connectivity tests use this node already", len(l.all)).WithHint("try again when they are over")
	}
	var random [6]byte
	rand.Read(random[:])
	id = hex.EncodeToString(random[:])
	x := &loan{cancel: cancel, gone: make(chan struct{})}
	l.all[id] = x
	return id, func() {
		l.mu.Lock()
		delete(l.all, id)
		l.mu.Unlock()
		close(x.gone)
	}, nil
}

// lives reports whether a throw-away endpoint belongs to a loan of this process.
func (l *loans) lives(containerID string) bool {
	id, _, _ := strings.Cut(containerID, "-")
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all[id] != nil
}

// sweepLoans takes back what was lent by an earlier process, then what could not be
// taken back at once. It returns at ctx's end.
func (n *Node) sweepLoans(ctx context.Context, p *parts) error {
	for first := true; ; {
		left, err := p.agent.CollectUnknown(ctx, lentNetwork, false, func(id, _ string) bool { return n.loans.lives(id) })
		if ctx.Err() != nil {
			return nil
		}
		if len(left) > 0 {
			n.log.Info("throw-away endpoints of a connectivity test taken back", "endpoints", left)
		}
		if err != nil {
			n.log.Warn("throw-away endpoints of a connectivity test could not be taken back yet", "err", err)
		} else if first {
			first = false
			close(n.loans.swept)
		}
		var again <-chan time.Time
		if err != nil {
			again = time.After(takeBackRetry)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-again:
		case <-n.loans.dirty:
		}
	}
}

// LendEndpoints implements server.Connectivity.
func (n *Node) LendEndpoints(ctx context.Context, own bool, limit time.Duration, send func(api.ConnectivityLoan) error) error {
	p, err := n.ready()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	select {
	case <-n.loans.swept:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	id, end, err := n.loans.begin(cancel)
	if err != nil {
		return err
	}
	defer end()
	out := api.ConnectivityLoan{ID: id, Node: n.connectivityNode(p), Gateway: defaultGateway()}
	if !own {
		out.Node.Endpoints = p.lendable(ctx)
	}
	made, err := n.makeEndpoints(ctx, p, id, lentEach-len(out.Node.Endpoints))
	defer func() { n.takeBack(context.WithoutCancel(ctx), p, made) }()
	for _, m := range made {
		out.Node.Endpoints = append(out.Node.Endpoints, m.endpoint)
	}
	if err != nil {
		out.Node.Error = fmt.Sprintf("no throw-away endpoint: %v", err)
	}
	if err := send(out); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// GiveBackEndpoints implements server.Connectivity.
func (n *Node) GiveBackEndpoints(ctx context.Context, id string) error {
	n.loans.mu.Lock()
	l := n.loans.all[id]
	n.loans.mu.Unlock()
	if l == nil {
		return nil
	}
	l.cancel()
	select {
	case <-l.gone:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// connectivityNode is this node without endpoints.
func (n *Node) connectivityNode(p *parts) api.ConnectivityNode {
	out := api.ConnectivityNode{Node: n.id.Name}
	if p.port != nil {
		out.Address = p.port.Advertise().Addr()
	}
	return out
}

// lendable are up to two endpoints that run: those with the lowest addresses among
// those whose namespaces can be entered, which are asked for the path out.
func (p *parts) lendable(ctx context.Context) []api.ConnectivityEndpoint {
	list := p.agent.Endpoints()
	slices.SortFunc(list, func(a, b agent.Endpoint) int {
		return cmp.Or(a.Address.Compare(b.Address), cmp.Compare(a.Key.String(), b.Key.String()))
	})
	var out []api.ConnectivityEndpoint
	for _, e := range list {
		if len(out) == lentEach {
			break
		}
		up := e.State == agent.StateAttached || e.State == agent.StateProvisional
		if !up || !e.DefaultRoute || e.Key.Namespace == lentNetwork {
			continue
		}
		x := api.ConnectivityEndpoint{Namespace: e.Key.Namespace, Container: e.Key.ID, Ifname: e.Ifname, Address: e.Address, MTU: cmp.Or(e.MTU, p.net.MTU())}
		ns, err := p.namespace(ctx, x.Ref())
		if err != nil {
			continue // on its way out, or somebody else's business
		}
		ns.Close()
		out = append(out, x)
	}
	return out
}

// throwAway is an endpoint that was made for a test.
type throwAway struct {
	file     *os.File // its namespace
	request  agent.Request
	endpoint api.ConnectivityEndpoint
}

// makeEndpoints makes throw-away endpoints. With an error it returns those that there
// are; they are the caller's to take back.
func (n *Node) makeEndpoints(ctx context.Context, p *parts, loan string, count int) (made []throwAway, err error) {
	for i := range count {
		f, err := nsx.New()
		if err != nil {
			return made, err
		}
		t := throwAway{file: f, request: agent.Request{
			Network: lentNetwork, ContainerID: fmt.Sprintf("%s-%d", loan, i+1), Ifname: "eth0", NetNS: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd()),
		}}
		e, err := p.agent.Add(ctx, t.request)
		if err != nil {
			f.Close()
			return made, err
		}
		t.endpoint = api.ConnectivityEndpoint{
			Namespace: e.Key.Namespace, Container: e.Key.ID, Ifname: e.Ifname, Address: e.Address, MTU: cmp.Or(e.MTU, p.net.MTU()), Own: true,
		}
		made = append(made, t)
	}
	return made, nil
}

// takeBack removes throw-away endpoints and gives their addresses back. What cannot
// be taken back now is left to the sweep.
func (n *Node) takeBack(ctx context.Context, p *parts, made []throwAway) {
	ctx, cancel := context.WithTimeout(ctx, takeBackTime)
	defer cancel()
	var tasks sync.WaitGroup
	errs := make([]error, len(made))
	for i, t := range made {
		tasks.Go(func() {
			_, errs[i] = p.agent.Del(ctx, t.request)
			t.file.Close()
		})
	}
	tasks.Wait()
	if err := errors.Join(errs...); err != nil {
		n.log.Warn("throw-away endpoints of a connectivity test could not be taken back yet", "err", err)
		select {
		case n.loans.dirty <- struct{}{}:
		default:
		}
	}
}

// defaultGateway returns the next hop of the host's default route with the best
// metric, the zero address where there is none.
func defaultGateway() netip.Addr {
	text, err := os.ReadFile("/proc/thread-self/net/route")
	if err != nil {
		return netip.Addr{}
	}
	return parseGateway(string(text))
}

// parseGateway reads the kernel's table: Iface Destination Gateway Flags RefCnt Use
// Metric Mask …, addresses as numbers of the machine's own byte order.
func parseGateway(table string) (gateway netip.Addr) {
	const flagUp, flagGateway, flagReject = 0x1, 0x2, 0x200
	best := uint64(0)
	for line := range strings.Lines(table) {
		var iface, dst, via, mask string
		var flags, refs, use, metric uint64
		if n, err := fmt.Sscanf(line, "%s %s %s %x %d %d %d %s", &iface, &dst, &via, &flags, &refs, &use, &metric, &mask); n < 8 || err != nil {
			continue
		}
		raw, err := hex.DecodeString(via)
		if dst != "00000000" || mask != "00000000" || flags&(flagUp|flagGateway|flagReject) != flagUp|flagGateway || err != nil || len(raw) != 4 {
			continue
		}
		if gateway.IsValid() && metric >= best {
			continue
		}
		var b [4]byte
		binary.NativeEndian.PutUint32(b[:], binary.BigEndian.Uint32(raw))
		gateway, best = netip.AddrFrom4(b), metric
	}
	return gateway
}
