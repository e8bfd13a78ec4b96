package events

import (
	"context"
	"fmt"
	"syscall"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Kill sends SIGKILL to all processes of the container's task if its init
// process still is pid. A task that is another one, has ended or never was is
// no error: there is nothing to kill.
func (c *Client) Kill(ctx context.Context, key Key, pid int) error {
	ctx = inNamespace(ctx, key.Namespace)
	task, err := c.task(ctx, key)
	if err != nil {
		return fmt.Errorf("kill %s: %w", key, err)
	}
	if task == nil || int(task.PID) != pid {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.CallTimeout)
	defer cancel()
	_, err = c.tasks.Kill(ctx, &tasksapi.KillRequest{ContainerID: key.ID, Signal: uint32(syscall.SIGKILL), All: true})
	if err != nil && status.Code(err) != codes.NotFound {
		return fmt.Errorf("kill %s: %w", key, unreachable(err))
	}
	return nil
}
