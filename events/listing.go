package events

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	namespacesapi "github.com/containerd/containerd/api/services/namespaces/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"google.golang.org/protobuf/types/known/emptypb"
)

// list hands a listing to the sink at once and every RelistEvery. The first
// one must succeed; a later one that fails is tried again soon, since the
// stream, which is watched on its own, still works.
func (s *session) list(ctx context.Context) error {
	retry := newPauses(s.c.cfg.RelistEvery)
	for first := true; ; {
		listing, err := s.c.list(ctx, s.dials)
		s.c.stats.relist(time.Now(), err)
		pause := s.c.cfg.RelistEvery
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && first:
			return fmt.Errorf("list: %w", err)
		case err != nil:
			pause = retry.next()
			s.c.log.Warn("listing failed, will retry", "pause", pause, "error", err)
		default:
			retry.reset()
			listing.First, first = first, false
			s.sink.Synced(listing)
			pause -= rand.N(pause/10 + 1) // agents of many nodes do not list in step
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// list reads everything once, or fails.
func (c *Client) list(ctx context.Context, dial uint64) (Listing, error) {
	l := Listing{At: time.Now()}
	server, err := c.introspection.Server(ctx, &emptypb.Empty{})
	if err != nil {
		return Listing{}, fmt.Errorf("server id: %w", unreachable(err))
	}
	l.ServerID = server.GetUUID()
	spaces, err := c.namespaces.List(ctx, &namespacesapi.ListNamespacesRequest{})
	if err != nil {
		return Listing{}, fmt.Errorf("namespaces: %w", unreachable(err))
	}
	for _, ns := range spaces.GetNamespaces() {
		if c.ignored[ns.GetName()] {
			continue
		}
		if err := c.listNamespace(ctx, ns.GetName(), &l); err != nil {
			return Listing{}, fmt.Errorf("namespace %s: %w", ns.GetName(), err)
		}
		l.Namespaces = append(l.Namespaces, ns.GetName())
	}
	l.ServerPID = c.ServerPID()
	if c.dials.Load() != dial {
		return Listing{}, fmt.Errorf("%w: the connection was replaced", ErrNotConnected)
	}
	return l, nil
}

// listNamespace adds one namespace to l. Containers come one by one: all of
// them in one message pass containerd's size limit at about a thousand.
func (c *Client) listNamespace(ctx context.Context, ns string, l *Listing) error {
	ctx = inNamespace(ctx, ns)
	tasks, tasksKnown, err := c.listTasks(ctx)
	if err != nil {
		return err
	}
	stream, err := c.containers.ListStream(ctx, &containersapi.ListContainersRequest{})
	if err != nil {
		return fmt.Errorf("containers: %w", unreachable(err))
	}
	for {
		msg, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("containers: %w", unreachable(err))
		}
		ctr := fromRecord(ns, msg.GetContainer())
		if task, ok := tasks[ctr.ID]; ok {
			ctr.Task = &task
			delete(tasks, ctr.ID)
		} else if !tasksKnown {
			ctr.Task = &Task{Status: TaskUnknown}
		}
		l.Containers = append(l.Containers, ctr)
	}
	for id, task := range tasks {
		l.Orphans = append(l.Orphans, Orphan{Key: Key{Namespace: ns, ID: id}, Task: task})
	}
	return nil
}

// listTasks returns the tasks of one namespace by container. containerd asks
// every shim; one that hangs costs it two seconds. known is false when the whole
// call took too long: that proves nothing about any task.
func (c *Client) listTasks(ctx context.Context) (tasks map[string]Task, known bool, err error) {
	callCtx, cancel := context.WithTimeout(ctx, listTasksTimeout)
	defer cancel()
	resp, err := c.tasks.List(callCtx, &tasksapi.ListTasksRequest{})
	switch {
	case err == nil:
	case ctx.Err() == nil && callCtx.Err() != nil:
		return nil, false, nil
	default:
		return nil, false, fmt.Errorf("tasks: %w", unreachable(err))
	}
	tasks = make(map[string]Task, len(resp.GetTasks()))
	for _, p := range resp.GetTasks() {
		tasks[p.GetID()] = fromProcess(p)
	}
	return tasks, true, nil
}

const listTasksTimeout = 20 * time.Second
