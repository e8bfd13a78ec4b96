package node

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"stellar.io/stellar/agent"
	"stellar.io/stellar/api"
	"stellar.io/stellar/ipam"
)

const (
	// historyPatience is how long the remembered events of several nodes are waited
	// for, so that they come in the order of their times.
	historyPatience = 5 * time.Second
	// eventsRetry is between two attempts to follow a node that cannot be reached.
	eventsRetry = 3 * time.Second
)

// eventSource sends the events of one node, as server.Agent's Events.
type eventSource func(ctx context.Context, q api.EventQuery, send func(api.Event) error) error

// Events implements server.Backend.
func (n *Node) Events(ctx context.Context, q api.EventQuery, send func(api.Event) error) error {
	p, err := n.ready()
	if err != nil {
		return err
	}
	nodes := q.Nodes
	q.Nodes, q.AllNodes = nil, false
	if len(nodes) == 0 || len(nodes) == 1 && nodes[0] == string(n.id.ID) {
		return n.ownEvents(p)(ctx, q, send)
	}
	if len(nodes) == 1 {
		return p.eventsOf(ipam.NodeID(nodes[0]))(ctx, q, send)
	}
	m := merge{query: q, sources: map[string]eventSource{}}
	for _, id := range nodes {
		if id == string(n.id.ID) {
			m.sources[n.id.Name] = n.ownEvents(p)
		} else {
			m.sources[p.nameOf(ipam.NodeID(id))] = p.eventsOf(ipam.NodeID(id))
		}
	}
	return m.run(ctx, send)
}

// ownEvents reads this node's history. It is never held up by who reads: what was
// forgotten during a slow send is counted and told.
func (n *Node) ownEvents(p *parts) eventSource {
	return func(ctx context.Context, q api.EventQuery, send func(api.Event) error) error {
		return readEvents(ctx, p.agent.Events, n.id.Name, q, send)
	}
}

// readEvents sends what history returns; that is agent.Agent's Events.
func readEvents(ctx context.Context, history func(seq uint64) ([]agent.Event, uint64, <-chan struct{}), node string, q api.EventQuery, send func(api.Event) error) error {
	var next uint64
	for first := true; ; first = false {
		list, to, more := history(next)
		var out []api.Event
		for _, e := range list {
			out = append(out, api.Event{Time: e.Time, Type: e.Type, Node: e.Node, Subject: e.Subject, Message: e.Message})
		}
		out = q.Filter(out)
		if first {
			out = q.Newest(out)
			if q.Mark {
				out = append(out, api.Event{})
			}
		} else if lost := to - next - uint64(len(list)); lost > 0 {
			out = slices.Insert(out, 0, lostEvents(node, lost))
		}
		for _, e := range out {
			if err := send(e); err != nil {
				return err
			}
		}
		next = to
		if !q.Follow {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-more:
		}
	}
}

// lostEvents tells a reader what it missed.
func lostEvents(node string, n uint64) api.Event {
	return api.Event{
		Time: time.Now(), Type: api.EventLost, Node: node, Subject: node,
		Message: fmt.Sprintf("%d events were forgotten before they were read: the reader is too slow", n),
	}
}

// eventsOf reads another node's events through the cluster.
func (p *parts) eventsOf(id ipam.NodeID) eventSource {
	return func(ctx context.Context, q api.EventQuery, send func(api.Event) error) error {
		c, err := p.relay(ctx, id, p.addressOf(id))
		if err != nil {
			return err
		}
		return c.Events(ctx, q, send)
	}
}

// merge reads the events of several nodes at once. The remembered ones come in the
// order of their times, the new ones as they arrive. A node that cannot be asked is
// an event, too, and followed again when it is back.
type merge struct {
	query   api.EventQuery
	sources map[string]eventSource // by node
}

// run returns the first error of send; when not following, once each has answered.
func (m *merge) run(ctx context.Context, send func(api.Event) error) error {
	ctx, cancel := context.WithCancel(ctx)
	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer cancel()
	in := make(chan api.Event)
	for node, source := range m.sources {
		tasks.Go(func() { m.follow(ctx, node, source, in) })
	}
	var early []api.Event
	var patience <-chan time.Time // follow bounds it otherwise
	if m.query.Follow {
		patience = time.After(historyPatience)
	}
	flush := func() error {
		slices.SortStableFunc(early, func(a, b api.Event) int { return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Node, b.Node)) })
		if early = m.query.Newest(early); m.query.Mark {
			early = append(early, api.Event{})
		}
		for _, e := range early {
			if err := send(e); err != nil {
				return err
			}
		}
		return nil
	}
	for marks := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-patience:
			if marks < len(m.sources) {
				marks = len(m.sources)
				if err := flush(); err != nil {
					return err
				}
			}
		case e := <-in:
			switch {
			case e != (api.Event{}) && marks < len(m.sources):
				early = append(early, e)
				continue
			case e != (api.Event{}):
				if err := send(e); err != nil {
					return err
				}
				continue
			}
			if marks++; marks == len(m.sources) {
				if err := flush(); err != nil || !m.query.Follow {
					return err
				}
			}
		}
	}
}

// follow puts a node's events into in, and the zero Event once where its remembered
// ones end. It returns with ctx or, when there is nothing to follow, after that.
func (m *merge) follow(ctx context.Context, node string, source eventSource, in chan<- api.Event) {
	q := m.query
	q.Mark = true
	marked, told := false, false
	put := func(e api.Event) error {
		if e == (api.Event{}) {
			if told = false; marked {
				return nil
			}
			marked = true
		} else if e.Type != api.EventLost && e.Type != api.EventUnreachable && !e.Time.Before(q.Since) {
			q.Since = e.Time.Add(1) // after a loss of the connection it goes on there
		}
		select {
		case in <- e:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	call := func() error { return source(ctx, q, put) }
	if !q.Follow {
		call = func() error {
			ctx, cancel := context.WithTimeout(ctx, historyPatience)
			defer cancel()
			return source(ctx, q, put)
		}
	}
	for {
		err := call()
		if ctx.Err() != nil {
			return
		}
		if err != nil && !told {
			if put(api.Event{Time: time.Now(), Type: api.EventUnreachable, Node: node, Subject: node, Message: err.Error()}) != nil {
				return
			}
			told = true
		}
		if !marked && put(api.Event{}) != nil || !m.query.Follow {
			return
		}
		q.Tail = 0 // what happened meanwhile is wanted whole
		select {
		case <-ctx.Done():
			return
		case <-time.After(eventsRetry):
		}
	}
}
