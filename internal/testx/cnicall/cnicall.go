// Package cnicall replays calls of CNI plugins that were recorded from their real
// clients (testdata/cni).
package cnicall

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/txtar"
)

// Call is one call of a plugin.
type Call struct {
	Name    string   // "2 ADD", of the file
	Command string   // CNI_COMMAND
	Env     []string // CNI_…
	Stdin   string
}

// Load reads a file of recorded calls.
func Load(path string) ([]Call, error) {
	ar, err := txtar.ParseFile(path)
	if err != nil {
		return nil, err
	}
	var out []Call
	for _, f := range ar.Files {
		words := strings.Fields(f.Name)
		env, stdin, ok := strings.Cut("\n"+string(f.Data), "\n\n")
		if !ok || len(words) < 2 {
			return nil, fmt.Errorf("%s: %q has no number, verb and blank line before its configuration", path, f.Name)
		}
		c := Call{Name: f.Name, Command: words[1], Stdin: stdin}
		for line := range strings.Lines(env) {
			if line = strings.TrimSpace(line); line != "" {
				c.Env = append(c.Env, line)
			}
		}
		c.Env = append(c.Env, "CNI_COMMAND="+c.Command)
		out = append(out, c)
	}
	return out, nil
}

// With returns the call with $KEY replaced by its value.
func (c Call) With(values map[string]string) Call {
	expand := func(s string) string {
		return os.Expand(s, func(key string) string {
			if v, ok := values[key]; ok {
				return v
			}
			return "$" + key
		})
	}
	env := make([]string, len(c.Env))
	for i, kv := range c.Env {
		env[i] = expand(kv)
	}
	c.Env, c.Stdin = env, expand(c.Stdin)
	return c
}

// Answer is what a plugin said.
type Answer struct {
	Code           int
	Stdout, Stderr string
}

// Error is CNI's error in a.
type Error struct {
	Code    uint   `json:"code"`
	Msg     string `json:"msg"`
	Details string `json:"details"`
}

// Error returns the error that the plugin reported; nil for success. What breaks
// the protocol is an error of its own: code 0.
func (a Answer) Error() *Error {
	if a.Code == 0 {
		return nil
	}
	e := new(Error)
	if err := json.Unmarshal([]byte(a.Stdout), e); err != nil || e.Code == 0 || e.Msg == "" {
		return &Error{Msg: fmt.Sprintf("exit code %d without an error of CNI's: %q %q", a.Code, a.Stdout, a.Stderr)}
	}
	return e
}

// Run executes the plugin at path for the call. Variables of env go before the
// call's; nothing else is inherited.
func (c Call) Run(ctx context.Context, path string, env ...string) (Answer, error) {
	cmd := exec.CommandContext(ctx, path)
	cmd.Env = append(append([]string{"CNI_PATH=" + filepath.Dir(path)}, env...), c.Env...)
	cmd.Stdin = strings.NewReader(c.Stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if _, ok := errors.AsType[*exec.ExitError](err); ok && ctx.Err() == nil {
		err = nil
	}
	if err != nil {
		return Answer{}, fmt.Errorf("%s: %w: %s", c.Name, err, stderr.String())
	}
	return Answer{Code: cmd.ProcessState.ExitCode(), Stdout: stdout.String(), Stderr: stderr.String()}, nil
}
