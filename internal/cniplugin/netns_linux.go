package cniplugin

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"
)

// checkNamespace refuses what cannot be a container's namespace. Whether it may be
// touched is the agent's to say, which knows the host's namespace; here only this
// process's own is known, unless the caller has lifted that (CNI_NETNS_OVERRIDE).
func checkNamespace(path string, override bool) *types.Error {
	if !filepath.IsAbs(path) {
		return badNamespace("%s is not an absolute path", quoted(path))
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a FIFO would keep us waiting
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return badNamespace("there is no %s", quoted(path))
		}
		return badNamespace("%v", err)
	}
	defer f.Close()
	kind, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWNET {
		return badNamespace("%s is not a network namespace", quoted(path))
	}
	if override {
		return nil
	}
	own, err := os.Stat("/proc/self/ns/net")
	if err != nil {
		return badNamespace("%v", err)
	}
	if theirs, err := f.Stat(); err != nil || os.SameFile(own, theirs) {
		return badNamespace("%s is the namespace that this plugin runs in, the host's", quoted(path))
	}
	return nil
}

func badNamespace(format string, a ...any) *types.Error {
	return types.NewError(types.ErrInvalidNetNS, "CNI_NETNS: "+fmt.Sprintf(format, a...), "")
}
