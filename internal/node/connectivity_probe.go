package node

import (
	"context"
	"fmt"
	"sync"
	"time"

	"stellar.io/stellar/api"
	"stellar.io/stellar/internal/ping"
	"stellar.io/stellar/netsetup"
)

const (
	// probesAtOnce bounds the sockets of one test on a node.
	probesAtOnce = 16
	// Of each probe.
	probeCount    = 3
	probeInterval = 50 * time.Millisecond
	probeWait     = time.Second
	probeSize     = 56
	// Of each size that is tried for the path's MTU.
	mtuTries = 2
)

// ProbePaths implements server.Connectivity.
func (n *Node) ProbePaths(ctx context.Context, probes []api.ConnectivityProbe, send func(api.ConnectivityProbed) error) error {
	p, err := n.ready()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t := trial{opened: map[api.EndpointRef]opened{}}
	defer t.close()
	for _, probe := range probes {
		if _, ok := t.opened[probe.From]; !ok && probe.From != (api.EndpointRef{}) {
			ns, err := p.namespace(ctx, probe.From)
			t.opened[probe.From] = opened{ns, err}
		}
	}
	todo, results := make(chan api.ConnectivityProbe), make(chan api.ConnectivityProbed)
	var tasks sync.WaitGroup
	for range min(probesAtOnce, len(probes)) {
		tasks.Go(func() {
			for probe := range todo {
				select {
				case results <- t.probe(ctx, probe):
				case <-ctx.Done():
				}
			}
		})
	}
	defer tasks.Wait()
	defer cancel()
	tasks.Go(func() {
		defer close(todo)
		for _, probe := range probes {
			select {
			case todo <- probe:
			case <-ctx.Done():
				return
			}
		}
	})
	for range probes {
		select {
		case r := <-results:
			if err := send(r); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// trial is one ProbePaths at work.
type trial struct{ opened map[api.EndpointRef]opened }

// opened is the namespace of an endpoint, or why it cannot be entered.
type opened struct {
	ns  *netsetup.Namespace
	err error
}

func (t *trial) close() {
	for _, o := range t.opened {
		if o.err == nil {
			o.ns.Close()
		}
	}
}

// probe tries one path.
func (t *trial) probe(ctx context.Context, probe api.ConnectivityProbe) api.ConnectivityProbed {
	out := api.ConnectivityProbed{ID: probe.ID}
	s, err := t.socket(probe)
	if err != nil {
		out.Problem = err.Error()
		return out
	}
	defer s.Close()
	if probe.MTU > 0 {
		out.MTU, err = s.PathMTU(ctx, ping.MTUOptions{Target: probe.Target, Expected: probe.MTU, Tries: mtuTries, Interval: probeInterval, Wait: probeWait})
		out.Problem = mtuProblem(out.MTU, probe.MTU, err)
		return out
	}
	var sum time.Duration
	o := ping.Options{Target: probe.Target, Count: probeCount, Interval: probeInterval, Wait: probeWait, Size: probeSize}
	err = s.Run(ctx, o, func(r ping.Result) error {
		out.Sent++
		if r.OK() {
			out.Received++
			sum += r.RTT
		} else if out.Problem == "" || out.Problem == ping.NoAnswer { // what somebody said tells more
			out.Problem = told(r)
		}
		return nil
	})
	switch {
	case err != nil:
		out.Problem = err.Error()
	case out.Received > 0:
		out.RTT, out.Problem = api.Millis(sum/time.Duration(out.Received)), ""
	}
	return out
}

func (t *trial) socket(probe api.ConnectivityProbe) (*ping.Socket, error) {
	if probe.From == (api.EndpointRef{}) {
		return ping.Open(probe.MTU > 0)
	}
	o := t.opened[probe.From]
	if o.err != nil {
		return nil, o.err
	}
	return socketIn(o.ns, probe.MTU > 0)
}

// told says who said why there is no reply.
func told(r ping.Result) string {
	if r.From.IsValid() {
		return fmt.Sprintf("%s says: %s", r.From, r.Problem)
	}
	return r.Problem
}

// mtuProblem says what is wrong with a path; "" when it is as it should be.
func mtuProblem(found, expected int, err error) string {
	switch {
	case err != nil:
		return err.Error()
	case found == 0:
		return ping.NoAnswer
	case found < expected:
		return fmt.Sprintf("packets of %d bytes pass in one piece, not of %d", found, expected)
	}
	return ""
}
