package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"syscall"
	"testing"
)

// testHook and the entry that it becomes.
var testHook = hook{Path: "/bin/x", Args: []string{"x", hookVerb}, Timeout: 5}

const testEntry = `{"path":"/bin/x","args":["x","` + hookVerb + `"],"timeout":5}`

func TestWithHook(t *testing.T) {
	t.Parallel()
	const nerdctl = `{ "path" : "/usr/bin/nerdctl", "args": ["nerdctl","internal","oci-hook","createRuntime"], "env":["A=<&>"] }`
	for _, tc := range []struct{ name, in, want string }{
		{"empty", `{}`, `{"hooks":{"createRuntime":[` + testEntry + `]}}`},
		{"no hooks", "{\n \"ociVersion\": \"1.0.2\",\n \"x\": 1e400 }\n", "{\"hooks\":{\"createRuntime\":[" + testEntry + "]},\n \"ociVersion\": \"1.0.2\",\n \"x\": 1e400 }\n"},
		{"null hooks", `{"a":"<&>","hooks": null ,"b":[1, 2]}`, `{"a":"<&>","hooks": {"createRuntime":[` + testEntry + `]} ,"b":[1, 2]}`},
		{"empty hooks", `{"hooks":{ }}`, `{"hooks":{"createRuntime":[` + testEntry + `] }}`},
		{"other stages", `{"hooks":{"poststop":[` + nerdctl + `]},"z":0.10}`, `{"hooks":{"createRuntime":[` + testEntry + `],"poststop":[` + nerdctl + `]},"z":0.10}`},
		{"null stage", `{"hooks":{"createRuntime":null}}`, `{"hooks":{"createRuntime":[` + testEntry + `]}}`},
		{"empty stage", `{"hooks":{"createRuntime": [ ] }}`, `{"hooks":{"createRuntime": [` + testEntry + `] }}`},
		{"behind nerdctl's", `{"hooks":{"createRuntime":[ ` + nerdctl + ` ],"prestart":[]}}`,
			`{"hooks":{"createRuntime":[ ` + nerdctl + `,` + testEntry + ` ],"prestart":[]}}`},
		{"again", `{"hooks":{"createRuntime":[` + nerdctl + `,` + testEntry + `]}}`, `{"hooks":{"createRuntime":[` + nerdctl + `,` + testEntry + `]}}`},
		{"instead of an older one", `{"hooks":{"createRuntime":[{"path":"/old","args":["y","` + hookVerb + `","--strict"]},` + nerdctl + `]}}`,
			`{"hooks":{"createRuntime":[` + nerdctl + `,` + testEntry + `]}}`},
		{"a name in other letters", `{"\u0068ooks":{}}`, `{"\u0068ooks":{"createRuntime":[` + testEntry + `]}}`},
		{"entries that are none", `{"hooks":{"createRuntime":[1,"x",null]}}`, `{"hooks":{"createRuntime":[1,"x",null,` + testEntry + `]}}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := spec(tc.in).withHook(testHook)
			if err != nil || string(got) != tc.want {
				t.Fatalf("got  %s, %v\nwant %s", got, err, tc.want)
			}
			again, err := got.withHook(testHook)
			if err != nil || string(again) != string(got) {
				var one, two any
				if json.Unmarshal(got, &one) != nil || json.Unmarshal(again, &two) != nil || !reflect.DeepEqual(one, two) {
					t.Errorf("again: %s, %v", again, err)
				}
			}
		})
	}
}

func TestWithHookRefuses(t *testing.T) {
	t.Parallel()
	for _, in := range []string{
		``, `x`, `[]`, `null`, `7`, `{`, `{"a":1`, `{"a":1}}`, `{} {}`, `{"a" 1}`, `{"hooks":[]}`, `{"hooks":7}`, `{"hooks":{"createRuntime":{}}}`,
		`{"hooks":{"createRuntime":"x"}}`, `{"hooks":{},"hooks":{}}`, `{"Hooks":{}}`, `{"hooks":{},"HOOKS":{}}`, `{"hooks":{"createruntime":[]}}`,
	} {
		if got, err := spec(in).withHook(testHook); !errors.Is(err, errSpec) {
			t.Errorf("%s: %s, %v", in, got, err)
		}
	}
}

func TestWish(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		in             string
		wanted, strict bool
	}{
		{in: `{"annotations":{"stellar.io/network":"true"}}`, wanted: true},
		{in: `{"annotations":{"stellar.io/network":"true","stellar.io/strict":"true"}}`, wanted: true, strict: true},
		{in: `{"annotations":{"stellar.io/network":"true","stellar.io/strict":"false"}}`, wanted: true},
		{in: `{"annotations":{"stellar.io/strict":"true"}}`, wanted: true, strict: true}, // the network is asked for by a label
		{in: `{"annotations":{"stellar.io/network":"none","stellar.io/strict":"true"}}`},
		{in: `{"annotations":{"stellar.io/network":"false"}}`},
		{in: `{"annotations":{"other":"true"}}`},
		{in: `{"annotations":null}`},
		{in: `{"annotations":{"stellar.io/strict":true}}`},
		{in: `{}`}, {in: `[]`}, {in: ``},
	} {
		if wanted, strict := spec(tc.in).wish(); wanted != tc.wanted || strict != tc.strict {
			t.Errorf("%s: wanted %t, strict %t", tc.in, wanted, strict)
		}
	}
}

func TestReplace(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(path, []byte("old"), 0o640); err != nil {
		t.Fatal(err)
	}
	wantUID := os.Getuid()
	if wantUID == 0 {
		wantUID = 4711
		if err := os.Chown(path, wantUID, 4712); err != nil {
			t.Fatal(err)
		}
	}
	if err := replace(path, []byte("new")); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	st, err2 := os.Stat(path)
	if err != nil || err2 != nil || string(data) != "new" || st.Mode() != 0o640 || int(st.Sys().(*syscall.Stat_t).Uid) != wantUID {
		t.Errorf("%q, %v, %v, %v", data, st.Mode(), err, err2)
	}
	link := path + ".link"
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{link, path + ".none", filepath.Dir(path)} {
		if err := replace(bad, []byte("x")); err == nil {
			t.Errorf("replaced %s", bad)
		}
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".config-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

// FuzzWithHook: of a valid specification nothing is lost, whatever it holds, and
// our hook is the last of its stage, once.
func FuzzWithHook(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"hooks":null}`, `{"hooks":{"createRuntime":[{"path":"/a"}],"poststop":[]},"a":[1,{"b":"\u00e9\ud800"}]}`, "{\"\xff\":0}",
		`{"hooks":{"createRuntime":[` + testEntry + `,{}]}}`, `{"hooks":{},"hooks":{}}`, `{"a":1}x`, ` {"a" : -0.0e-1 , "b":true}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := spec(in).withHook(testHook)
		if err != nil {
			if !errors.Is(err, errSpec) {
				t.Errorf("error %v", err)
			}
			return
		}
		var was, is map[string]json.RawMessage
		if err := json.Unmarshal(in, &was); err != nil {
			t.Fatalf("took what is no object: %q: %v", in, err)
		}
		if err := json.Unmarshal(got, &is); err != nil {
			t.Fatalf("%q became %q: %v", in, got, err)
		}
		for name, value := range was {
			if name != "hooks" && string(is[name]) != string(value) {
				t.Errorf("%q: %q became %q", name, value, is[name])
			}
		}
		if _, had := was["hooks"]; had != (len(is) == len(was)) {
			t.Errorf("%d members became %d", len(was), len(is))
		}
		hooksOf := func(m map[string]json.RawMessage) (stages map[string]json.RawMessage, create []json.RawMessage) {
			if m["hooks"] == nil {
				return nil, nil
			}
			if err := json.Unmarshal(m["hooks"], &stages); err != nil {
				t.Fatal(err)
			}
			if stages["createRuntime"] != nil {
				if err := json.Unmarshal(stages["createRuntime"], &create); err != nil {
					t.Fatal(err)
				}
			}
			return stages, create
		}
		stagesBefore, before := hooksOf(was)
		stagesAfter, after := hooksOf(is)
		for name, value := range stagesBefore {
			if name != "createRuntime" && string(stagesAfter[name]) != string(value) {
				t.Errorf("stage %q: %q became %q", name, value, stagesAfter[name])
			}
		}
		if len(after) == 0 || string(after[len(after)-1]) != testEntry {
			t.Fatalf("ours is not the last: %q", after)
		}
		i := 0
		for _, e := range before {
			if ours(e) {
				continue
			}
			if i >= len(after) || string(after[i]) != string(e) {
				t.Fatalf("hook %q is lost", e)
			}
			i++
		}
		if i != len(after)-1 {
			t.Errorf("%d hooks of others became %d", i, len(after)-1)
		}
	})
}
