package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"stellar.io/stellar/internal/testx"
	"stellar.io/stellar/internal/testx/faults"
)

// frame is a message that the proxy does not look into.
type frame []byte

// frameCodec passes messages through as they are.
type frameCodec struct{}

func (frameCodec) Marshal(v any) ([]byte, error) { return *v.(*frame), nil }

func (frameCodec) Unmarshal(data []byte, v any) error {
	*v.(*frame) = bytes.Clone(data)
	return nil
}

func (frameCodec) Name() string { return "proto" }

// eventTrouble is what happens to containerd's events on their way to the agent. The
// agent's own probes pass: they tell whether the stream works at all.
type eventTrouble struct {
	name  string
	drop  int           // of 100
	lost  int64         // this one in any case, counted from 1
	twice bool          // each comes a second time, a little later
	late  time.Duration // each comes after a random time below that, so in another order
}

// containerdProxy stands between an agent and its containerd.
type containerdProxy struct {
	trouble atomic.Pointer[eventTrouble]
	conn    *grpc.ClientConn
	// What happened to events that were not probes.
	passed, dropped atomic.Int64
	count           atomic.Int64 // since the trouble began
	wg              sync.WaitGroup

	mu  sync.Mutex // guards rng
	rng *rand.Rand
}

// newContainerdProxy serves containerd's API on a new socket, whose path it returns.
func newContainerdProxy(t *testing.T, address string, rng *rand.Rand) (*containerdProxy, string) {
	t.Helper()
	p := &containerdProxy{rng: rng}
	p.trouble.Store(&eventTrouble{})
	var err error
	if p.conn, err = grpc.NewClient("unix://"+address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(frameCodec{}), grpc.MaxCallRecvMsgSize(64<<20))); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(filepath.Dir(address), "proxy.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.ForceServerCodec(frameCodec{}), grpc.UnknownServiceHandler(p.handle), grpc.MaxRecvMsgSize(64<<20))
	p.wg.Go(func() { _ = s.Serve(l) })
	t.Cleanup(func() {
		s.Stop()
		p.conn.Close()
		p.wg.Wait()
	})
	return p, path
}

// handle carries one call of whatever method.
func (p *containerdProxy) handle(_ any, in grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(in)
	md, _ := metadata.FromIncomingContext(in.Context())
	ctx, cancel := context.WithCancel(metadata.NewOutgoingContext(in.Context(), md))
	defer cancel()
	out, err := p.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		return err
	}
	p.wg.Go(func() {
		for {
			var m frame
			if err := in.RecvMsg(&m); err != nil {
				if errors.Is(err, io.EOF) {
					_ = out.CloseSend()
				}
				return
			}
			if out.SendMsg(&m) != nil {
				return
			}
		}
	})
	var mu sync.Mutex // guards in's sending side
	send := func(m frame) {
		mu.Lock()
		defer mu.Unlock()
		_ = in.SendMsg(&m) // an agent that has gone is seen at out, too
	}
	var late sync.WaitGroup
	defer late.Wait()
	for {
		var m frame
		if err := out.RecvMsg(&m); err != nil {
			in.SetTrailer(out.Trailer())
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if method != "/containerd.services.events.v1.Events/Subscribe" || bytes.Contains(m, []byte("/stellar/probe/")) {
			send(m)
			continue
		}
		for _, wait := range p.fate() {
			late.Go(func() {
				select {
				case <-time.After(wait):
					send(m)
				case <-ctx.Done():
				}
			})
		}
	}
}

// fate says when an event arrives, if at all.
func (p *containerdProxy) fate() (waits []time.Duration) {
	is := p.trouble.Load()
	p.mu.Lock()
	defer p.mu.Unlock()
	if nth := p.count.Add(1); nth == is.lost || p.rng.IntN(100) < is.drop {
		p.dropped.Add(1)
		return nil
	}
	p.passed.Add(1)
	waits = []time.Duration{0}
	if is.late > 0 {
		waits[0] = time.Duration(p.rng.Int64N(int64(is.late)))
	}
	if is.twice {
		waits = append(waits, waits[0]+time.Duration(p.rng.Int64N(int64(200*time.Millisecond))))
	}
	return waits
}

