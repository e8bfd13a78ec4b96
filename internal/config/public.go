package config

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// hidden stands for the value of a key that this version does not know.
const hidden = "(not shown: no key of this version)"

// Text returns the configuration as a file.
func (c Config) Text() ([]byte, error) { return toml.Marshal(c) }

// MarshalText writes what UnmarshalText reads.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// Public returns what a file sets, to be shown to others: its comments and the values
// of keys that do not exist are left out, for nobody knows what they are.
func Public(data []byte) ([]byte, error) {
	var set, known map[string]any
	if err := toml.Unmarshal(data, &set); err != nil {
		// The library's error quotes the line; a person finds it by its number.
		if e, ok := errors.AsType[*toml.DecodeError](err); ok {
			line, _ := e.Position()
			return nil, fmt.Errorf("line %d cannot be read", line)
		}
		return nil, errors.New("it cannot be read")
	}
	if err := toml.Unmarshal([]byte(defaultFile), &known); err != nil {
		return nil, err
	}
	var b strings.Builder
	show(&b, "", set, known)
	return []byte(b.String()), nil
}

// show writes the keys of set, sorted, those of tables with their table's name.
func show(b *strings.Builder, prefix string, set, known map[string]any) {
	for _, key := range slices.Sorted(maps.Keys(set)) {
		def, ok := known[key]
		table, isTable := set[key].(map[string]any)
		knownTable, mayBeTable := def.(map[string]any)
		switch {
		case !ok, isTable != mayBeTable, !isTable && !alike(set[key], def):
			fmt.Fprintf(b, "%s%s = %q\n", prefix, key, hidden)
		case isTable:
			show(b, prefix+key+".", table, knownTable)
		default:
			if text, isText := set[key].(string); isText {
				fmt.Fprintf(b, "%s%s = %q\n", prefix, key, text)
			} else {
				fmt.Fprintf(b, "%s%s = %v\n", prefix, key, set[key])
			}
		}
	}
}

// alike reports whether a value is of the default's type.
func alike(value, def any) bool {
	list, isList := value.([]any)
	defs, mayBeList := def.([]any)
	if !isList || !mayBeList || len(defs) == 0 {
		return !isList && !mayBeList && reflect.TypeOf(value) == reflect.TypeOf(def)
	}
	return !slices.ContainsFunc(list, func(v any) bool { return reflect.TypeOf(v) != reflect.TypeOf(defs[0]) })
}
