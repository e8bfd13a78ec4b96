package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"stellar.io/stellar/api"
)

// reached fails the test unless the runtime was called with args, and ended as it did.
func (b *bed) reached(code int, stderr string, args []string) *report {
	b.t.Helper()
	r := b.became()
	if r == nil || code != runtimeExit {
		b.t.Fatalf("the runtime was not reached: exit code %d, %s", code, stderr)
	}
	if !slices.Equal(r.Args[1:], args) {
		b.t.Errorf("the runtime got %q, want %q", r.Args[1:], args)
	}
	return r
}

func TestOtherVerbsPassUntouched(t *testing.T) {
	t.Parallel()
	for _, line := range []string{
		"", "--version", "list -f json", "--root /run/containerd/runc/default --log L --log-format json delete --force web",
		"--root R start web", "--root R exec --process /p --pid-file F --detach web", "kill --all web 9", "ps --format json web",
		"checkpoint --image-path /i --leave-running web", "restore --bundle B --image-path /i web", "events --stats web", "update --resources - web",
		"--unknown create --bundle B web", "create", "features", "create --bundle /nowhere web", "--root /run/runc run c1",
	} {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, plainConfig)
			calls := b.mute()
			args := strings.Fields(line)
			code, stderr := b.run(args...)
			r := b.reached(code, stderr, args)
			if n := calls(); n != 0 || stderr != "" {
				t.Errorf("%d calls of the agent, stderr %q", n, stderr)
			}
			env := slices.DeleteFunc(r.Env, func(e string) bool { return strings.HasPrefix(e, envBecame+"=") })
			if !slices.Equal(env, b.env) {
				t.Errorf("environment %q, want %q", env, b.env)
			}
			if got := b.config(); got != plainConfig {
				t.Errorf("config.json is %s", got)
			}
		})
	}
}

func TestCreate(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		asked  api.Asked
		hook   []string // arguments after the address; nil: none
		limit  int
		stderr string
	}{
		{name: "asks for a network", asked: api.Asked{Wanted: true}, hook: []string{"--namespace", "default"}, limit: 5},
		{name: "strict", asked: api.Asked{Wanted: true, Strict: true}, hook: []string{"--namespace", "default", "--strict"}, limit: 13},
		{name: "asks for nothing", asked: api.Asked{}},
		{name: "rejected", asked: api.Asked{Wanted: true, Rejected: "bad\nip"}, stderr: "container default/web starts without its network: rejected: bad ip"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, plainConfig)
			b.PutContainer(web, tc.asked)
			b.serve()
			for range 2 { // a second time changes nothing
				code, stderr := b.run(b.createArgs()...)
				b.reached(code, stderr, b.createArgs())
				if !strings.Contains(stderr, tc.stderr) || tc.stderr == "" && stderr != "" || strings.Count(stderr, "\n") > 1 {
					t.Errorf("stderr %q", stderr)
				}
				if tc.hook == nil {
					if got := b.config(); got != plainConfig {
						t.Errorf("config.json is %s", got)
					}
					continue
				}
				want := append([]string{"stellar-runc", hookVerb, "--address", "unix://" + b.socket}, tc.hook...)
				h := b.hooks()
				if len(h) != 1 || h[0].Path != built || !slices.Equal(h[0].Args, want) || h[0].Timeout != tc.limit {
					t.Errorf("hooks %+v, want %q", h, want)
				}
				if want := plainConfig[1:][:20]; !strings.Contains(b.config(), want) {
					t.Errorf("config.json is %s", b.config())
				}
			}
		})
	}
}

