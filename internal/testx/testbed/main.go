// Testbed lends package testx to scripts: a private containerd that outlives
// the command, and images without a registry. It needs root.
//
//	testbed start DIR [-v2] [-netns NAME]     start a containerd in DIR; its socket is DIR/containerd.sock
//	testbed stop DIR                          end it with all its containers, and remove DIR
//	testbed image busybox|probe FILE [K=V]…   write an image with these labels, for `ctr images import`
//	testbed ctr DIR ARGUMENTS…                run the ctr that belongs to it
//	testbed run DIR ID [K=V]… [-- PROGRAM…]   run a busybox container with these labels in the background
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"stellar.io/stellar/internal/testx"
)

var errUsage = errors.New("usage: testbed start DIR [-v2] [-netns NAME] | stop DIR | image busybox|probe FILE [K=V]… | ctr DIR ARGUMENTS… | run DIR ID [K=V]… [-- PROGRAM…]")

type stderr struct{}

func (stderr) Logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "testbed:", err)
		if errors.Is(err, errUsage) {
			os.Exit(2)
		}
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 2 {
		return errUsage
	}
	verb, args := args[0], args[1:]
	if verb == "image" {
		return image(args)
	}
	dir, err := filepath.Abs(args[0])
	if err != nil {
		return err
	}
	if verb == "start" {
		return start(dir, args[1:])
	}
	c, err := testx.Open(stderr{}, dir)
	if errors.Is(err, os.ErrNotExist) && verb == "stop" {
		return nil
	}
	if err != nil {
		return err
	}
	switch {
	case verb == "stop":
		return c.Close()
	case verb == "ctr":
		out, err := c.Ctr(args[1:]...)
		fmt.Print(out)
		return err
	case verb == "run" && len(args) > 1:
		r := testx.Run{ID: args[1]}
		labels := args[2:]
		if i := slices.Index(labels, "--"); i >= 0 {
			labels, r.Args = labels[:i], labels[i+1:]
		}
		if r.Labels, err = pairs(labels); err != nil {
			return err
		}
		return c.Run(r)
	}
	return errUsage
}

func start(dir string, args []string) error {
	flags := flag.NewFlagSet("start", flag.ContinueOnError)
	v2 := flags.Bool("v2", false, "containerd 2.x")
	netns := flags.String("netns", "", "run in this network namespace")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	img, err := testx.Probe()
	if err != nil {
		return err
	}
	busybox := img.WithLabels(testx.BusyboxName, nil)
	o := testx.Options{Dir: dir, Keep: true, NetNS: *netns, Images: []testx.Image{busybox, img}}
	if *v2 {
		o.Version = testx.V2
	}
	c, err := testx.NewContainerd(stderr{}, o)
	if err != nil {
		return err
	}
	fmt.Println(c.Address)
	return nil
}

func image(args []string) error {
	if len(args) < 2 {
		return errUsage
	}
	build := map[string]func() (testx.Image, error){"busybox": testx.Busybox, "probe": testx.Probe}[args[0]]
	if build == nil {
		return errUsage
	}
	img, err := build()
	if err != nil {
		return err
	}
	if img.Labels, err = pairs(args[2:]); err != nil {
		return err
	}
	f, err := os.Create(args[1])
	if err != nil {
		return err
	}
	return errors.Join(img.WriteTar(f), f.Close())
}

func pairs(args []string) (map[string]string, error) {
	m := make(map[string]string)
	for _, arg := range args {
		k, v, ok := strings.Cut(arg, "=")
		if !ok {
			return nil, fmt.Errorf("%w: %q is not KEY=VALUE", errUsage, arg)
		}
		m[k] = v
	}
	return m, nil
}
