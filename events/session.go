package events

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	eventsapi "github.com/containerd/containerd/api/services/events/v1"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
)

// probeNamespace is the containerd namespace in which probes are published. An
// event needs one, but does not create it: it never shows up in a listing.
const probeNamespace = "stellar"

// probeTopic is the stem of the topic of our probes.
const probeTopic = "/stellar/probe/"

// silentRounds is how many probes may stay away before a stream counts as dead.
const silentRounds = 3

// session is one connection with one subscription.
//
// The problems that it answers: Subscribe returns before the server has
// registered the subscriber, so a listing taken at once may miss what happens
// next; the stream has no replay; a connection can stay open to a server that
// does not work any more; a graceful restart can move new calls to a second
// connection while the stream stays on the first.
type session struct {
	c     *Client
	sink  Sink
	topic string // of our probes; nobody else's
	echo  chan struct{}
	seen  atomic.Int64 // when the last probe came back, Unix nanoseconds
	dials uint64       // the connection that carries the stream
}

// session runs one connection until it fails or ctx ends. proven is called
// once, when the event stream is known to work, before sink.Connected(true).
func (c *Client) session(ctx context.Context, sink Sink, proven func()) error {
	s := &session{c: c, sink: sink, topic: probeTopic + rand.Text(), echo: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	stream, err := s.subscribe(ctx)
	if err != nil {
		return err
	}
	g.Go(func() error { return s.read(stream) })
	g.Go(func() error {
		if err := s.prove(ctx); err != nil {
			return err
		}
		proven()
		c.stats.setConnected(true)
		sink.Connected(true, nil)
		g.Go(func() error { return s.list(ctx) })
		return s.watch(ctx)
	})
	return g.Wait()
}

// subscribe connects and opens the stream, within ConnectTimeout.
func (s *session) subscribe(ctx context.Context) (eventsapi.Events_SubscribeClient, error) {
	if err := s.connect(ctx); err != nil {
		return nil, err
	}
	s.dials = s.c.dials.Load()
	stream, err := s.c.events.Subscribe(ctx, &eventsapi.SubscribeRequest{Filters: s.filters()})
	if err != nil {
		return nil, fmt.Errorf("subscribe: %w", unreachable(err))
	}
	return stream, nil
}

// connect waits until the connection is up.
func (s *session) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.c.cfg.ConnectTimeout)
	defer cancel()
	for {
		state := s.c.conn.GetState()
		switch state {
		case connectivity.Ready:
			return nil
		case connectivity.Idle:
			s.c.conn.Connect()
		case connectivity.TransientFailure:
			// The reason comes with the next call.
			_, err := s.c.Version(ctx)
			if err == nil {
				return nil
			}
			return err
		}
		if !s.c.conn.WaitForStateChange(ctx, state) {
			return fmt.Errorf("%w: %w", ErrNotConnected, ctx.Err())
		}
	}
}

// filters returns the subscription in containerd's syntax, the same in 1.6 and
// 2.x: each string is a conjunction, the strings together a disjunction. Only
// topic and namespace are asked for: event fields would make containerd decode
// every event.
func (s *session) filters() []string {
	var but strings.Builder
	for _, ns := range s.c.cfg.IgnoreNamespaces {
		fmt.Fprintf(&but, ",namespace!=%q", ns)
	}
	return []string{
		`topic~="^/containers/(create|update|delete)$"` + but.String(),
		`topic~="^/tasks/(create|start|exit|delete)$"` + but.String(),
		`topic=="/namespaces/delete"` + but.String(),
		fmt.Sprintf("topic==%q", s.topic),
	}
}

// read hands hints to the sink as they come and does nothing else.
func (s *session) read(stream eventsapi.Events_SubscribeClient) error {
	for {
		env, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("event stream: %w", unreachable(err))
		}
		now := time.Now()
		if env.GetTopic() == s.topic {
			s.seen.Store(now.UnixNano())
			s.c.stats.probe(now)
			select {
			case s.echo <- struct{}{}:
			default:
			}
			continue
		}
		h, err := decode(env, now)
		if err != nil {
			if s.c.stats.noHint(err) {
				s.c.log.Debug("event could not be read", "topic", env.GetTopic(), "error", err)
			}
			continue
		}
		if s.c.ignored[h.Key.Namespace] {
			continue
		}
		s.c.stats.hint(h)
		s.sink.Hint(h)
	}
}

// prove publishes probes until one comes back: the first may be published
// before the server has registered the subscription.
func (s *session) prove(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.c.cfg.ConnectTimeout)
	defer cancel()
	pause := 2 * time.Millisecond
	for {
		if err := s.publish(ctx); err != nil {
			return err
		}
		select {
		case <-s.echo:
			return s.sameConnection()
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return fmt.Errorf("%w: no probe came back within %s", ErrStreamSilent, s.c.cfg.ConnectTimeout)
			}
			return ctx.Err()
		case <-time.After(pause):
			pause = min(2*pause, 500*time.Millisecond)
		}
	}
}

// sameConnection marks the connection as proven, or returns an error if calls
// go to a newer one than the stream.
func (s *session) sameConnection() error {
	if s.c.dials.Load() != s.dials {
		return fmt.Errorf("%w: the connection was replaced", ErrNotConnected)
	}
	s.c.proven.Store(s.dials)
	return nil
}

// watch publishes a probe every ProbeEvery and ends when they stay away.
func (s *session) watch(ctx context.Context) error {
	tick := time.NewTicker(s.c.cfg.ProbeEvery)
	defer tick.Stop()
	silent := 0
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		select {
		case <-s.echo: // the one before came back
			silent = 0
		default:
			silent++
		}
		if err := s.sameConnection(); err != nil {
			return err
		}
		if silent >= silentRounds {
			return fmt.Errorf("%w: the last probe came back at %s", ErrStreamSilent, time.Unix(0, s.seen.Load()).Format(time.RFC3339))
		}
		if err := s.publish(ctx); err != nil {
			return err
		}
	}
}

// publish sends one probe. Its payload is a type that every reader of
// containerd's events can decode.
func (s *session) publish(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(inNamespace(ctx, probeNamespace), s.c.cfg.ConnectTimeout)
	defer cancel()
	_, err := s.c.events.Publish(ctx, &eventsapi.PublishRequest{
		Topic: s.topic,
		Event: &anypb.Any{TypeUrl: "google.protobuf.Empty"},
	})
	if err != nil {
		return fmt.Errorf("publish probe: %w", unreachable(err))
	}
	return nil
}

// unreachable marks errors that say nothing about what was asked.
func unreachable(err error) error {
	switch status.Code(err) {
	case codes.NotFound, codes.InvalidArgument, codes.Unimplemented, codes.PermissionDenied, codes.Canceled:
		return err
	}
	return fmt.Errorf("%w: %w", ErrNotConnected, err)
}
