package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"stellar.io/stellar/internal/config"
)

// maxPart bounds what one program or file gives to the report.
const maxPart = 4 << 20

// hostSources are what the machine says, agent or not. They only look.
func (c *bugreport) hostSources() []func(context.Context) []reportFile {
	cfg, err := c.resolve(c.app)
	if err != nil { // the file is in the report, as far as it can be shown
		cfg = config.DefaultConfig()
		_ = c.apply(&cfg, c.app.address)
	}
	programs := func(name string, lines ...string) func(context.Context) []reportFile {
		return func(ctx context.Context) []reportFile { return []reportFile{fromPrograms(ctx, name, lines)} }
	}
	texts := func(name string, text func() []byte) func(context.Context) []reportFile {
		return func(context.Context) []reportFile { return []reportFile{{Name: name, data: text()}} }
	}
	return []func(context.Context) []reportFile{
		func(context.Context) []reportFile { return []reportFile{c.configFile()} },
		texts("host/machine.txt", machine),
		texts("host/sysctl.txt", func() []byte { return sysctls(cfg.Bridge) }),
		texts("host/files.txt", func() []byte { return list(cfg.DataDir, cfg.RunDir) }),
		programs("host/links.txt", "ip -d -s link show group 147", "ip -d -s link show type bridge", "ip -br address show"),
		programs("host/routes.txt", "ip rule show", "ip route show table all", "ip neigh show dev "+cfg.Bridge, "ip neigh show nud permanent"),
		programs("host/filter.txt", filterCommands()...),
		programs("host/containerd.txt", "containerd --version", "runc --version", "crun --version", "systemctl status --no-pager -n 0 containerd"),
		programs("host/service.txt", "systemctl status --no-pager -n 0 stellar", "systemctl show stellar -p ActiveState,SubState,NRestarts,ExecMainStatus,FragmentPath,DropInPaths"),
		programs("host/journal.txt", "journalctl -u stellar -n 2000 --no-pager -o short-iso"),
	}
}

// filterCommands read our table and the chains that decide on forwarding. The legacy
// tables are asked only where they are: asking would make them.
func filterCommands() []string {
	lines := []string{"nft list table inet stellar", "nft list chain ip filter FORWARD", "nft list chain ip filter DOCKER-USER"}
	if names, err := os.ReadFile("/proc/net/ip_tables_names"); err == nil && slices.Contains(strings.Fields(string(names)), "filter") {
		lines = append(lines, "iptables-legacy -S FORWARD", "iptables-legacy -S DOCKER-USER")
	}
	return lines
}

// fromPrograms runs programs one after the other and keeps what they print. One that
// fails says so in its place: that a table or a program is not there is a fact, too.
func fromPrograms(ctx context.Context, name string, lines []string) reportFile {
	var b bytes.Buffer
	failed := 0
	for _, line := range lines {
		fmt.Fprintf(&b, "$ %s\n", line)
		args := strings.Fields(line)
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Env = []string{"LC_ALL=C", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
		cmd.WaitDelay = time.Second
		out, err := cmd.CombinedOutput()
		b.Write(cut(out))
		if err != nil {
			failed++
			fmt.Fprintf(&b, "(%v)\n", err)
		}
		b.WriteByte('\n')
	}
	f := reportFile{Name: name, data: b.Bytes()}
	if failed == len(lines) {
		f.Note = "nothing of it could be had"
	}
	return f
}

func cut(data []byte) []byte {
	if len(data) <= maxPart {
		return data
	}
	return append(slices.Clone(data[:maxPart]), "\n(cut off)\n"...)
}

// configFile is what the configuration file sets, without comments and without the
// values of keys that do not exist.
func (c *bugreport) configFile() reportFile {
	path := c.agentFlags.file
	if path == "" {
		path = config.DefaultPath
	}
	f := reportFile{Name: "host/config.toml"}
	data, err := os.ReadFile(path)
	if err == nil {
		f.data, err = config.Public(data)
	}
	if errors.Is(err, fs.ErrNotExist) {
		f.data = []byte("# there is no " + path + "\n")
	} else if err != nil {
		f.Note = err.Error()
		f.data = []byte("# " + err.Error() + "\n")
	}
	return f
}

// machine is about the kernel and the distribution.
func machine() []byte {
	var b bytes.Buffer
	for _, path := range []string{"/proc/version", "/etc/os-release", "/proc/uptime", "/proc/loadavg", "/proc/meminfo", "/proc/pressure/cpu", "/proc/pressure/io"} {
		show(&b, path)
	}
	return b.Bytes()
}

// show adds a small file, or why it cannot be read.
func show(b *bytes.Buffer, path string) {
	data, err := os.ReadFile(path)
	if err != nil {
		data = []byte(err.Error())
	}
	fmt.Fprintf(b, "# %s\n%s\n", path, bytes.TrimSpace(cut(data)))
}

// sysctls are those that packets, the hold and many containers depend on. The links
// of containers, which may be a thousand, are passed over.
func sysctls(bridge string) []byte {
	var b bytes.Buffer
	paths := []string{
		"net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables", "net/netfilter/nf_conntrack_count", "net/netfilter/nf_conntrack_max",
		"net/ipv4/neigh/default/gc_thresh1", "net/ipv4/neigh/default/gc_thresh2", "net/ipv4/neigh/default/gc_thresh3",
		"kernel/yama/ptrace_scope", "fs/inotify/max_user_instances", "fs/inotify/max_user_watches", "fs/file-nr",
		"net/ipv4/conf/" + bridge + "/arp_ignore", "net/ipv4/conf/" + bridge + "/route_localnet", "net/ipv4/conf/" + bridge + "/send_redirects",
	}
	links, _ := os.ReadDir("/proc/sys/net/ipv4/conf")
	for _, l := range links {
		if !strings.HasPrefix(l.Name(), "veth") {
			paths = append(paths, "net/ipv4/conf/"+l.Name()+"/forwarding", "net/ipv4/conf/"+l.Name()+"/rp_filter")
		}
	}
	for _, p := range paths {
		value, err := os.ReadFile("/proc/sys/" + p)
		if err != nil {
			value = []byte("(" + errors.Unwrap(err).Error() + ")")
		}
		fmt.Fprintf(&b, "%s = %s\n", p, strings.Join(strings.Fields(string(value)), " "))
	}
	return b.Bytes()
}

// list names the files of directories, with their rights and sizes. It opens none.
func list(dirs ...string) []byte {
	var b bytes.Buffer
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				fmt.Fprintf(&b, "%v\n", err)
				return nil
			}
			if info, err := d.Info(); err == nil {
				fmt.Fprintf(&b, "%s %12d %s %s\n", info.Mode(), info.Size(), info.ModTime().UTC().Format(time.RFC3339), path)
			}
			return nil
		})
		if err != nil {
			fmt.Fprintf(&b, "%v\n", err)
		}
	}
	return b.Bytes()
}
