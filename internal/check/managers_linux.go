package check

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Where package packaging puts the drop-ins, and where administrators do.
var (
	networkdDropIns = []string{"etc/systemd/network/10-stellar.network", "run/systemd/network/10-stellar.network", "usr/local/lib/systemd/network/10-stellar.network", "usr/lib/systemd/network/10-stellar.network", "lib/systemd/network/10-stellar.network"}
	nmDropIns       = []string{"etc/NetworkManager/conf.d/10-stellar*.conf", "run/NetworkManager/conf.d/10-stellar*.conf", "usr/lib/NetworkManager/conf.d/10-stellar*.conf"}
	// systemdDirs are where networkd reads, the first of them goes before the next.
	systemdDirs = []string{"etc/systemd", "run/systemd", "usr/local/lib/systemd", "usr/lib/systemd", "lib/systemd"}
)

// managers finds the network managers that run without our drop-ins, below root.
func managers(root string) []Manager {
	if root == "" {
		root = "/"
	}
	any := func(patterns ...string) bool {
		for _, p := range patterns {
			if found, err := filepath.Glob(filepath.Join(root, p)); err == nil && len(found) > 0 {
				return true
			}
		}
		return false
	}
	var out []Manager
	if any("run/systemd/netif/state") {
		if !any(networkdDropIns...) {
			out = append(out, missing(Networkd, "/etc/systemd/network/10-stellar.network"))
		}
		if removesRoutes(root) {
			out = append(out, Manager{Networkd, "removes Stellar's routes whenever it starts: ManageForeignRoutes= of networkd.conf is not no", "/etc/systemd/networkd.conf.d/10-stellar-networkd.conf"})
		}
	}
	if any("run/NetworkManager/no-stub-resolv.conf", "run/NetworkManager/NetworkManager.pid", "run/NetworkManager/devices") && !any(nmDropIns...) {
		out = append(out, missing(NetworkManager, "/etc/NetworkManager/conf.d/10-stellar-nm.conf"))
	}
	return out
}

func missing(code, dropIn string) Manager {
	return Manager{code, "may change Stellar's links and routes: " + dropIn + " is missing", dropIn}
}

// removesRoutes reports whether networkd, as it is configured, removes routes that it
// did not make: networkd.conf's word, or that of the last drop-in by name that has one;
// of several drop-ins of one name the first directory's alone counts.
func removesRoutes(root string) bool {
	removes, main := true, false
	dropIns := map[string]string{}
	for _, dir := range systemdDirs {
		dir = filepath.Join(root, dir)
		if text, err := os.ReadFile(filepath.Join(dir, "networkd.conf")); err == nil && !main {
			main = true
			removes = managesForeign(string(text), removes)
		}
		found, _ := filepath.Glob(filepath.Join(dir, "networkd.conf.d", "*.conf")) // the pattern is good
		for _, file := range found {
			if name := filepath.Base(file); dropIns[name] == "" {
				dropIns[name] = file
			}
		}
	}
	names := make([]string, 0, len(dropIns))
	for name := range dropIns {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if text, err := os.ReadFile(dropIns[name]); err == nil {
			removes = managesForeign(string(text), removes)
		}
	}
	return removes
}

// managesForeign is ManageForeignRoutes= after a file of networkd's configuration was read.
func managesForeign(text string, before bool) bool {
	section := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			section = line
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok || section != "[Network]" || strings.TrimSpace(key) != "ManageForeignRoutes" {
			continue
		}
		switch strings.ToLower(strings.TrimSpace(value)) {
		case "no", "n", "false", "f", "off", "0":
			before = false
		case "yes", "y", "true", "t", "on", "1":
			before = true
		}
	}
	return before
}
