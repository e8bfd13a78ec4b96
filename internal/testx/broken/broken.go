// Package broken reads testdata/broken: set-ups that are broken, with the right cause
// of each, and healthy ones.
package broken

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/pelletier/go-toml/v2"
)

// List is the whole of it.
type List struct {
	Broken  []Setup `toml:"broken"`
	Healthy []Setup `toml:"healthy"`
}

// Setup is one set-up; testdata/broken/README.md says what the fields mean.
type Setup struct {
	Name       string            `toml:"name"`
	About      string            `toml:"about"`
	On         string            `toml:"on"`
	Stop       []string          `toml:"stop"`
	Pause      []string          `toml:"pause"`
	Containerd []string          `toml:"containerd"`
	Restart    []string          `toml:"restart"`
	Wrap       map[string]string `toml:"wrap"`
	Break      string            `toml:"break"`
	Setup      string            `toml:"setup"` // of a healthy one
	Undo       string            `toml:"undo"`
	At         string            `toml:"at"`
	Find       []string          `toml:"find"`
	Trace      []string          `toml:"trace"`
	Probe      bool              `toml:"probe"`
	Code       string            `toml:"code"`
	Subject    string            `toml:"subject"`
	Bed        string            `toml:"bed"`
	Mode       string            `toml:"mode"` // of the bed's nodes: "", as they are without a configuration, or routed
	Containers int               `toml:"containers"`
}

// Load reads setups.toml in the directory, with the defaults filled in. What is not
// known, and what is not complete, is an error.
func Load(dir string) (List, error) {
	var l List
	data, err := os.ReadFile(filepath.Join(dir, "setups.toml"))
	if err != nil {
		return l, err
	}
	if err := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields().Decode(&l); err != nil {
		return l, fmt.Errorf("setups.toml: %w", err)
	}
	names := map[string]bool{}
	for _, list := range [][]Setup{l.Broken, l.Healthy} {
		for i := range list {
			s := &list[i]
			if s.At == "" {
				s.At = "a"
			}
			if len(s.Trace) == 0 {
				s.Trace = []string{"a1", "b1"}
			}
			if s.Name == "" || names[s.Name] || s.About == "" || s.On == "" || s.Undo == "" || len(s.Trace) != 2 {
				return l, fmt.Errorf("setups.toml: %q is not complete, or there twice", s.Name)
			}
			names[s.Name] = true
		}
	}
	for _, s := range l.Broken {
		if s.Code == "" || s.Break == "" || len(s.Find) == 0 || slices.ContainsFunc(s.Find, func(f string) bool { return f != "check" && f != "trace" }) {
			return l, fmt.Errorf("setups.toml: %q is not complete", s.Name)
		}
	}
	return l, nil
}
