package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// spec is the config.json of a bundle, as its author wrote it.
type spec []byte

// The keys that say here what a container asks for, as annotations.
const (
	keyNetwork = "stellar.io/network"
	keyStrict  = "stellar.io/strict"
)

// wish is what can be known without an agent: the annotations. They tell less
// than the labels, which ctr copies to them and nerdctl does not. A container
// that is strict wants a network, unless it says that it wants none.
func (s spec) wish() (wanted, strict bool) {
	var c struct {
		Annotations map[string]string `json:"annotations"`
	}
	if err := json.Unmarshal(s, &c); err != nil {
		return false, false
	}
	network, asked := c.Annotations[keyNetwork]
	if network == "false" || network == "none" {
		return false, false
	}
	strict = c.Annotations[keyStrict] == "true"
	return asked || strict, strict
}

// hook is an entry of the spec's hooks.
type hook struct {
	Path    string   `json:"path"`
	Args    []string `json:"args,omitempty"`
	Timeout int      `json:"timeout,omitempty"` // s
}

// ours reports whether an entry is a hook of this program, maybe of another
// version or at another path.
func ours(entry []byte) bool {
	var h hook
	return json.Unmarshal(entry, &h) == nil && len(h.Args) > 1 && h.Args[1] == hookVerb
}

// errSpec is returned for a spec that is not as the runtime specification has it.
var errSpec = errors.New("not a runtime's configuration")

// withHook returns s with h as the last of the createRuntime hooks; every other
// byte stays as it was. A hook of ours that is there already gives way to h. h is
// last because the other hooks may make a network, too (nerdctl's does): it is
// then there to be seen, and the container gets stellar0 beside it. First, the two
// would fight for eth0. A strict container that fails here after nerdctl's hook has
// run loses nothing: the runtime runs its poststop hooks.
func (s spec) withHook(h hook) (spec, error) {
	entry, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	top, err := object(s, 0, len(s))
	if err != nil {
		return nil, err
	}
	hooks, err := top.member("hooks")
	if err != nil {
		return nil, err
	}
	list := append(append([]byte("["), entry...), ']')
	stage := append(append([]byte(`{"createRuntime":`), list...), '}')
	if hooks == nil {
		return s.insert(top, "hooks", stage), nil
	}
	if hooks.null(s) {
		return s.splice(hooks.from, hooks.to, stage), nil
	}
	stages, err := object(s, hooks.from, hooks.to)
	if err != nil {
		return nil, err
	}
	create, err := stages.member("createRuntime")
	if err != nil {
		return nil, err
	}
	if create == nil {
		return s.insert(stages, "createRuntime", list), nil
	}
	if create.null(s) {
		return s.splice(create.from, create.to, list), nil
	}
	entries, err := array(s, create.from, create.to)
	if err != nil {
		return nil, err
	}
	return s.appendEntry(*create, entries, entry), nil
}

// appendEntry adds an entry to the array that takes up the place of all.
func (s spec) appendEntry(all place, entries []place, entry []byte) spec {
	var keep [][]byte
	for _, e := range entries {
		if !ours(s[e.from:e.to]) {
			keep = append(keep, s[e.from:e.to])
		}
	}
	if n := len(entries); n > 0 && len(keep) == n {
		end := entries[n-1].to
		return s.splice(end, end, append([]byte(","), entry...))
	}
	list := append([]byte("["), bytes.Join(append(keep, entry), []byte(","))...)
	return s.splice(all.from, all.to, append(list, ']'))
}

// splice returns s with the bytes from…to replaced.
func (s spec) splice(from, to int, with []byte) spec {
	out := make([]byte, 0, len(s)+len(with))
	out = append(out, s[:from]...)
	out = append(out, with...)
	return append(out, s[to:]...)
}

// insert returns s with a first member in the object.
func (s spec) insert(o jsonObject, name string, value []byte) spec {
	text := append([]byte(`"`+name+`":`), value...)
	if len(o.members) > 0 {
		text = append(text, ',')
	}
	return s.splice(o.open, o.open, text)
}

// place is where a value stands in the spec.
type place struct{ from, to int }

func (p place) null(s spec) bool { return string(s[p.from:p.to]) == "null" }

// jsonObject is where the members of an object are.
type jsonObject struct {
	open    int // after the brace
	names   []string
	members []place
}

// member returns where the value of name is; nil: there is none. Runtimes written
// in Go take "Hooks" for "hooks", and none is known to be right about two of them.
func (o jsonObject) member(name string) (*place, error) {
	var found *place
	for i, n := range o.names {
		if !strings.EqualFold(n, name) {
			continue
		}
		if found != nil || n != name {
			return nil, fmt.Errorf("%w: %q besides or instead of %q", errSpec, n, name)
		}
		found = &o.members[i]
	}
	return found, nil
}

// object reads the object that takes up s[from:to].
func object(s spec, from, to int) (jsonObject, error) {
	r := newReader(s, from, to)
	if err := r.open('{'); err != nil {
		return jsonObject{}, err
	}
	o := jsonObject{open: r.at()}
	for r.dec.More() {
		token, err := r.dec.Token()
		name, ok := token.(string)
		if err != nil || !ok {
			return o, fmt.Errorf("%w: %v where a name should be: %v", errSpec, token, err)
		}
		p, err := r.value()
		if err != nil {
			return o, err
		}
		o.names, o.members = append(o.names, name), append(o.members, p)
	}
	return o, r.close()
}

// array reads the array that takes up s[from:to].
func array(s spec, from, to int) ([]place, error) {
	r := newReader(s, from, to)
	if err := r.open('['); err != nil {
		return nil, err
	}
	var out []place
	for r.dec.More() {
		p, err := r.value()
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, r.close()
}

// reader walks through one level of s[from:to].
type reader struct {
	s    spec
	from int
	dec  *json.Decoder
}

func newReader(s spec, from, to int) *reader {
	return &reader{s: s, from: from, dec: json.NewDecoder(bytes.NewReader(s[from:to]))}
}

func (r *reader) at() int { return r.from + int(r.dec.InputOffset()) }

func (r *reader) open(d json.Delim) error {
	token, err := r.dec.Token()
	if err != nil {
		return fmt.Errorf("%w: %w", errSpec, err)
	}
	if token != d {
		return fmt.Errorf("%w: %v where %v should be", errSpec, token, d)
	}
	return nil
}

func (r *reader) value() (place, error) {
	var raw json.RawMessage
	if err := r.dec.Decode(&raw); err != nil {
		return place{}, fmt.Errorf("%w: %w", errSpec, err)
	}
	to := r.at()
	p := place{from: to - len(raw), to: to}
	if p.from < r.from || !bytes.Equal(r.s[p.from:p.to], raw) {
		return p, fmt.Errorf("%w: cannot tell where a value stands", errSpec)
	}
	return p, nil
}

// close reads the closing bracket, behind which there must be nothing.
func (r *reader) close() error {
	if _, err := r.dec.Token(); err != nil {
		return fmt.Errorf("%w: %w", errSpec, err)
	}
	if token, err := r.dec.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: %v after the end", errSpec, token)
	}
	return nil
}

// replace makes the file hold data, at once, with owner and mode as they were.
// Nothing is synced: a bundle does not outlive a crash of the machine.
func replace(path string, data []byte) (err error) {
	st, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("%s is no regular file", path)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".config-*.json")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		err = f.Chown(int(sys.Uid), int(sys.Gid))
	}
	if err == nil {
		err = f.Chmod(st.Mode().Perm())
	}
	if err == nil {
		_, err = f.Write(data)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
