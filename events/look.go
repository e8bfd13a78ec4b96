package events

import (
	"context"
	"fmt"
	"time"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Look reads one container with everything that is known of it now: record,
// spec, image labels and task. It takes one to two milliseconds.
//
// ErrNotFound means that containerd has no such container, and is returned only
// while Run holds a proven connection; without one the answer is
// ErrNotConnected. Any other error means "unknown" too. A task is nil only if
// containerd has none under the same condition; when its state could not be had
// it is TaskUnknown, and Look still succeeds. A nil task does not prove that the
// process is gone: containerd forgets a task whose shim died.
func (c *Client) Look(ctx context.Context, key Key) (Container, error) {
	ctx, cancel := context.WithCancel(inNamespace(ctx, key.Namespace))
	defer cancel()

	type taskAnswer struct {
		task *Task
		err  error
	}
	tasks := make(chan taskAnswer, 1) // buffered: the answer may find nobody waiting
	go func() {
		task, err := c.task(ctx, key)
		tasks <- taskAnswer{task, err}
	}()
	ctr, err := c.recordAndImage(ctx, key)
	if err != nil {
		cancel()
		<-tasks
		return Container{}, err
	}
	answer := <-tasks
	if answer.err != nil {
		return Container{}, answer.err
	}
	ctr.Task = answer.task
	return ctr, ctx.Err()
}

// LookRecord is Look without the task, which is nil. containerd 1.x answers for a
// task that is being created only at the end of that, which may wait for the caller.
func (c *Client) LookRecord(ctx context.Context, key Key) (Container, error) {
	ctr, err := c.recordAndImage(inNamespace(ctx, key.Namespace), key)
	if err != nil {
		return Container{}, err
	}
	return ctr, ctx.Err()
}

func (c *Client) recordAndImage(ctx context.Context, key Key) (Container, error) {
	ctr, err := c.record(ctx, key)
	if err == nil && ctr.HasImage {
		ctr.ImageLabels, ctr.ImageKnown = c.imageLabels(ctx, &ctr)
	}
	return ctr, err
}

// LookTask reads the task alone; it takes half a millisecond. nil and errors
// mean what they mean for Look: ErrNotFound is about the container's record.
// Without its record containerd denies a task that runs; Listing.Orphans has those.
func (c *Client) LookTask(ctx context.Context, key Key) (*Task, error) {
	ctx = inNamespace(ctx, key.Namespace)
	task, err := c.task(ctx, key)
	if task != nil || err != nil {
		return task, err
	}
	if _, err := c.record(ctx, key); err != nil {
		return nil, err
	}
	return nil, nil
}

// record reads the container's record and spec.
func (c *Client) record(ctx context.Context, key Key) (Container, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.CallTimeout)
	defer cancel()
	resp, err := c.containers.Get(ctx, &containersapi.GetContainerRequest{ID: key.ID})
	switch {
	case err == nil:
	case status.Code(err) != codes.NotFound:
		return Container{}, fmt.Errorf("look at %s: %w", key, unreachable(err))
	case !c.connected():
		return Container{}, fmt.Errorf("look at %s: %w", key, ErrNotConnected)
	default:
		return Container{}, fmt.Errorf("%s: %w", key, ErrNotFound)
	}
	if resp.GetContainer().GetID() != key.ID {
		return Container{}, fmt.Errorf("look at %s: containerd answered for %q", key, resp.GetContainer().GetID())
	}
	ctr := fromRecord(key.Namespace, resp.GetContainer())
	ctr.HasImage = ctr.Image != ""
	if err := ctr.readSpec(resp.GetContainer().GetSpec()); err != nil {
		c.log.Debug("spec could not be read", "container", key.String(), "error", err)
	}
	return ctr, nil
}

// task reads the task. The only error is the caller's context.
func (c *Client) task(ctx context.Context, key Key) (*Task, error) {
	callCtx, cancel := context.WithTimeout(ctx, c.cfg.CallTimeout)
	defer cancel()
	resp, err := c.tasks.Get(callCtx, &tasksapi.GetRequest{ContainerID: key.ID})
	switch {
	case err == nil:
		task := fromProcess(resp.GetProcess())
		return &task, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case status.Code(err) == codes.NotFound && c.connected():
		return nil, nil
	}
	c.log.Debug("task could not be read", "container", key.String(), "error", err)
	return &Task{Status: TaskUnknown}, nil
}

// connected reports whether answers come from the server whose event stream is
// proven. Ask after the call, not before.
func (c *Client) connected() bool {
	proven := c.proven.Load()
	return proven != 0 && proven == c.dials.Load()
}

func fromRecord(ns string, r *containersapi.Container) Container {
	return Container{
		Key:     Key{Namespace: ns, ID: r.GetID()},
		Created: asTime(r.GetCreatedAt()),
		Updated: asTime(r.GetUpdatedAt()),
		Image:   r.GetImage(),
		Labels:  r.GetLabels(),
		Runtime: r.GetRuntime().GetName(),
		CNI:     hasCNI(r.GetLabels(), r.GetExtensions()),
	}
}

func asTime(ts *timestamppb.Timestamp) time.Time {
	if ts == nil {
		return time.Time{}
	}
	return ts.AsTime()
}

func fromProcess(p *tasktypes.Process) Task {
	t := Task{PID: p.GetPid()}
	switch p.GetStatus() {
	case tasktypes.Status_CREATED:
		t.Status = TaskCreated
	case tasktypes.Status_RUNNING:
		t.Status = TaskRunning
	case tasktypes.Status_PAUSED, tasktypes.Status_PAUSING:
		t.Status = TaskPaused
	case tasktypes.Status_STOPPED:
		t.Status = TaskStopped
	default:
		t.Status = TaskUnknown
	}
	return t
}
