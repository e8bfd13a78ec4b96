// Package testx is the test bed of the other packages: private containerds of
// two versions, with images made on the spot, and throw-away network
// namespaces. It needs root and starts only what it also ends.
//
// It does not import package testing, so a demo or a benchmark may use it.
package testx

import (
	"fmt"
	"os"
	"path/filepath"
)

// Logger is what testx reports to; *testing.T is one.
type Logger interface {
	Logf(format string, args ...any)
}

// TB is the part of testing.TB that the helpers with a t parameter use.
type TB interface {
	Logger
	Helper()
	Fatalf(format string, args ...any)
	Cleanup(func())
}

// moduleRoot finds the checkout from the working directory, which `go test`
// sets to the package under test.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for start := dir; ; {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("no go.mod above %s", start)
		}
		dir = parent
	}
}
