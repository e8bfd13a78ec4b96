package netsetup

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"os"
	"os/exec"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	iptablesTimeout = 10 * time.Second
	// lockWait is how long an iptables program waits for the others, in seconds.
	lockWait = "5"
)

// backend is one of the two iptables that may filter at the same time: the one
// that writes nftables rules and the one with kernel tables of its own.
type backend struct {
	name    string // "nft" or "legacy", also the programs' suffix
	version string // how `iptables -V` names it

	warned bool // that the programs are missing
}

func newBackends() []*backend {
	return []*backend{{name: "nft", version: "(nf_tables)"}, {name: "legacy", version: "(legacy)"}}
}

// programs finds iptables and iptables-restore of the backend; ok is false where
// they are not installed.
func (b *backend) programs(ctx context.Context) (list, restore string, ok bool) {
	if l, err := lookPath("iptables-" + b.name); err == nil {
		if r, err := lookPath("iptables-" + b.name + "-restore"); err == nil {
			return l, r, true
		}
	}
	l, errL := lookPath("iptables")
	r, errR := lookPath("iptables-restore")
	if errL != nil || errR != nil {
		return "", "", false
	}
	out, err := exec.CommandContext(ctx, l, "-V").Output()
	return l, r, err == nil && bytes.Contains(out, []byte(b.version))
}

// lookPath also looks where a service's PATH may not lead.
func lookPath(name string) (string, error) {
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin/", "/sbin/"} {
		if err == nil {
			break
		}
		path, err = exec.LookPath(dir + name)
	}
	return path, err
}

// syncForward makes the exception in the iptables FORWARD chains what it must be.
func (n *Network) syncForward(ctx context.Context) error {
	return n.forward(ctx, false)
}

// forward goes through both backends. No program is run where the kernel has no
// such table or where there is nothing to except and nothing of ours.
func (n *Network) forward(ctx context.Context, remove bool) error {
	n.syncMu.Lock()
	defer n.syncMu.Unlock()
	var errs []error
	for _, b := range n.backends {
		if err := n.forwardBackend(ctx, b, remove); err != nil {
			errs = append(errs, fmt.Errorf("forward rule of iptables-%s: %w", b.name, err))
		}
	}
	return errors.Join(errs...)
}

func (n *Network) forwardBackend(ctx context.Context, b *backend, remove bool) error {
	ctx, cancel := context.WithTimeout(ctx, iptablesTimeout)
	defer cancel()
	active, err := n.active(b)
	if err != nil || !active {
		return err
	}
	list, restore, ok := b.programs(ctx)
	if !ok {
		if !b.warned {
			n.log.Warn("an iptables table exists but not its program; a FORWARD policy of DROP would stop containers", "backend", b.name)
		}
		b.warned = true
		return nil
	}
	out, err := n.iptables(ctx, "", list, "-w", lockWait, "-S")
	if err != nil {
		return err
	}
	input := planForward(parseRuleset(out), n.layout.accepting(), remove)
	if input == "" {
		return nil
	}
	if _, err := n.iptables(ctx, input, restore, "-w", lockWait, "--noflush"); err != nil {
		return err
	}
	n.log.Info("forward rule changed", "backend", b.name, "rules", input)
	if !remove && n.ensured.Load() {
		n.cfg.OnRepair("forward rule", "iptables-"+b.name)
	}
	return nil
}

// active reports whether the backend's filter table exists in the host namespace.
// Asking the legacy program would create it.
func (n *Network) active(b *backend) (bool, error) {
	if b.name == "nft" {
		return n.filter.iptablesTable()
	}
	return n.legacyTable()
}

// legacyTable reports whether legacy iptables has a filter table here.
func (n *Network) legacyTable() (found bool, err error) {
	err = n.inHost(func() error {
		b, err := os.ReadFile("/proc/thread-self/net/ip_tables_names")
		for name := range strings.Lines(string(b)) {
			found = found || strings.TrimSpace(name) == "filter"
		}
		if errors.Is(err, os.ErrNotExist) {
			return nil // a kernel without legacy iptables
		}
		return err
	})
	return found, err
}

// iptables runs a program in the host namespace and returns what it printed.
func (n *Network) iptables(ctx context.Context, input, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	var out, errOut bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &errOut
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	// The child inherits the namespace of the thread that starts it.
	if err := n.inHost(cmd.Run); err != nil {
		return "", fmt.Errorf("%s: %w: %s", program, err, strings.TrimSpace(errOut.String()))
	}
	return out.String(), nil
}

// Constants of linux/netfilter_ipv4/ip_tables.h and the sizes of its structures.
const (
	iptGetInfo       = 64 // IPT_SO_GET_INFO
	iptGetEntries    = 65 // IPT_SO_GET_ENTRIES
	iptNameLen       = 32
	iptInfoLen       = 84 // struct ipt_getinfo
	iptInfoSize      = 80 // offset of its field size
	iptEntriesHeader = 40 // struct ipt_get_entries, padded
	iptEntryLen      = 112
	iptEntryNext     = 90 // offset of next_offset in struct ipt_entry
	iptEntryComefrom = 92 // comefrom and counters, which change by themselves, end the entry
)

// legacyFingerprint condenses the legacy filter table without its counters. It
// lets the watch notice a change without starting a program each second. Only
// called where the table exists: asking for it would create it.
func (n *Network) legacyFingerprint() (sum uint64, err error) {
	err = n.inHost(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return fmt.Errorf("legacy iptables: %w", err)
		}
		defer unix.Close(fd)
		info := make([]byte, iptInfoLen)
		copy(info, "filter")
		if err := getsockopt(fd, iptGetInfo, info); err != nil {
			return err
		}
		size := binary.NativeEndian.Uint32(info[iptInfoSize:])
		entries := make([]byte, iptEntriesHeader+int(size))
		copy(entries, "filter")
		binary.NativeEndian.PutUint32(entries[iptNameLen:], size)
		if err := getsockopt(fd, iptGetEntries, entries); err != nil {
			return err
		}
		sum = hashEntries(n.seed, entries[iptEntriesHeader:])
		return nil
	})
	return sum, err
}

func hashEntries(seed maphash.Seed, b []byte) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	for len(b) >= iptEntryLen {
		next := int(binary.NativeEndian.Uint16(b[iptEntryNext:]))
		if next < iptEntryLen || next > len(b) {
			break
		}
		h.Write(b[:iptEntryComefrom])
		h.Write(b[iptEntryLen:next])
		b = b[next:]
	}
	return h.Sum64()
}

func getsockopt(fd, option int, b []byte) error {
	size := uint32(len(b))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_IP, uintptr(option),
		uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return fmt.Errorf("legacy iptables: %w", errno)
	}
	return nil
}
