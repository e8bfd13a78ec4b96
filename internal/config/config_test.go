package config

import (
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"stellar.io/stellar/ipam"
)

var comparable = cmpopts.EquateComparable(netip.AddrPort{})

func TestDefaultFileIsTheDefaults(t *testing.T) {
	t.Parallel()
	var fromNothing Config // proves that the file has every key
	if err := Decode("default.toml", []byte(DefaultFile()), &fromNothing); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(DefaultConfig(), fromNothing, comparable); diff != "" {
		t.Errorf("the file is not the defaults (-defaults +file):\n%s", diff)
	}
	if err := fromNothing.Validate(); err != nil {
		t.Errorf("the defaults are not valid: %v", err)
	}
}

// A key whose default is the zero value would be missing unnoticed above.
func TestDefaultFileHasEveryKey(t *testing.T) {
	t.Parallel()
	var check func(reflect.Type)
	check = func(typ reflect.Type) {
		for f := range typ.Fields() {
			key := f.Tag.Get("toml")
			switch {
			case key == "-":
			case key == "":
				t.Errorf("%s.%s has no key", typ, f.Name)
			case f.Type == reflect.TypeFor[Containerd]() || f.Type == reflect.TypeFor[Cluster]() || f.Type == reflect.TypeFor[Hold]() || f.Type == reflect.TypeFor[Web]() || f.Type == reflect.TypeFor[Log]():
				if !strings.Contains(DefaultFile(), "\n["+key+"]\n") {
					t.Errorf("no table [%s]", key)
				}
				check(f.Type)
			case !strings.Contains(DefaultFile(), "\n"+key+" = "):
				t.Errorf("no key %s", key)
			}
		}
	}
	check(reflect.TypeFor[Config]())
}

