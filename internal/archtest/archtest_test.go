package archtest

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "stellar.io/stellar"

type pkg struct {
	ImportPath, Name, Doc string
	Imports               []string
	GoFiles               []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-tags", "hashicorpmetrics", "-json=ImportPath,Name,Doc,Imports,GoFiles", module+"/...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var pkgs []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return pkgs
		}
		if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

// may says what of this module each package may import: imports point down,
// and the four packages that speak to the outside never know each other. A
// package that is missing here may import nothing of ours.
var may = map[string][]string{
	"ipam":                              {"ipam/ipampb"},
	"raftstore":                         {"ipam"},
	"raftstore/journal":                 {"ipam"},
	"raftstore/telemetry":               {},
	"raftstore/holder":                  {"ipam", "raftstore", "raftstore/journal"},
	"events":                            {},
	"netsetup":                          {"ipam", "internal/nlx", "internal/nsx", "internal/procfs"},
	"routes":                            {"ipam", "internal/nlx", "internal/nsx"},
	"internal/nlx":                      {"internal/nsx"},
	"internal/firewall":                 {},
	"internal/trace":                    {"api", "internal/firewall", "internal/nlx", "internal/nsx"},
	"agent":                             {"events", "internal/atomicfile", "ipam", "netsetup", "raftstore/holder"},
	"api":                               {"ipam"},
	"api/internal/wire":                 {"api", "api/stellar/v1", "ipam"},
	"api/internal/rpc":                  {"api", "api/stellar/v1", "ipam"},
	"api/stellar/v1/stellarv1connect":   {"api/stellar/v1"},
	"api/stellar/peer/v1/peerv1connect": {"api/stellar/peer/v1"},
	"api/peerapi": {
		"api", "api/internal/rpc", "api/stellar/peer/v1", "api/stellar/peer/v1/peerv1connect", "api/stellar/v1/stellarv1connect", "ipam", "raftstore",
	},
	"api/server": {
		"api", "api/internal/rpc", "api/internal/wire", "api/peerapi", "api/stellar/v1", "api/stellar/v1/stellarv1connect", "ipam", "raftstore",
	},
	"api/client":                  {"api", "api/internal/rpc", "api/internal/wire", "api/stellar/v1", "api/stellar/v1/stellarv1connect", "ipam"},
	"api/apitest":                 {"api", "ipam", "raftstore"},
	"internal/attachclient":       {"api"},
	"internal/cniplugin":          {"api", "internal/attachclient"},
	"cmd/stellar-cni":             {"internal/cniplugin"},
	"cmd/stellar-cni-ipam":        {"internal/cniplugin"},
	"internal/cniinstall":         {"internal/atomicfile"},
	"internal/config":             {"ipam"},
	"internal/logs":               {},
	"internal/redact":             {},
	"internal/web":                {"api", "internal/atomicfile"},
	"internal/pki":                {"internal/atomicfile", "ipam"},
	"internal/peer":               {"internal/pki", "ipam"},
	"internal/hold":               {"internal/procfs"},
	"internal/check":              {"api", "internal/firewall", "internal/nlx", "ipam", "netsetup", "routes"},
	"internal/testx":              {"internal/nsx", "internal/procfs"},
	"internal/testx/testbed":      {"internal/testx"},
	"internal/testx/chrome":       {"internal/testx"},
	"internal/testx/cnicall":      {},
	"internal/testx/bench":        {},
	"internal/testx/benchfigures": {"internal/testx/bench"},
	"internal/testx/faults":       {},
	"internal/testx/faultrun":     {"internal/testx/faults"},
	"internal/testx/safety":       {"internal/testx/faults"},
	"internal/node": {
		"agent", "api", "api/client", "api/peerapi", "api/server", "events", "internal/atomicfile", "internal/check", "internal/config", "internal/hold", "internal/logs", "internal/nsx", "internal/peer", "internal/ping", "internal/pki", "internal/trace", "internal/redact", "internal/web", "ipam", "netsetup",
		"raftstore", "raftstore/holder", "raftstore/telemetry", "routes",
	},
	"cmd/stellar-runc": {"api", "internal/attachclient"},
	"cmd/stellar": {
		"api", "api/client", "api/server", "internal/atomicfile", "internal/cniinstall", "internal/config", "internal/logs", "internal/node", "internal/redact", "internal/web", "ipam", "netsetup", "raftstore", "routes",
	},
}

// failpoints is what every package may import but those that are pure: without its
// build tag it is empty.
const failpoints = "internal/failpoint"

// owners says which packages may import a library, and no other.
var owners = map[string][]string{
	"github.com/containerd/":          {"events"},
	"google.golang.org/grpc":          {"events"},
	"github.com/hashicorp/":           {"raftstore", "raftstore/telemetry"},
	"go.etcd.io/bbolt":                {"raftstore"},
	"github.com/vishvananda/netlink":  {"internal/nlx", "netsetup", "routes"},
	"github.com/vishvananda/netns":    {"internal/nlx"},
	"sigs.k8s.io/knftables":           {"netsetup"},
	"connectrpc.com/connect":          {"api/stellar/v1/stellarv1connect", "api/stellar/peer/v1/peerv1connect", "api/internal/rpc", "api/server", "api/client", "api/peerapi"},
	"github.com/prometheus/":          {"agent", "internal/node", "raftstore/telemetry"},
	"github.com/spf13/cobra":          {"cmd/stellar"},
	"github.com/pelletier/go-toml/v2": {"internal/config", "internal/testx/broken"},
	"github.com/coreos/go-systemd/":   {"internal/node"},
	"github.com/containernetworking/": {"internal/cniplugin"},
}

// pure are the packages that may not see the outside world.
var pure = map[string][]string{
	"ipam": {"os", "net", "net/http", "log", "log/slog", "math/rand", "math/rand/v2", "crypto/rand", "sync", "context", "io/fs", "syscall", "runtime"},
}

func TestImportMap(t *testing.T) {
	for _, p := range packages(t) {
		name := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		for _, imp := range p.Imports {
			if own, ok := strings.CutPrefix(imp, module+"/"); ok {
				if own == failpoints && pure[name] == nil {
					continue
				}
				if !slices.Contains(may[name], own) {
					t.Errorf("%s imports %s, which the import map does not allow", name, own)
				}
				continue
			}
			for prefix, allowed := range owners {
				if strings.HasPrefix(imp, prefix) && !slices.Contains(allowed, name) {
					t.Errorf("%s imports %s, which belongs to %v alone", name, imp, allowed)
				}
			}
			if slices.Contains(pure[name], imp) {
				t.Errorf("%s imports %s, but is pure", name, imp)
			}
		}
	}
}

// TestDependenciesAreExplained: every direct requirement has its line in
// docs/dependencies.md.
func TestDependenciesAreExplained(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{if not (or .Indirect .Main)}}{{.Path}}{{end}}", "all").Output()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile("../../docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range strings.Fields(string(out)) {
		if !strings.Contains(string(doc), path) {
			t.Errorf("docs/dependencies.md does not say why %s is needed", path)
		}
	}
}

// TestPackageComments: each package says what it promises.
func TestPackageComments(t *testing.T) {
	for _, p := range packages(t) {
		if len(p.GoFiles) > 0 && p.Doc == "" && !strings.HasSuffix(p.Name, "v1connect") && !strings.HasSuffix(p.ImportPath, "/v1") {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}
