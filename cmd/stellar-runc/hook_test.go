package main

import (
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"

	"stellar.io/stellar/api"
)

const webState = `{"ociVersion":"1.0.2","id":"web","status":"creating","pid":4711,"bundle":"/b","annotations":{"a":"b"}}`

// runHook runs the hook as a runtime does: nothing in the environment.
func (b *bed) runHook(state string, args ...string) (int, string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, built, append([]string{hookVerb, "--address", "unix://" + b.socket, "--namespace", "default"}, args...)...)
	cmd.Env = []string{}
	cmd.Stdin = strings.NewReader(state)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		b.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), stderr.String()
}

func TestHook(t *testing.T) {
	t.Parallel()
	serve := func(a api.Asked, fail error) func(*bed) {
		return func(b *bed) {
			b.PutContainer(web, a)
			b.Fail("AwaitEndpoint", fail)
			b.serve()
		}
	}
	wanted := api.Asked{Wanted: true}
	for _, tc := range []struct {
		name  string
		state string
		agent func(*bed)
		why   string // empty: the container has its network
	}{
		{"up", webState, serve(wanted, nil), ""},
		{"asks for nothing after all", webState, serve(api.Asked{}, nil), ""},
		{"rejected", webState, serve(api.Asked{Wanted: true, Rejected: "host\nnetwork"}, nil), "host network"},
		{"refused", webState, serve(wanted, api.Errorf(api.CodeExhausted, "subnet full").WithHint("wait")), "subnet full (hint: wait)"},
		{"too late", webState, serve(wanted, api.Errorf(api.CodeTimeout, "no lease in time")), "no lease in time"},
		{"no agent", webState, func(*bed) {}, "the socket does not exist"},
		{"nobody listens", webState, (*bed).refuse, "nobody listens"},
		{"no state", "", serve(wanted, nil), "the runtime's state"},
		{"half a state", `{"id":"web"`, serve(wanted, nil), "the runtime's state"},
		{"no process", `{"id":"web","pid":0}`, serve(wanted, nil), `container "web" with process 0`},
		{"process 1", `{"id":"web","pid":1}`, serve(wanted, nil), `container "web" with process 1`},
		{"no container", `{"pid":77}`, serve(wanted, nil), `container "" with process 77`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, plainConfig)
			tc.agent(b)
			code, stderr := b.runHook(tc.state)
			wantErr := "stellar: warning: container default/"
			if tc.why == "" {
				wantErr = ""
			}
			if code != 0 || !strings.HasPrefix(stderr, wantErr) || !strings.Contains(stderr, tc.why) || tc.why == "" && stderr != "" {
				t.Errorf("exit code %d, stderr %q", code, stderr)
			}
			code, stderr = b.runHook(tc.state, "--strict")
			wantCode := 1
			if tc.why == "" {
				wantCode = 0
			}
			if code != wantCode || !strings.Contains(stderr, tc.why) || strings.Count(stderr, "\n") != wantCode {
				t.Errorf("strict: exit code %d, stderr %q", code, stderr)
			}
			if wantCode != 0 && !strings.Contains(stderr, "must not run without its network") {
				t.Errorf("strict: stderr %q", stderr)
			}
		})
	}
}

// TestHookOfMuteAgent: a container that is not strict waits for two seconds.
func TestHookOfMuteAgent(t *testing.T) {
	t.Parallel()
	b := newBed(t, plainConfig)
	b.mute()
	began := time.Now()
	code, stderr := b.runHook(webState)
	if d := time.Since(began); code != 0 || d < lenientTime-100*time.Millisecond || d > 15*time.Second || !strings.Contains(stderr, "no answer from the agent in time") {
		t.Errorf("exit code %d after %s, stderr %q", code, d, stderr)
	}
}

func TestHookUsage(t *testing.T) {
	t.Parallel()
	b := newBed(t, plainConfig)
	if code, stderr := b.runHook(webState, "--unknown"); code != 1 || !strings.Contains(stderr, "unknown") {
		t.Errorf("exit code %d, stderr %q", code, stderr)
	}
}

// flaky is an agent that is away for some calls.
type flaky struct {
	agent
	away, calls int
}

func (f *flaky) Await(context.Context, api.ContainerRef, int) (api.Awaited, error) {
	if f.calls++; f.calls <= f.away {
		return api.Awaited{}, api.Errorf(api.CodeUnreachable, "away")
	}
	return api.Awaited{Wanted: true}, nil
}

func TestAwaitFindsAgentAgain(t *testing.T) {
	t.Parallel()
	f := &flaky{away: 3}
	if err := await(f, web, 4711, time.Minute); err != nil || f.calls != 4 {
		t.Errorf("%v after %d calls", err, f.calls)
	}
	f = &flaky{away: 1 << 30}
	began := time.Now()
	if err := await(f, web, 4711, strictTime); api.CodeOf(err) != api.CodeUnreachable || time.Since(began) > strictTime {
		t.Errorf("%v after %s", err, time.Since(began))
	}
}
