package testx

import (
	"fmt"
	"os"
	"path/filepath"
)

const (
	envCNI = "STELLAR_CNI_TOOLS"
	dirCNI = ".cache/cni-1.9.1"
)

// CNITools returns the directory of the reference CNI plugins bridge, ptp and
// host-local, and of cnitool, as `make deps` builds them.
func CNITools() (string, error) {
	dir := os.Getenv(envCNI)
	if dir == "" {
		root, err := moduleRoot()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(root, dirCNI)
	}
	for _, name := range []string{"bridge", "ptp", "host-local", "cnitool"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return "", fmt.Errorf("the CNI plugins are not built (run `make deps`, or set %s): %w", envCNI, err)
		}
	}
	return dir, nil
}
