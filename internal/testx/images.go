package testx

import (
	"debug/elf"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// The names of the images that are built here.
const (
	BusyboxName = "docker.io/stellar/busybox:test"
	ProbeName   = "docker.io/stellar/probe:test"
)

// Busybox builds an image with a shell and the usual tools from the
// machine's busybox, which must be statically linked (Debian: busybox-static).
func Busybox() (Image, error) {
	file, err := exec.LookPath("busybox")
	if err != nil {
		return Image{}, fmt.Errorf("install busybox-static: %w", err)
	}
	if err := checkStatic(file); err != nil {
		return Image{}, err
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return Image{}, err
	}
	list, err := exec.Command(file, "--list").Output()
	if err != nil {
		return Image{}, fmt.Errorf("busybox --list: %w", err)
	}
	img := Image{Name: BusyboxName, Args: []string{"sh"}, Files: append(skeleton(), File{Path: "bin/busybox", Mode: 0o755, Data: data})}
	for _, applet := range strings.Fields(string(list)) {
		if applet != "busybox" {
			img.Files = append(img.Files, File{Path: "bin/" + applet, Link: "busybox"})
		}
	}
	return img, nil
}

// Probe builds an image with busybox and the program of ./probe, which
// tells what network a container sees. It calls the go command.
func Probe() (Image, error) {
	img, err := Busybox()
	if err != nil {
		return Image{}, err
	}
	root, err := moduleRoot()
	if err != nil {
		return Image{}, err
	}
	dir, err := os.MkdirTemp("", dirPrefix+"build-")
	if err != nil {
		return Image{}, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "probe")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", out, "./internal/testx/probe")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if msg, err := cmd.CombinedOutput(); err != nil {
		return Image{}, fmt.Errorf("build probe: %w: %s", err, msg)
	}
	data, err := os.ReadFile(out)
	if err != nil {
		return Image{}, err
	}
	img.Name, img.Args = ProbeName, []string{"probe"}
	img.Files = append(img.Files, File{Path: "bin/probe", Mode: 0o755, Data: data})
	return img, nil
}

// MustBusybox and MustProbe end the test if the image cannot be built.
func MustBusybox(t TB) Image {
	t.Helper()
	return must(t, Busybox)
}

// MustProbe is to Probe what MustBusybox is to Busybox.
func MustProbe(t TB) Image {
	t.Helper()
	return must(t, Probe)
}

func must(t TB, build func() (Image, error)) Image {
	t.Helper()
	img, err := build()
	if err != nil {
		t.Fatalf("build image: %v", err)
	}
	return img
}

// WithLabels returns a copy of the image under another name that brings labels.
func (i Image) WithLabels(name string, labels map[string]string) Image {
	i.Name = name
	i.Labels = maps.Clone(labels)
	i.Files = slices.Clip(i.Files)
	return i
}

// skeleton is what programs expect of a root directory.
func skeleton() []File {
	dir := os.ModeDir | 0o755
	return []File{
		{Path: "etc/passwd", Mode: 0o644, Data: []byte("root:x:0:0:root:/root:/bin/sh\n")},
		{Path: "etc/group", Mode: 0o644, Data: []byte("root:x:0:\n")},
		{Path: "root", Mode: dir}, {Path: "proc", Mode: dir}, {Path: "sys", Mode: dir}, {Path: "dev", Mode: dir},
		{Path: "run", Mode: dir}, {Path: "var", Mode: dir}, {Path: "tmp", Mode: os.ModeDir | 0o777},
	}
}

func checkStatic(file string) error {
	f, err := elf.Open(file)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	defer f.Close()
	if slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		return errors.New(file + " is not statically linked: install busybox-static")
	}
	return nil
}