func TestDecodeNamesTheLine(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		in   string
		want string
	}{
		{"unknown key", "mtu = 1400\nmtv = 1\n", `f.toml:2: unknown key "mtv"`},
		{"unknown key in a table", "[containerd]\n\nadress = \"/x\"\n", `f.toml:3: unknown key "containerd.adress"`},
		{"unknown table", "[dns]\nx = 1\n", `f.toml:1: unknown key "dns"`},
		{"all unknown keys", "a = 1\nb = 2\n", "f.toml:1: unknown key \"a\"\nf.toml:2: unknown key \"b\""},
		{"wrong type", "\nmtu = \"big\"\n", "f.toml:2: "},
		{"bad duration", "commit-wait = \"soon\"\n", "f.toml:1: "},
		{"number as duration", "commit-wait = 5\n", `f.toml: "5" is not a duration`},
		{"bad address", "\n\nlisten = \"nine\"\n", "f.toml:3: "},
		{"not TOML", "x\n", "f.toml:1: "},
		{"key twice", "mtu = 1400\nmtu = 1500\n", "f.toml:2: "},
		{"init is a flag only", "init = true\n", `f.toml:1: unknown key "init"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg := DefaultConfig()
			err := Decode("f.toml", []byte(tt.in), &cfg)
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("error = %v, want %s…", err, tt.want)
			}
		})
	}
}

func TestEmptyMeansNoneWhereItSaysSo(t *testing.T) {
	t.Parallel()
	cfg := DefaultConfig()
	in := "metrics-listen = \"\"\ncool-down = \"0s\"\n[containerd]\nignore-namespaces = []\n"
	if err := Decode("f", []byte(in), &cfg); err != nil {
		t.Fatal(err)
	}
	if cfg.MetricsListen.IsValid() {
		t.Errorf("metrics-listen = %s, want none", cfg.MetricsListen)
	}
	if ns := cfg.Containerd.IgnoreNamespaces; ns == nil || len(ns) != 0 {
		t.Errorf("ignore-namespaces = %#v, want an empty list that is not nil", ns)
	}
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
}

func TestPrecedence(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "config.toml")
	write(t, file, "address = \"unix:///file.sock\"\n[containerd]\naddress = \"/file/containerd.sock\"\n")
	env := func(k string) string {
		return map[string]string{"STELLAR_ADDRESS": "unix:///env.sock", "CONTAINERD_ADDRESS": "unix:///env/containerd.sock"}[k]
	}
	flags := func(c *Config) { c.Address, c.Containerd.Address = "unix:///flag.sock", "/flag/containerd.sock" }
	tests := []struct {
		name                string
		src                 Source
		address, containerd string
	}{
		{"file before defaults", Source{File: file}, "unix:///file.sock", "/file/containerd.sock"},
		{"environment before file", Source{File: file, Getenv: env}, "unix:///env.sock", "/env/containerd.sock"},
		{"flags before environment", Source{File: file, Getenv: env, Flags: flags}, "unix:///flag.sock", "/flag/containerd.sock"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg, err := Load(tt.src)
			if err != nil {
				t.Fatal(err)
			}
			if cfg.SocketAddress() != tt.address || cfg.Containerd.Address != tt.containerd {
				t.Errorf("address %s, containerd %s; want %s, %s", cfg.SocketAddress(), cfg.Containerd.Address, tt.address, tt.containerd)
			}
			if got, err := LoadAddress(tt.src); err != nil || got != tt.address {
				t.Errorf("LoadAddress = %s, %v; want %s", got, err, tt.address)
			}
		})
	}
}

func TestSocketFollowsTheRunDirectory(t *testing.T) {
	t.Parallel()
	cfg := DefaultConfig()
	if got := cfg.SocketAddress(); got != "unix:///run/stellar/stellar.sock" {
		t.Errorf("default address = %s", got)
	}
	cfg.RunDir = "/run/second"
	if got := cfg.SocketPath(); got != "/run/second/stellar.sock" {
		t.Errorf("path = %s", got)
	}
}

func TestNamedFileMustExist(t *testing.T) {
	t.Parallel()
	missing := filepath.Join(t.TempDir(), "none.toml")
	if _, err := Load(Source{File: missing}); err == nil || !strings.Contains(err.Error(), missing) {
		t.Errorf("error = %v, want one that names the file", err)
	}
	if _, err := LoadAddress(Source{File: missing}); err == nil {
		t.Error("LoadAddress passed over a file that was named")
	}
}

// A client that was told where the agent is does not read the file at all.
func TestLoadAddressReadsNoFileItDoesNotNeed(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "config.toml")
	write(t, file, "broken")
	got, err := LoadAddress(Source{File: file, Flags: func(c *Config) { c.Address = "/x.sock" }})
	if err != nil || got != "/x.sock" {
		t.Errorf("LoadAddress = %q, %v", got, err)
	}
	if _, err := LoadAddress(Source{File: file, Flags: func(c *Config) { c.Address = "x.sock" }}); err == nil {
		t.Error("a relative address was taken")
	}
}

func TestValidateReportsEverything(t *testing.T) {
	t.Parallel()
	cfg := Config{
		Address: "tcp://1.2.3.4:5", DataDir: "data", RunDir: "/", NodeName: "-x",
		Listen: netip.MustParseAddrPort("10.0.0.1:0"), Advertise: netip.MustParseAddrPort("0.0.0.0:9640"),
		Mode: "magic", Bridge: "a/b", MTU: 12, CommitWait: Duration{time.Hour}, CoolDown: Duration{-1},
		Containerd: Containerd{Address: "x", StateDir: "y", IgnoreNamespaces: []string{"a b"}},
		Cluster:    Cluster{ContactLimit: Duration{13 * time.Hour}},
		Log:        Log{Level: "loud", Format: "xml"},
	}
	err := cfg.Validate()
	if err == nil {
		t.Fatal("no error")
	}
	for _, key := range []string{
		"address:", "data-dir:", "run-dir:", "node-name:", "listen:", "advertise:", "mode:", "bridge:", "mtu:",
		"commit-wait:", "cool-down:", "containerd.address:", "containerd.state-dir:", "containerd.ignore-namespaces:", "cluster.contact-limit:",
		"log.level:", "log.format:",
	} {
		if !strings.Contains("\n"+err.Error(), "\n"+key) {
			t.Errorf("nothing about %s", key)
		}
	}
	for mode, want := range map[string]ipam.Mode{"": 0, ModeBridge: ipam.ModeBridge, ModeRouted: ipam.ModeRouted} {
		cfg = DefaultConfig()
		cfg.Mode = mode
		if err := cfg.Validate(); err != nil || cfg.AttachMode() != want {
			t.Errorf("mode %q: %s, %v", mode, cfg.AttachMode(), err)
		}
	}
	cfg = DefaultConfig()
	cfg.Listen = cfg.MetricsListen
	if cfg.Validate() == nil {
		t.Error("one port for two things was taken")
	}
}

// The web page is for the machine itself; IPv6 is closed to the agent by its unit.
func TestValidateWeb(t *testing.T) {
	t.Parallel()
	for address, ok := range map[string]bool{
		"127.0.0.1:9643": true, "127.9.9.9:80": true, "0.0.0.0:9643": false, "192.168.1.5:9643": false, "[::1]:9643": false, "[::]:9643": false,
		"[::ffff:127.0.0.1]:9643": false, "127.0.0.1:0": false, "127.0.0.1:9642": false,
	} {
		cfg := DefaultConfig()
		cfg.Web.Listen = netip.MustParseAddrPort(address)
		if err := cfg.Validate(); (err == nil) != ok {
			t.Errorf("%s: %v", address, err)
		} else if err != nil && !strings.HasPrefix(err.Error(), "web.listen: ") {
			t.Errorf("%s: %v does not name the key", address, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(DefaultFile())
	f.Add("listen = \"[::1]:9640\"\n[containerd]\nignore-namespaces = [1]\n")
	f.Fuzz(func(_ *testing.T, text string) {
		cfg := DefaultConfig()
		if Decode("f", []byte(text), &cfg) == nil {
			_ = cfg.Validate()
		}
	})
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), fs.FileMode(0o644)); err != nil {
		t.Fatal(err)
	}
}