// TestFaultEvents: whatever happens to its events, an agent that lists every 30 s has
// all in order by the next listing; what runs on keeps its address throughout.
func TestFaultEvents(t *testing.T) {
	rng := rand.New(rand.NewPCG(faults.Seed(t, "./integration"), 0))
	n := startNode(t, nodeOptions{noAgent: true})
	proxy, path := newContainerdProxy(t, n.containerd.Address, rng)
	n.flags = append(n.flags, "--containerd-address", path)
	n.startAgent("--init")
	n.cli("status", "--wait", "--timeout", "30s")
	const relist = 30 * time.Second
	watchKernels(t, n)
	steady := n.start("steady")
	one := 1 + rng.Int64N(20)
	for _, trouble := range []eventTrouble{
		{name: "1% dropped", drop: 1, lost: one}, // of some 40: one at least
		{name: "half dropped", drop: 50},
		{name: "all dropped", drop: 100},
		{name: "all doubled", twice: true},
		{name: "all up to 3 s late, in another order", late: 3 * time.Second},
	} {
		passed, dropped := proxy.passed.Load(), proxy.dropped.Load()
		proxy.count.Store(0)
		proxy.trouble.Store(&trouble)
		took := n.disorder(fmt.Sprint(trouble.drop), steady)
		passed, dropped = proxy.passed.Load()-passed, proxy.dropped.Load()-dropped
		if passed+dropped < 20 || trouble.drop == 100 && passed > 0 || (trouble.drop > 0) != (dropped > 0) {
			t.Errorf("%s: %d events passed and %d dropped", trouble.name, passed, dropped)
		}
		if limit := relist + 5*time.Second; took > limit {
			t.Errorf("%s: took %s, want at most %s", trouble.name, took, limit)
		}
		faults.Report(t, faults.RealContainerd, "containerd's events: "+trouble.name, "%d events, %d of them lost: all in order after %s at most, 0 addresses changed", passed+dropped, dropped, took.Round(10*time.Millisecond))
	}
}

// disorder starts, ends, starts anew and deletes containers, and returns how long it
// takes from the last deed until everything is as it should be.
func (n *node) disorder(prefix string, steady endpoint) time.Duration {
	n.t.Helper()
	do := func(err error) {
		n.t.Helper()
		if err != nil {
			n.t.Fatal(err)
		}
	}
	want := map[string]string{steady.Container: "attached"}
	for i, fate := range []string{"attached", "attached", "bound", "", "attached", ""} {
		id := unique(fmt.Sprintf("e%s-%d", prefix, i))
		n.runContainer(testx.Run{ID: id, Labels: networked()})
		switch {
		case fate == "":
			do(n.containerd.Remove("default", id))
			continue
		case fate == "bound":
			do(n.containerd.KillTask("default", id))
		case i == 4:
			do(n.containerd.KillTask("default", id))
			do(n.containerd.StartTask("default", id))
		}
		want[id] = fate
	}
	last := time.Now()
	n.eventually(90*time.Second, "everything is in order", func() error {
		es, err := n.list()
		if err != nil {
			return err
		}
		for id, state := range want {
			if e := es["default/"+id]; e.State != state {
				return fmt.Errorf("%s is %q, want %q", id, e.State, state)
			}
		}
		if len(es) != len(want) {
			return fmt.Errorf("%d endpoints, want %d: %+v", len(es), len(want), es)
		}
		_, err = n.run("ipam", "check")
		return err
	})
	took := time.Since(last)
	if e := n.endpoints()["default/"+steady.Container]; e.Address != steady.Address || e.HostIfname != steady.HostIfname {
		faults.Safety(n.t, "%+v, was %+v", e, steady)
	}
	for id := range want {
		if id != steady.Container {
			do(n.containerd.Remove("default", id))
		}
	}
	n.eventually(90*time.Second, "what was deleted is forgotten", func() error {
		es, err := n.list()
		if err == nil && len(es) != 1 {
			err = fmt.Errorf("%+v", es)
		}
		return err
	})
	return took
}
