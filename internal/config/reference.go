package config

import (
	"fmt"
	"strings"
)

// Key is one key of the file, as the commented default file describes it.
type Key struct {
	Table   string // "" for the keys before the first table
	Name    string
	Default string // as it stands in the file, in TOML
	Text    string // what it means, one paragraph
}

// Path is how messages name the key: "containerd.address".
func (k Key) Path() string {
	if k.Table == "" {
		return k.Name
	}
	return k.Table + "." + k.Name
}

// Keys returns every key of the default file, in its order. The error names a key
// that has no comment above it.
func Keys() ([]Key, error) { return keysOf(DefaultFile()) }

func keysOf(file string) ([]Key, error) {
	var (
		keys    []Key
		table   string
		comment []string
	)
	for line := range strings.Lines(file) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "#"):
			comment = append(comment, strings.TrimSpace(strings.TrimPrefix(line, "#")))
		case line == "":
			comment = nil // the comment was about the file or the table
		case strings.HasPrefix(line, "["):
			table, comment = strings.Trim(line, "[]"), nil
		default:
			name, value, ok := strings.Cut(line, " = ")
			if !ok {
				return nil, fmt.Errorf("default file: %q is neither a comment, a table nor a key", line)
			}
			k := Key{Table: table, Name: name, Default: value, Text: strings.Join(comment, " ")}
			if k.Text == "" {
				return nil, fmt.Errorf("default file: nothing says what %s means", k.Path())
			}
			keys, comment = append(keys, k), nil
		}
	}
	return keys, nil
}
