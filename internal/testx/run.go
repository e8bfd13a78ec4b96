package testx

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Run says what `ctr run` is to run. Zero values: namespace "default", the
// busybox image, `sleep infinity`, a network namespace of its own.
type Run struct {
	Namespace, ID string
	Image         string
	// RootFS is a directory to run instead of an image.
	RootFS              string
	Labels, Annotations map[string]string
	// HostNet is --net-host; NetNSPath is --with-ns network:PATH.
	HostNet   bool
	NetNSPath string
	// Config is a specification to run as it is: neither image nor flags shape it.
	Config string
	// Through is a program and its arguments that run ctr, such as nsenter.
	Through []string
	// Flags are further flags of ctr run.
	Flags []string
	Args  []string
}

// Run starts a container in the background, as `ctr run -d` does. What it
// prints is kept for Logs.
func (c *Containerd) Run(r Run) error {
	_, err := c.ctr(context.Background(), r.Through, c.runArgs(r, "--detach", "--log-uri", "file://"+c.logPath(r.namespace(), r.ID)))
	return err
}

// Output runs a container to its end, removes it, and returns what it printed.
func (c *Containerd) Output(r Run) (string, error) {
	return c.ctr(context.Background(), r.Through, c.runArgs(r, "--rm", "--fifo-dir", c.path("fifo")))
}

// Create makes a container without a task; StartTask starts it. Its cgroup,
// and with V1 its runc state, are not kept apart: choose an id that no other
// containerd of the machine uses, such as one with the base of Dir in it.
func (c *Containerd) Create(r Run) error {
	args := c.runArgs(r)
	i := slices.Index(args, "run")
	args = slices.Replace(args, i, i+1, "containers", "create")
	drop := []string{"--cgroup"} // belongs to ctr run alone
	if c.Version == V1 {
		drop = append(drop, "--runc-root")
	}
	for _, flag := range drop {
		j := slices.Index(args, flag)
		args = slices.Delete(args, j, j+2)
	}
	_, err := c.Ctr(args...)
	return err
}

// StartTask starts a task of a container that has none.
func (c *Containerd) StartTask(namespace, id string) error {
	_, err := c.Ctr("-n", namespace, "task", "start", "--detach", "--log-uri", "file://"+c.logPath(namespace, id), id)
	return err
}

// Exec runs a program in a running container and returns what it printed.
func (c *Containerd) Exec(namespace, id string, args ...string) (string, error) {
	execID := fmt.Sprintf("exec-%d-%d", os.Getpid(), c.execs.Add(1))
	return c.Ctr(append([]string{"-n", namespace, "task", "exec", "--fifo-dir", c.path("fifo"), "--exec-id", execID, id}, args...)...)
}

// Logs returns what a container started by Run has printed so far.
func (c *Containerd) Logs(namespace, id string) (string, error) {
	data, err := os.ReadFile(c.logPath(namespace, id))
	return string(data), err
}

// TaskPID returns the init process of a container's task.
func (c *Containerd) TaskPID(namespace, id string) (int, error) {
	out, err := c.Ctr("-n", namespace, "task", "ls")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == id {
			return strconv.Atoi(f[1])
		}
	}
	return 0, fmt.Errorf("container %s/%s has no task", namespace, id)
}

// KillTask kills a container's task, waits for its end and removes it; the
// container stays.
func (c *Containerd) KillTask(namespace, id string) error {
	_, killErr := c.Ctr("-n", namespace, "task", "kill", "-s", "KILL", "-a", id)
	var err error
	for range 200 {
		if _, err = c.Ctr("-n", namespace, "task", "rm", "-f", id); err == nil || strings.Contains(err.Error(), "not found") {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return errors.Join(killErr, err)
}

// Remove kills a container's task, if any, and deletes the container.
func (c *Containerd) Remove(namespace, id string) error {
	if err := c.KillTask(namespace, id); err != nil {
		return err
	}
	_, err := c.Ctr("-n", namespace, "containers", "rm", id)
	return err
}

func (r Run) namespace() string {
	if r.Namespace == "" {
		return "default"
	}
	return r.Namespace
}

func (c *Containerd) logPath(namespace, id string) string {
	return c.path("log", namespace+"-"+id)
}

// runArgs makes the arguments of ctr; runc's state and the cgroup are kept
// apart from those of other containerds on the machine.
func (c *Containerd) runArgs(r Run, flags ...string) []string {
	args := []string{"-n", r.namespace(), "run", "--runc-root", c.path("runc"), "--cgroup", c.cgroup + "/" + r.namespace() + "-" + r.ID}
	args = append(args, flags...)
	for _, k := range slices.Sorted(maps.Keys(r.Labels)) {
		args = append(args, "--label", k+"="+r.Labels[k])
	}
	for _, k := range slices.Sorted(maps.Keys(r.Annotations)) {
		args = append(args, "--annotation", k+"="+r.Annotations[k])
	}
	if r.HostNet {
		args = append(args, "--net-host")
	}
	if r.NetNSPath != "" {
		args = append(args, "--with-ns", "network:"+r.NetNSPath)
	}
	args = append(args, r.Flags...)
	if r.Config != "" {
		return append(args, "--config", r.Config, r.ID)
	}
	switch {
	case r.RootFS != "":
		args = append(args, "--rootfs", r.RootFS)
	case r.Image != "":
		args = append(args, r.Image)
	default:
		args = append(args, BusyboxName)
	}
	args = append(args, r.ID)
	if len(r.Args) == 0 {
		return append(args, "sleep", "infinity")
	}
	return append(args, r.Args...)
}
