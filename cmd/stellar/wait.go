package main

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/spf13/cobra"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/client"
)

// Pauses between two looks: short first, since most waits are.
const (
	firstPause = 10 * time.Millisecond
	lastPause  = 250 * time.Millisecond
)

func (a *app) waitCommand() *cobra.Command {
	return group("wait", "Wait until something is so",
		"Waits, 60s unless --timeout says otherwise, and prints nothing. Exit code 0 when it\n"+
			"is so, 124 when the time is over, 5 when it will not be so. An agent that does not\n"+
			"answer is waited for, too.",
		a.waitEndpointCommand(), a.waitRouteCommand(), a.waitStatusCommand("leader", "Wait until the cluster has a leader", leaderNow),
		a.waitStatusCommand("ready", "Wait until this node can attach containers", readyNow))
}

// condition looks once: nil when it is so, errNotYet (wrapped, with why) when to
// look again, anything else when to give up.
type condition func(ctx context.Context) error

var errNotYet = errors.New("not yet")

// notYet says why it is not so yet.
type notYet struct{ reason string }

func (e notYet) Error() string        { return e.reason }
func (e notYet) Is(target error) bool { return target == errNotYet }

// poll looks until the condition holds. An agent that cannot be reached is no
// reason to give up. When ctx's time is over, the error is a timeout that says
// what was last seen.
func poll(ctx context.Context, what string, cond condition) error {
	last := ""
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		err := cond(ctx)
		switch code := api.CodeOf(err); {
		case err == nil:
			return nil
		case errors.Is(err, errNotYet), code == api.CodeUnreachable, code == api.CodeNotInitialized, code == api.CodeNoLeader:
			last = err.Error()
		case ctx.Err() == nil:
			return err
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return ctx.Err()
			}
			if last == "" {
				last = "no answer"
			}
			return api.Errorf(api.CodeTimeout, "%s: %s", what, last).WithHint("`stellar status` shows what is missing")
		case <-time.After(pause):
		}
	}
}

// readyNow holds when the node is ready and nothing needs a human. Each report
// seen is left in *seen, which may be nil.
func readyNow(cl *client.Client, seen *api.StatusReport) condition {
	return func(ctx context.Context) error {
		r, err := cl.Status(ctx)
		if err != nil {
			return err
		}
		if seen != nil {
			*seen = r
		}
		if bad := notOK(r, api.Err); bad != "" {
			return notYet{bad}
		}
		return checkOK(r, api.CheckReady)
	}
}

// leaderNow holds when a leader is known.
func leaderNow(cl *client.Client, _ *api.StatusReport) condition {
	return func(ctx context.Context) error {
		r, err := cl.Status(ctx)
		if err != nil {
			return err
		}
		return checkOK(r, api.CheckLeader)
	}
}

func checkOK(r api.StatusReport, name string) error {
	c, ok := r.Check(name)
	switch {
	case !ok:
		return notYet{"the agent does not say whether it is " + name}
	case c.State != api.OK:
		return notYet{name + ": " + orNone(c.Reason)}
	}
	return nil
}

type waitStatus struct {
	app  *app
	what string
	cond func(*client.Client, *api.StatusReport) condition
}

func (a *app) waitStatusCommand(name, short string, cond func(*client.Client, *api.StatusReport) condition) *cobra.Command {
	c := &waitStatus{app: a, what: "no " + name, cond: cond}
	if name == "ready" {
		c.what = "the node is not ready"
	}
	return a.attach(&cobra.Command{Use: name, Short: short, Args: cobra.NoArgs}, c, waitTimeout)
}

func (c *waitStatus) Run(ctx context.Context, _ []string, _, _ io.Writer) error {
	cl, err := c.app.dial()
	if err != nil {
		return err
	}
	defer cl.Close()
	return poll(ctx, c.what, c.cond(cl, nil))
}

type waitEndpoint struct {
	app *app
	refFlags
}

func (a *app) waitEndpointCommand() *cobra.Command {
	c := &waitEndpoint{app: a}
	cmd := &cobra.Command{
		Use: "endpoint CONTAINER", Short: "Wait until a container has its network", Args: cobra.ExactArgs(1),
		Long:              "The container need not exist yet. A rejected one ends the wait with exit code 5.",
		ValidArgsFunction: a.completeEndpoints,
	}
	c.add(cmd)
	return a.attach(cmd, c, waitTimeout)
}

func (c *waitEndpoint) Run(ctx context.Context, args []string, _, _ io.Writer) error {
	cl, err := c.app.dial()
	if err != nil {
		return err
	}
	defer cl.Close()
	ref := c.ref(args[0])
	return poll(ctx, ref.String()+" has no network", func(ctx context.Context) error {
		d, err := cl.Endpoint(ctx, ref)
		switch {
		case api.CodeOf(err) == api.CodeNotFound:
			return notYet{err.Error()}
		case err != nil:
			return err
		case d.Up():
			return nil
		case d.State == api.StateRejected:
			return api.Errorf(api.CodeUnhealthy, "%s is rejected: %s", d.Ref(), orNone(d.Reason))
		}
		return notYet{d.State + ": " + orNone(d.Reason)}
	})
}

func (a *app) waitRouteCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "route PREFIX", Short: "Wait until this node has a route to a subnet", Args: cobra.ExactArgs(1),
		Long: "PREFIX is a subnet as `stellar ipam ls` shows it; nobody need hold it yet. What stands\n" +
			"in the way (conflict, not-adjacent) may go away, and is waited for.",
	}
	return a.attach(cmd, calling{a, func(ctx context.Context, cl *client.Client, args []string, _ io.Writer) error {
		to, err := api.ParseTarget(args[0])
		if err != nil {
			return err
		}
		return poll(ctx, "no route to "+to.String(), func(ctx context.Context) error {
			all, err := cl.Routes(ctx)
			if err != nil {
				return err
			}
			for _, r := range all {
				if r.Destination == to && r.State == api.RouteOK {
					return nil
				}
				if r.Destination == to {
					return notYet{r.State + ": " + orNone(r.Reason)}
				}
			}
			return notYet{"nobody has that subnet"}
		})
	}}, waitTimeout)
}
