package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// Source is where a configuration comes from, besides the defaults.
type Source struct {
	// File is the path of the file; empty: DefaultPath, which need not exist.
	// A file that is named must.
	File string
	// Getenv reads the environment; nil: no environment.
	Getenv func(string) string
	// Flags sets what was given on the command line; nil: nothing was.
	Flags func(*Config)
}

// Load resolves and validates a configuration.
func Load(src Source) (Config, error) {
	cfg, err := resolve(src)
	if err != nil {
		return Config{}, err
	}
	return cfg, cfg.Validate()
}

// LoadAddress resolves the address of the API only: a command that just calls
// the agent does not fail over a key that does not concern it, and reads no file
// when flags or environment say where the agent is. A file at DefaultPath that
// the caller may not read is passed over.
func LoadAddress(src Source) (string, error) {
	var cfg Config
	overlay(&cfg, src)
	if cfg.Address != "" {
		return cfg.Address, validAddress(cfg.Address)
	}
	cfg, err := resolve(src)
	if src.File == "" && errors.Is(err, fs.ErrPermission) {
		cfg, err = DefaultConfig(), nil
	}
	if err != nil {
		return "", err
	}
	return cfg.SocketAddress(), validAddress(cfg.SocketAddress())
}

func resolve(src Source) (Config, error) {
	cfg := DefaultConfig()
	path := src.File
	if path == "" {
		path = DefaultPath
	}
	data, err := os.ReadFile(path)
	switch {
	case src.File == "" && errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return Config{}, fmt.Errorf("configuration: %w", err)
	default:
		if err := Decode(path, data, &cfg); err != nil {
			return Config{}, err
		}
	}
	overlay(&cfg, src)
	return cfg, nil
}

// overlay puts environment and flags over what cfg has.
func overlay(cfg *Config, src Source) {
	if src.Getenv != nil {
		if v := src.Getenv("STELLAR_ADDRESS"); v != "" {
			cfg.Address = v
		}
		if v := src.Getenv("CONTAINERD_ADDRESS"); v != "" {
			cfg.Containerd.Address = v
		}
	}
	if src.Flags != nil {
		src.Flags(cfg)
	}
	cfg.Containerd.Address = strings.TrimPrefix(cfg.Containerd.Address, "unix://")
}

// Decode reads a file's text over what cfg has. A key that does not exist and a
// value of the wrong type are errors that begin with name:line; all unknown keys
// are reported, not just the first. On an error cfg is partly written.
func Decode(name string, data []byte, cfg *Config) error {
	err := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields().Decode(cfg)
	if err == nil {
		return nil
	}
	if strict, ok := errors.AsType[*toml.StrictMissingError](err); ok {
		errs := make([]error, len(strict.Errors))
		for i, e := range strict.Errors {
			line, _ := e.Position()
			errs[i] = fmt.Errorf("%s:%d: unknown key %q", name, line, strings.Join(e.Key(), "."))
		}
		return errors.Join(errs...)
	}
	if e, ok := errors.AsType[*toml.DecodeError](err); ok {
		line, _ := e.Position()
		return fmt.Errorf("%s:%d: %s", name, line, strings.TrimPrefix(e.Error(), "toml: "))
	}
	return fmt.Errorf("%s: %w", name, err)
}
