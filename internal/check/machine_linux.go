package check

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/netsetup"
)

// machine collects what is no part of the network.
func (c *collector) machine() {
	m := &c.f.Machine
	m.Containerd, m.Ptrace, m.HoldOff, m.DataDir = c.g.Containerd, c.g.Ptrace, c.g.HoldOff, c.g.DataDir
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		m.Release = unix.ByteSliceToString(name.Release[:])
	}
	m.Lacks = lacks(os.Getenv(rootEnv), m.Release)
	if !c.g.Routed {
		refused, err := netsetup.ProbeBridgeFilter()
		c.doubt("nftables' bridge family", err)
		if refused != nil {
			m.NoBridgeFamily = refused.Error()
		}
	}
	c.dataDir()
	for _, p := range c.g.Needs {
		if taken, by := listener(p.Address); taken {
			p.Process = by
			m.Ports = append(m.Ports, p)
		}
	}
	m.Managers = managers(os.Getenv(rootEnv))
}

// modules are the parts of the kernel without which nothing works.
var modules = []string{"bridge", "veth", "nf_tables", "nft_chain_nat", "nft_masq", "nf_conntrack"}

// lacks names the modules that the kernel neither has nor can load. Where the files
// that list them are not there, as in many containers, nothing is named.
func lacks(root, release string) []string {
	if root == "" {
		root = "/"
	}
	dir := filepath.Join(root, "lib/modules", release)
	builtin, err1 := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	loadable, err2 := os.ReadFile(filepath.Join(dir, "modules.dep"))
	if err1 != nil || err2 != nil {
		return nil
	}
	var out []string
	for _, name := range modules {
		file := []byte("/" + name + ".ko")
		if _, err := os.Stat(filepath.Join(root, "sys/module", name)); err != nil && !bytes.Contains(builtin, file) && !bytes.Contains(loadable, file) {
			out = append(out, name)
		}
	}
	return out
}

func (c *collector) dataDir() {
	m := &c.f.Machine
	if m.DataDir == "" {
		return
	}
	var fs unix.Statfs_t
	if unix.Statfs(m.DataDir, &fs) == nil {
		m.Free, m.FreeKnown = fs.Bavail*uint64(fs.Bsize), true
	}
	var st unix.Stat_t
	switch err := unix.Stat(m.DataDir, &st); {
	case errors.Is(err, unix.ENOENT):
		if c.g.Member {
			m.DirProblem = fmt.Sprintf("the data directory %s does not exist", m.DataDir)
		}
		m.FreeKnown = false
	case err != nil:
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		m.DirProblem = m.DataDir + " is no directory"
	case st.Mode&0o077 != 0:
		m.DirProblem = fmt.Sprintf("others may read the data directory %s (mode %#o): it holds keys", m.DataDir, st.Mode&0o777)
	case int(st.Uid) != os.Geteuid():
		m.DirProblem = fmt.Sprintf("the data directory %s belongs to uid %d", m.DataDir, st.Uid)
	default:
		if fs.Flags&unix.ST_RDONLY != 0 {
			m.DirProblem = "the file system of " + m.DataDir + " is read-only"
		}
	}
}

// listener reports whether somebody in this namespace listens where the agent wants to,
// and who.
func listener(want netip.AddrPort) (taken bool, by string) {
	for _, table := range []string{"tcp", "tcp6"} {
		inode, ok := listening("/proc/thread-self/net/"+table, want)
		if ok {
			return true, processOf(inode)
		}
	}
	return false, ""
}

// listening looks through /proc/net/tcp for a socket that has, or covers, an address.
func listening(path string, want netip.AddrPort) (inode string, ok bool) {
	f, err := os.Open(path)
	if err != nil {
		return "", false
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		const listens = "0A"
		if len(fields) < 10 || fields[3] != listens {
			continue
		}
		host, port, _ := strings.Cut(fields[1], ":")
		if p, err := strconv.ParseUint(port, 16, 16); err != nil || uint16(p) != want.Port() {
			continue
		}
		if a, ok := procAddr(host); ok && (a.IsUnspecified() || a == want.Addr()) {
			return fields[9], true
		}
	}
	return "", false
}

// procAddr reads an address as /proc/net has it: words in the machine's order.
func procAddr(s string) (netip.Addr, bool) {
	raw, err := hex.DecodeString(s)
	if err != nil || len(raw)%4 != 0 {
		return netip.Addr{}, false
	}
	for i := 0; i < len(raw); i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	a, ok := netip.AddrFromSlice(raw)
	return a.Unmap(), ok
}

// processOf names the process that has a socket.
func processOf(inode string) string {
	fds, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return ""
	}
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && to == "socket:["+inode+"]" {
			dir := filepath.Dir(filepath.Dir(fd))
			comm, err := os.ReadFile(filepath.Join(dir, "comm"))
			if errors.Is(err, fs.ErrNotExist) {
				return ""
			}
			return fmt.Sprintf("%s (pid %s)", strings.TrimSpace(string(comm)), filepath.Base(dir))
		}
	}
	return ""
}
