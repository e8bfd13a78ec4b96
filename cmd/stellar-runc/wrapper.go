package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"stellar.io/stellar/api"
	"stellar.io/stellar/internal/attachclient"
)

// agent is what is asked of the agent.
type agent interface {
	Asked(ctx context.Context, c api.ContainerRef) (api.Asked, error)
	Await(ctx context.Context, c api.ContainerRef, pid int) (api.Awaited, error)
}

const (
	askTime  = 300 * time.Millisecond // for the agent's first answer; it delays every container
	patience = 2 * time.Second        // for an agent that is away, as during an upgrade; only who needs it waits
	retry    = 50 * time.Millisecond
)

// wrapper is one run of the program in place of a runtime.
type wrapper struct {
	args   []string // with the program's name
	getenv func(string) string
	stderr io.Writer
}

// main becomes the runtime. It returns, with an exit code, only if it cannot.
func (w wrapper) main() int {
	cwd, err := os.Getwd()
	if err != nil {
		cwd = "" // a bundle that is named in full needs none
	}
	inv, creates := parse(w.args[1:], cwd)
	return w.fail(inv, w.become(inv, creates))
}

func (w wrapper) become(inv invocation, creates bool) error {
	path, err := findRuntime(w.args[0], w.getenv)
	if err != nil {
		return err
	}
	if creates {
		if err := w.prepare(inv); err != nil {
			return err
		}
	}
	return execRuntime(path, w.args[1:])
}

// prepare has the container wait for its network if it asks for one. An error
// means that the container must not be created.
func (w wrapper) prepare(inv invocation) error {
	ref := api.ContainerRef{Namespace: inv.namespace(), Container: inv.id}
	if ref.Namespace == "" {
		return nil
	}
	address := w.address()
	cl := attachclient.New(address)
	asked, err := ask(cl, ref, askTime, 0)
	if err == nil && !asked.Wanted {
		return nil
	}
	data, readErr := os.ReadFile(inv.config)
	if readErr != nil || !json.Valid(data) {
		return nil // the runtime will say so
	}
	s := spec(data)
	if err != nil {
		wanted, strict := s.wish()
		if !wanted {
			return nil
		}
		if strict {
			asked, err = ask(cl, ref, patience, patience)
		}
		if err != nil {
			return w.without(ref, strict, err)
		}
		if !asked.Wanted {
			return nil
		}
	}
	if asked.Rejected != "" {
		return w.without(ref, asked.Strict, fmt.Errorf("rejected: %s", asked.Rejected))
	}
	if err := s.addHook(inv.config, ref, address, asked.Strict); err != nil {
		return w.without(ref, asked.Strict, err)
	}
	return nil
}

// address is where the agent serves.
func (w wrapper) address() string {
	if a := w.getenv("STELLAR_ADDRESS"); a != "" {
		return a
	}
	return api.DefaultAddress
}

// without decides about a container that will have no network: a strict one
// fails, any other starts with a warning.
func (w wrapper) without(ref api.ContainerRef, strict bool, why error) error {
	if strict {
		return noNetwork(ref, why)
	}
	fmt.Fprintf(w.stderr, "stellar-runc: warning: container %s/%s starts without its network: %s\n", ref.Namespace, ref.Container, reason(why))
	return nil
}

func noNetwork(ref api.ContainerRef, why error) error {
	return fmt.Errorf("container %s/%s must not run without its network (%s=true): %s", ref.Namespace, ref.Container, keyStrict, reason(why))
}

// reason is an error with its hint, in one line.
func reason(err error) string {
	text := err.Error()
	if e, ok := errors.AsType[*api.Error](err); ok && e.Hint != "" {
		text += " (hint: " + e.Hint + ")"
	}
	return oneLine(text)
}

// ask asks what the container wants. For as long as grace an agent that is not
// there, or silent, is asked again.
func ask(a agent, ref api.ContainerRef, limit, grace time.Duration) (asked api.Asked, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	err = again(ctx, grace, func() error {
		asked, err = a.Asked(ctx, ref)
		return err
	})
	return asked, err
}

// again calls try until it finds an agent, or grace or ctx is over.
func again(ctx context.Context, grace time.Duration, try func() error) (err error) {
	end := time.Now().Add(grace)
	for {
		before := err
		err = try()
		switch {
		case before != nil && api.CodeOf(err) == api.CodeTimeout:
			return before // that nobody was there says more than that time is over
		case api.CodeOf(err) != api.CodeUnreachable || time.Now().Add(retry).After(end):
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(retry):
		}
	}
}