// TestCreateRun: `run` and a bundle that is the current directory are served, too.
func TestCreateRun(t *testing.T) {
	t.Parallel()
	b := newBed(t, plainConfig)
	b.PutContainer(web, api.Asked{Wanted: true})
	b.serve()
	cmd := exec.Command(built, "run", "web")
	cmd.Env, cmd.Dir = b.env, b.bundle
	err := cmd.Run()
	if b.became() == nil || len(b.hooks()) != 1 {
		t.Errorf("%v: %s", err, b.config())
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	const strict = `{"annotations":{"stellar.io/network":"true","stellar.io/strict":"true"}}`
	for _, tc := range []struct {
		name, config string
		asked        *api.Asked
		fail         error
		agent        func(*bed)
		want         string
	}{
		{name: "rejected", config: plainConfig, asked: &api.Asked{Wanted: true, Strict: true, Rejected: "address 172.16.0.9 is taken"}, agent: (*bed).serve,
			want: "rejected: address 172.16.0.9 is taken"},
		{name: "no agent", config: strict, agent: func(*bed) {}, want: "the socket does not exist"},
		{name: "nobody listens", config: strict, agent: (*bed).refuse, want: "nobody listens"},
		{name: "mute", config: strict, agent: func(b *bed) { b.mute() }, want: "no answer from the agent in time"},
		{name: "unknown container", config: strict, agent: (*bed).serve, want: "no container default/web"},
		{name: "no cluster", config: strict, agent: (*bed).serve, fail: api.Errorf(api.CodeNotInitialized, "no cluster yet").WithHint("make one"), want: "no cluster yet (hint: make one)"},
		{name: "odd config", config: `{"Hooks":{}}`, asked: &api.Asked{Wanted: true, Strict: true}, agent: (*bed).serve, want: `"Hooks" besides or instead of "hooks"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, tc.config)
			if tc.asked != nil {
				b.PutContainer(web, *tc.asked)
			}
			b.Fail("Asked", tc.fail)
			tc.agent(b)
			code, stderr := b.run(b.createArgs()...)
			if code != 1 || b.became() != nil {
				t.Errorf("exit code %d, became %+v", code, b.became())
			}
			told := b.lastError()
			if !strings.HasPrefix(told, "stellar-runc: container default/web must not run without its network (stellar.io/strict=true): ") || !strings.Contains(told, tc.want) {
				t.Errorf("the log says %q, want %q", told, tc.want)
			}
			if stderr != told+"\n" {
				t.Errorf("stderr %q, log %q", stderr, told)
			}
			if got := b.config(); got != tc.config {
				t.Errorf("config.json is %s", got)
			}
		})
	}
}

// TestWithoutAgent: a container that is not strict starts, soon and untouched.
func TestWithoutAgent(t *testing.T) {
	t.Parallel()
	const network = `{"annotations":{"stellar.io/network":"true"}}`
	const warning = "warning: container default/web starts without its network: "
	for _, tc := range []struct {
		name, config string
		agent        func(*bed)
		want         string // on stderr; empty: nothing
	}{
		{"no agent", plainConfig, func(*bed) {}, ""},
		{"nobody listens", plainConfig, (*bed).refuse, ""},
		{"mute", plainConfig, func(b *bed) { b.mute() }, ""},
		{"unknown container", plainConfig, (*bed).serve, ""},
		{"no agent, asked by annotation", network, func(*bed) {}, warning + "no agent at "},
		{"mute, asked by annotation", network, func(b *bed) { b.mute() }, warning + "no answer"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, tc.config)
			tc.agent(b)
			began := time.Now()
			code, stderr := b.run(b.createArgs()...)
			b.reached(code, stderr, b.createArgs())
			if d := time.Since(began); d > 10*time.Second {
				t.Errorf("took %s", d)
			}
			if !strings.Contains(stderr, tc.want) || tc.want == "" && stderr != "" || strings.Count(stderr, "\n") > 1 {
				t.Errorf("stderr %q", stderr)
			}
			if got := b.config(); got != tc.config {
				t.Errorf("config.json is %s", got)
			}
		})
	}
}

// TestAgentComesBack: a strict container waits for an agent that is being
// restarted.
func TestAgentComesBack(t *testing.T) {
	t.Parallel()
	b := newBed(t, `{"annotations":{"stellar.io/strict":"true"}}`)
	b.PutContainer(web, api.Asked{Wanted: true, Strict: true})
	back := time.AfterFunc(500*time.Millisecond, b.serve)
	defer back.Stop()
	code, stderr := b.run(b.createArgs()...)
	b.reached(code, stderr, b.createArgs())
	if len(b.hooks()) != 1 {
		t.Errorf("config.json is %s, stderr %q", b.config(), stderr)
	}
}

// TestMalformedConfig: it is the runtime that complains about it.
func TestMalformedConfig(t *testing.T) {
	t.Parallel()
	for _, config := range []string{"", "{", `{"a":}`, `{"hooks":{}`, "\x00\xff", `{"annotations":{"stellar.io/strict":"true"}`} {
		b := newBed(t, config)
		b.PutContainer(web, api.Asked{Wanted: true, Strict: true})
		b.serve()
		code, stderr := b.run(b.createArgs()...)
		b.reached(code, stderr, b.createArgs())
		if got := b.config(); got != config || stderr != "" {
			t.Errorf("%q became %q, stderr %q", config, got, stderr)
		}
	}
	b := newBed(t, "")
	if err := os.Remove(filepath.Join(b.bundle, "config.json")); err != nil {
		t.Fatal(err)
	}
	code, stderr := b.run(b.createArgs()...)
	b.reached(code, stderr, b.createArgs())
}

func TestWhichRuntime(t *testing.T) {
	t.Parallel()
	const env, args = envRuntime + "=", "list"
	runtimeAt := func(t *testing.T, b *bed, path ...string) string {
		t.Helper()
		to := filepath.Join(append([]string{b.dir}, path...)...)
		self, err := os.Executable()
		if err == nil {
			err = os.MkdirAll(filepath.Dir(to), 0o700)
		}
		if err == nil {
			err = os.Symlink(self, to)
		}
		if err != nil {
			t.Fatal(err)
		}
		return to
	}
	linkTo := func(t *testing.T, program string, path ...string) string {
		t.Helper()
		to := filepath.Join(path...)
		err := os.MkdirAll(filepath.Dir(to), 0o700)
		if err == nil {
			err = os.Symlink(program, to)
		}
		if err != nil {
			t.Fatal(err)
		}
		return to
	}
	set := func(b *bed, name, value string) {
		b.env = append(slices.DeleteFunc(b.env, func(e string) bool { return strings.HasPrefix(e, name+"=") }), name+"="+value)
	}
	for _, tc := range []struct {
		name string
		prep func(t *testing.T, b *bed) (program, want string) // want: the runtime, or what stderr says without one
		fail bool
	}{
		{name: "runc in PATH, behind this program under its name", prep: func(t *testing.T, b *bed) (string, string) {
			linkTo(t, built, b.dir, "a", "runc")
			set(b, "PATH", b.dir+"/a:relative::"+b.dir+"/b")
			set(b, envRuntime, "")
			return built, runtimeAt(t, b, "b", "runc")
		}},
		{name: "by this program's name", prep: func(t *testing.T, b *bed) (string, string) {
			set(b, "PATH", b.dir+"/b")
			set(b, envRuntime, "")
			return linkTo(t, built, b.dir, "a", "stellar-crun"), runtimeAt(t, b, "b", "crun")
		}},
		{name: "another name means runc", prep: func(t *testing.T, b *bed) (string, string) {
			set(b, "PATH", b.dir+"/b")
			set(b, envRuntime, "")
			return linkTo(t, built, b.dir, "a", "wrapped"), runtimeAt(t, b, "b", "runc")
		}},
		{name: "a name in the environment", prep: func(t *testing.T, b *bed) (string, string) {
			set(b, "PATH", b.dir+"/b")
			set(b, envRuntime, "youki")
			return built, runtimeAt(t, b, "b", "youki")
		}},
		{name: "none", fail: true, prep: func(t *testing.T, b *bed) (string, string) {
			set(b, "PATH", b.dir+"/b")
			set(b, envRuntime, "")
			return built, `no runtime "runc" in PATH (` + b.dir + `/b)`
		}},
		{name: "itself by path", fail: true, prep: func(t *testing.T, b *bed) (string, string) {
			set(b, envRuntime, built)
			return built, "is stellar-runc itself"
		}},
		{name: "a directory", fail: true, prep: func(t *testing.T, b *bed) (string, string) {
			set(b, envRuntime, b.dir)
			return built, "permission denied"
		}},
		{name: "nothing there", fail: true, prep: func(t *testing.T, b *bed) (string, string) {
			set(b, envRuntime, "/nowhere/runc")
			return built, "no such file"
		}},
		{name: "no program", fail: true, prep: func(t *testing.T, b *bed) (string, string) {
			path := filepath.Join(b.dir, "x")
			if err := os.WriteFile(path, []byte("\x7fELF"), 0o700); err != nil {
				t.Fatal(err)
			}
			set(b, envRuntime, path)
			return built, "exec format error"
		}},
		{name: "a script that calls it again", fail: true, prep: func(t *testing.T, b *bed) (string, string) {
			path := filepath.Join(b.dir, "runc")
			if err := os.WriteFile(path, []byte("#!/bin/sh\nexec "+built+" \"$@\"\n"), 0o700); err != nil {
				t.Fatal(err)
			}
			set(b, envRuntime, path)
			return built, "is stellar-runc again"
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, plainConfig)
			program, want := tc.prep(t, b)
			code, stderr := b.runAs(program, "--log", b.log, "--log-format", "json", args)
			r := b.became()
			switch {
			case !tc.fail && (r == nil || r.Args[0] != want):
				t.Errorf("became %+v, want %s: %s", r, want, stderr)
			case tc.fail && (r != nil || code != 1 || !strings.Contains(stderr, want) || b.lastError()+"\n" != stderr):
				t.Errorf("exit code %d, became %+v, stderr %q, log %q, want %q", code, r, stderr, b.lastError(), want)
			}
		})
	}
}

// TestProcessIsHandedOver: the runtime is the same process, with the signals and
// limits that containerd's shim has given it.
func TestProcessIsHandedOver(t *testing.T) {
	t.Parallel()
	runtime.LockOSThread() // the death of this thread would be the parent's death
	defer runtime.UnlockOSThread()
	b := newBed(t, plainConfig)
	b.PutContainer(web, api.Asked{Wanted: true})
	b.serve()
	for range 10 {
		cmd := exec.Command(built, b.createArgs()...)
		cmd.Env, cmd.SysProcAttr = b.env, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		_ = cmd.Run()
		r := b.became()
		if r == nil || r.DeathSig != int32(syscall.SIGKILL) || r.PID != cmd.Process.Pid || r.Blocked != strings.Repeat("0", 16) {
			t.Fatalf("became %+v, process %d", r, cmd.Process.Pid)
		}
	}
	out := filepath.Join(b.dir, "limits")
	script := filepath.Join(b.dir, "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nulimit -Sn >"+out+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", "ulimit -Sn 512; exec "+built+" list")
	cmd.Env = append(b.env, envRuntime+"="+script)
	said, err := cmd.CombinedOutput()
	data, err2 := os.ReadFile(out)
	if err != nil || err2 != nil || strings.TrimSpace(string(data)) != "512" {
		t.Errorf("soft limit of files %q, want 512: %v %v %s", data, err, err2, said)
	}
}

func TestFailText(t *testing.T) {
	t.Parallel()
	b := newBed(t, plainConfig)
	b.env = append(b.env, envRuntime+"=/nowhere")
	code, stderr := b.run("--log", b.log, "list")
	data, err := os.ReadFile(b.log)
	if code != 1 || err != nil || !strings.Contains(string(data), `level=error msg="stellar-runc: the runtime /nowhere`) || stderr == "" {
		t.Errorf("exit code %d, log %q, %v, stderr %q", code, data, err, stderr)
	}
}
