package check

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestManagers: who runs without our drop-in is named, and nobody else.
func TestManagers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, files string
		want        []string
	}{
		{"none", "", nil},
		{"networkd", "run/systemd/netif/state", []string{Networkd, Networkd}},
		{"networkd with one drop-in", "run/systemd/netif/state usr/lib/systemd/network/10-stellar.network", []string{Networkd}},
		{"NetworkManager", "run/NetworkManager/no-stub-resolv.conf", []string{NetworkManager}},
		{"NetworkManager with the drop-in", "run/NetworkManager/no-stub-resolv.conf etc/NetworkManager/conf.d/10-stellar-nm.conf", nil},
	} {
		root := t.TempDir()
		for _, name := range strings.Fields(tt.files) {
			if err := os.MkdirAll(root+"/"+name[:strings.LastIndexByte(name, '/')], 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(root+"/"+name, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		var got []string
		for _, m := range managers(root) {
			got = append(got, m.Code)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

// TestManagesForeignRoutes: what networkd would read is read in its order.
func TestManagesForeignRoutes(t *testing.T) {
	t.Parallel()
	ours, err := os.ReadFile("../../packaging/systemd/10-stellar-networkd.conf")
	if err != nil {
		t.Fatal(err)
	}
	const no, yes = "[Network]\nManageForeignRoutes = no\n", "[Network]\nManageForeignRoutes=yes\n"
	for _, tt := range []struct {
		name    string
		files   map[string]string
		removes bool
	}{
		{"nothing", nil, true},
		{"the package's", map[string]string{"usr/lib/systemd/networkd.conf.d/10-stellar.conf": string(ours)}, false},
		{"commented", map[string]string{"etc/systemd/networkd.conf": "[Network]\n#ManageForeignRoutes=no\n"}, true},
		{"another section", map[string]string{"etc/systemd/networkd.conf": "[DHCPv4]\nManageForeignRoutes=no\n"}, true},
		{"the main file", map[string]string{"etc/systemd/networkd.conf": no}, false},
		{"the first main file alone", map[string]string{"etc/systemd/networkd.conf": "[Network]\n", "usr/lib/systemd/networkd.conf": no}, true},
		{"a drop-in after the main file", map[string]string{"etc/systemd/networkd.conf": no, "usr/lib/systemd/networkd.conf.d/a.conf": yes}, true},
		{"a later drop-in", map[string]string{"usr/lib/systemd/networkd.conf.d/10-stellar.conf": no, "etc/systemd/networkd.conf.d/90-mine.conf": yes}, true},
		{"masked", map[string]string{"usr/lib/systemd/networkd.conf.d/10-stellar.conf": no, "etc/systemd/networkd.conf.d/10-stellar.conf": ""}, true},
	} {
		root := t.TempDir()
		for name, text := range tt.files {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := removesRoutes(root); got != tt.removes {
			t.Errorf("%s: %t", tt.name, got)
		}
	}
}
