package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// mount is what one mount point is to a process.
type mount struct {
	Path     string
	ReadOnly bool
	Hidden   bool // nothing of it is to be seen
}

// own are the trees that a unit of systemd has for itself. Whoever runs a program
// has other ones, or none, and names what it may write.
var own = []string{"/dev", "/tmp", "/var/tmp", "/run/credentials", "/run/systemd", "/run/stellar", "/var/lib/stellar", "/etc/stellar"}

// mounts reads what a process sees: of several mounts on one another the topmost.
func mounts(pid int) ([]mount, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		return nil, err
	}
	var out []mount
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line) // ID parent device root point options …, proc_pid_mountinfo(5)
		if len(f) < 6 {
			return nil, fmt.Errorf("mountinfo says %q", line)
		}
		m := mount{Path: f[4], ReadOnly: slices.Contains(strings.Split(f[5], ","), "ro"), Hidden: strings.Contains(f[3], "systemd/inaccessible/")}
		if slices.ContainsFunc(own, func(tree string) bool { return within(m.Path, tree) }) || strings.Contains(m.Path, `\`) {
			continue
		}
		out = slices.DeleteFunc(out, func(below mount) bool { return below.Path == m.Path })
		out = append(out, m)
	}
	slices.SortStableFunc(out, func(a, b mount) int { return strings.Compare(a.Path, b.Path) })
	return out, nil
}

func within(path, tree string) bool { return path == tree || strings.HasPrefix(path, tree+"/") }

// restrictFiles gives the calling thread mounts of its own, of which nothing can
// be written but what the list says, /dev and the tree writable. What is mounted
// outside later still arrives.
func restrictFiles(list []mount, writable string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare mounts: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("make mounts slaves: %w", err)
	}
	if err := unix.MountSetattr(unix.AT_FDCWD, "/", unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		return fmt.Errorf("make mounts read-only: %w", err)
	}
	list = slices.Concat([]mount{{Path: "/dev"}, {Path: writable}}, list)
	for _, m := range list {
		if m.Path == "/" {
			continue
		}
		if err := m.apply(writable); err != nil && !errors.Is(err, unix.ENOENT) { // what this machine does not have
			return fmt.Errorf("mount %s: %w", m.Path, err)
		}
	}
	return nil
}

// apply makes a mount of what is at the path already, with the mount's flags. The
// tree writable is that already.
func (m mount) apply(writable string) error {
	if m.Hidden {
		return hide(m.Path, writable)
	}
	if err := unix.Mount(m.Path, m.Path, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	attr := unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}
	if m.ReadOnly {
		attr = unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	}
	return unix.MountSetattr(unix.AT_FDCWD, m.Path, unix.AT_RECURSIVE, &attr)
}

// hide puts something that nobody may read without CAP_DAC_OVERRIDE in the place of a
// directory or file; a file is made below writable for that.
func hide(path, writable string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.IsDir() {
		return unix.Mount("none", path, "tmpfs", unix.MS_RDONLY|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_NOSUID, "mode=000,size=4k")
	}
	f, err := os.CreateTemp(writable, "hidden")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	return errors.Join(f.Chmod(0), f.Close(), unix.Mount(f.Name(), path, "", unix.MS_BIND, ""))
}
