package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
)

const (
	// envRuntime is the runtime to become: a path, or a name to look for in PATH.
	envRuntime = "STELLAR_RUNC_RUNTIME"
	// envBecame has the process that has become a runtime. Whoever finds himself in
	// it is no runtime, but a second copy of this program that was taken for one.
	envBecame = "STELLAR_RUNC_PID"

	prefix         = "stellar-" // stellar-crun becomes crun
	defaultRuntime = "runc"
	defaultPath    = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// findRuntime returns the path of the real runtime, which is never this program.
// argv0 is the name this program was called by.
func findRuntime(argv0 string, getenv func(string) string) (string, error) {
	self, err := os.Stat("/proc/self/exe")
	if err != nil {
		return "", err
	}
	if getenv(envBecame) == strconv.Itoa(os.Getpid()) {
		return "", fmt.Errorf("the runtime that was found is stellar-runc again; say in %s which one is meant", envRuntime)
	}
	name := getenv(envRuntime)
	if name == "" {
		name = strings.TrimPrefix(filepath.Base(argv0), prefix)
		if name == filepath.Base(argv0) || name == "" {
			name = defaultRuntime
		}
	}
	if strings.Contains(name, "/") {
		if err := isRuntime(name, self); err != nil {
			return "", fmt.Errorf("the runtime %s that %s names: %w", name, envRuntime, err)
		}
		return name, nil
	}
	path := getenv("PATH")
	if path == "" {
		path = defaultPath
	}
	for _, dir := range filepath.SplitList(path) {
		candidate := filepath.Join(dir, name)
		if filepath.IsAbs(dir) && isRuntime(candidate, self) == nil {
			return candidate, nil
		}
	}
	return "", fmt.Errorf("no runtime %q in PATH (%s); %s can name one", name, path, envRuntime)
}

var errSelf = errors.New("is stellar-runc itself")

func isRuntime(path string, self fs.FileInfo) error {
	st, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case os.SameFile(st, self):
		return errSelf
	case !st.Mode().IsRegular() || st.Mode()&0o111 == 0:
		return fs.ErrPermission
	}
	return nil
}

// execRuntime makes this process the runtime; it returns only if that fails.
// Must be called on the main thread.
func execRuntime(path string, args []string) error {
	env := make([]string, 0, len(os.Environ())+1)
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, envBecame+"=") {
			env = append(env, e)
		}
	}
	env = append(env, envBecame+"="+strconv.Itoa(os.Getpid()))
	err := syscall.Exec(path, append([]string{path}, args...), env)
	return fmt.Errorf("become %s: %w", path, err)
}

// fail tells why there will be no container, on stderr and in the log that the
// runtime was told to write: containerd takes its error message from there.
func (w wrapper) fail(inv invocation, err error) int {
	text := "stellar-runc: " + oneLine(err.Error())
	fmt.Fprintln(w.stderr, text)
	if inv.log == "" {
		return 1
	}
	now := time.Now().UTC().Format(time.RFC3339)
	line := fmt.Sprintf("time=%q level=error msg=%q\n", now, text)
	if inv.logFormat == "json" {
		data, err := json.Marshal(map[string]string{"level": "error", "msg": text, "time": now})
		if err != nil {
			return 1
		}
		line = string(data) + "\n"
	}
	if f, err := os.OpenFile(inv.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY|syscall.O_CLOEXEC, 0o644); err == nil {
		_, _ = f.WriteString(line) // stderr has it, too
		_ = f.Close()
	}
	return 1
}

// oneLine keeps text of others from breaking the line or moving the cursor.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
}
