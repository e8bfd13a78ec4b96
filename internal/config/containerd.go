package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/pelletier/go-toml/v2"
)

// ContainerdFile is containerd's own configuration.
const ContainerdFile = "/etc/containerd/config.toml"

// CNIBinDirs reads from containerd's configuration, of its versions 2 and 3, where it looks for CNI plugins;
// nothing if the file is not there or does not say.
func CNIBinDirs(path string) ([]string, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	type cri struct {
		CNI struct {
			BinDir  string   `toml:"bin_dir"`
			BinDirs []string `toml:"bin_dirs"`
		} `toml:"cni"`
	}
	var file struct {
		Plugins struct {
			V2 cri `toml:"io.containerd.grpc.v1.cri"`
			V3 cri `toml:"io.containerd.cri.v1.runtime"`
		} `toml:"plugins"`
	}
	if err := toml.Unmarshal(data, &file); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var out []string
	for _, c := range []cri{file.Plugins.V2, file.Plugins.V3} {
		for _, dir := range append(c.CNI.BinDirs, c.CNI.BinDir) {
			if dir != "" && !slices.Contains(out, dir) {
				out = append(out, dir)
			}
		}
	}
	return out, nil
}
