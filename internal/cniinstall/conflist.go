package cniinstall

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// sumKey holds the checksum of a configuration; runtimes skip keys that they do
// not know.
const sumKey = "io.stellar.sha256"

type list struct {
	// Version is for runtimes that know no Versions; the others take the highest
	// that they know, and with 1.1.0 use STATUS and GC.
	Version  string   `json:"cniVersion"`
	Versions []string `json:"cniVersions"`
	Name     string   `json:"name"`
	Plugins  []plugin `json:"plugins"`
	Sum      string   `json:"io.stellar.sha256"`
}

type plugin struct {
	Type    string `json:"type"`
	Address string `json:"address,omitempty"`
	// Capabilities: a runtime passes on only what is declared. portMappings is, so
	// that a published port is refused and not forgotten.
	Capabilities map[string]bool `json:"capabilities"`
}

// conflist is the text of a network's configuration.
func conflist(c Config) ([]byte, error) {
	l := list{
		Version: "1.0.0", Versions: []string{"1.0.0", "1.1.0"}, Name: c.Name,
		Plugins: []plugin{{Type: "stellar-cni", Address: c.Address, Capabilities: map[string]bool{"ips": true, "mac": true, "portMappings": true}}},
	}
	text, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return nil, err
	}
	l.Sum = sum(text)
	text, err = json.MarshalIndent(l, "", "  ")
	return append(text, '\n'), err
}

func sum(text []byte) string {
	s := sha256.Sum256([]byte(strings.TrimSpace(string(text))))
	return hex.EncodeToString(s[:16])
}

// intact reports whether a configuration is as some version of conflist wrote it.
func intact(text []byte) bool {
	var l struct {
		Sum string `json:"io.stellar.sha256"`
	}
	if json.Unmarshal(text, &l) != nil || l.Sum == "" {
		return false
	}
	empty := strings.Replace(string(text), `"`+sumKey+`": "`+l.Sum+`"`, `"`+sumKey+`": ""`, 1)
	return sum([]byte(empty)) == l.Sum
}

// uses reports which of our plugins a configuration has, and its name.
func uses(text []byte) (name string, ours bool) {
	type one struct {
		Type string
		IPAM struct{ Type string }
	}
	var l struct {
		one
		Name    string
		Plugins []one
	}
	if json.Unmarshal(text, &l) != nil {
		return "", false
	}
	for _, p := range append(l.Plugins, l.one) {
		ours = ours || slices.Contains(Plugins, p.Type) || slices.Contains(Plugins, p.IPAM.Type)
	}
	return l.Name, ours
}

// confState looks at the network's configuration. A network of the same name in
// another file is in its way: runtimes find networks by name.
func confState(c Config) (File, error) {
	f := File{Path: c.Path(), State: Missing}
	entries, err := os.ReadDir(c.ConfDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	rival := ""
	for _, e := range entries {
		path := filepath.Join(c.ConfDir, e.Name())
		if ext := filepath.Ext(path); e.IsDir() || !slices.Contains([]string{".conf", ".conflist", ".json"}, ext) {
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return f, err
		}
		if path == f.Path {
			f.State, f.Reason = judge(c, text)
		} else if name, _ := uses(text); name == c.Name {
			rival = fmt.Sprintf("%s has a network of this name, too", path)
		}
	}
	switch {
	case rival == "":
	case f.State == Missing:
		f.State, f.Reason = Foreign, rival
	case f.State == OK:
		f.Reason = rival
	}
	return f, nil
}

func judge(c Config, text []byte) (State, string) {
	want, err := conflist(c)
	switch _, ours := uses(text); {
	case err == nil && string(want) == string(text):
		return OK, ""
	case intact(text):
		return Outdated, "it was written with other options or by another version"
	case ours:
		return Edited, "it was changed by hand: remove it, or give another --name"
	}
	return Foreign, "it is not a network of Stellar's"
}

func validName(s string) bool {
	for i, r := range s {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !letter && (i == 0 || !strings.ContainsRune("_.-", r)) {
			return false
		}
	}
	return s != "" && len(s) <= 64
}
