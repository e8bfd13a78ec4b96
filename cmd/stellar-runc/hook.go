package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"stellar.io/stellar/api"
	"stellar.io/stellar/internal/attachclient"
)

// hookVerb makes the program the createRuntime hook. No runtime has such a verb.
const hookVerb = "stellar-hook"

// How long a container waits for its network. The runtime's own limit is later,
// since a hook that it kills fails the container, strict or not.
const (
	strictTime  = 10 * time.Second
	lenientTime = 2 * time.Second
	runtimeTime = 3 * time.Second // more
)

func hookTime(strict bool) time.Duration {
	if strict {
		return strictTime
	}
	return lenientTime
}

// addHook puts our hook into the config at path, whose content is s.
func (s spec) addHook(path string, ref api.ContainerRef, address string, strict bool) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	// The runtime may run hooks without any environment: all is in the arguments.
	h := hook{
		Path:    self,
		Args:    []string{"stellar-runc", hookVerb, "--address", address, "--namespace", ref.Namespace},
		Timeout: int((hookTime(strict) + runtimeTime) / time.Second),
	}
	if strict {
		h.Args = append(h.Args, "--strict")
	}
	changed, err := s.withHook(h)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return replace(path, changed)
}

// state is the part of the OCI state that a hook needs.
type state struct {
	ID  string `json:"id"`
	PID int    `json:"pid"`
}

// hookMain waits for the network of the container whose state it reads, and
// returns the exit code: 1 keeps the container from being created.
func hookMain(args []string, stdin io.Reader, stderr io.Writer) int {
	flags := flag.NewFlagSet(hookVerb, flag.ContinueOnError)
	flags.SetOutput(stderr)
	address := flags.String("address", api.DefaultAddress, "where the agent serves")
	namespace := flags.String("namespace", "", "containerd's namespace")
	strict := flags.Bool("strict", false, "fail without a network")
	if err := flags.Parse(args); err != nil {
		return 1
	}
	ref := api.ContainerRef{Namespace: *namespace}
	st, err := readState(stdin)
	if err == nil {
		ref.Container = st.ID
		err = await(attachclient.New(*address), ref, st.PID, hookTime(*strict))
	}
	switch {
	case err == nil:
		return 0
	case *strict:
		fmt.Fprintf(stderr, "stellar: %v\n", noNetwork(ref, err))
		return 1
	}
	fmt.Fprintf(stderr, "stellar: warning: container %s/%s starts without its network: %s\n", ref.Namespace, ref.Container, reason(err))
	return 0
}

func readState(r io.Reader) (state, error) {
	const most = 4 << 20 // bytes; annotations are in it
	var st state
	if err := json.NewDecoder(io.LimitReader(r, most)).Decode(&st); err != nil {
		return st, fmt.Errorf("the runtime's state of the container: %w", err)
	}
	if !validID(st.ID) || st.PID <= 1 {
		return st, fmt.Errorf("the runtime's state names container %q with process %d", st.ID, st.PID)
	}
	return st, nil
}

// await returns nil when the container has its network, or wants none.
func await(a agent, ref api.ContainerRef, pid int, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return again(ctx, min(patience, limit), func() error {
		_, err := a.Await(ctx, ref, pid)
		return err
	})
}
