package netsetup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/nlx"
	"stellar.io/stellar/ipam"
)

// CloseNS releases the namespace's descriptor and keeps the process's: the
// namespace may then die with its processes, and Exited and WaitExit go on
// working. ID is afterwards the identity of before.
func (ns *Namespace) CloseNS() error {
	if ns.file == nil {
		return nil
	}
	err := ns.file.Close()
	ns.file = nil
	return err
}

// Inhabited reports whether any process lives in the namespace that the owner's
// endpoint leads to. A namespace without processes may still exist, held by a
// mount or a descriptor. No endpoint: false.
func (n *Network) Inhabited(ctx context.Context, owner ipam.Owner) (bool, error) {
	if err := n.load(ctx); err != nil {
		return false, err
	}
	p, ok := n.table.get(owner)
	if !ok {
		return false, nil
	}
	c, err := n.conn()
	if err != nil {
		return false, err
	}
	defer n.release(c)
	l, err := c.LinkByIndex(p.HostIndex)
	if errors.Is(err, unix.ENODEV) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for inhabitants of %s: %w", owner, err)
	}
	if m, ours := parseAlias(l.Alias); !ours || m.owner != owner {
		return false, nil
	}
	if l.NSID == nlx.NoNSID {
		return false, nil // the container's end was moved into the host's own namespace
	}
	return inhabited(c, l.NSID)
}

// inhabited looks for a process whose namespace c's namespace knows as nsid.
func inhabited(c *nlx.Conn, nsid int) (bool, error) {
	procs, err := filepath.Glob("/proc/[1-9]*")
	if err != nil {
		return false, err
	}
	seen := map[string]bool{}
	for _, dir := range procs {
		if _, err := strconv.Atoi(filepath.Base(dir)); err != nil {
			continue
		}
		name, err := os.Readlink(dir + "/ns/net")
		if err != nil || seen[name] {
			continue // it has exited, or is a zombie
		}
		seen[name] = true
		f, err := os.Open(dir + "/ns/net")
		if err != nil {
			delete(seen, name)
			continue
		}
		id, err := c.NSID(int(f.Fd()))
		f.Close()
		if err != nil {
			return false, fmt.Errorf("look up namespace of pid %s: %w", filepath.Base(dir), err)
		}
		if id == nsid {
			return true, nil
		}
	}
	return false, nil
}

// EndpointIn returns the endpoint that leads to the namespace, whoever owns it.
// It lists the host's links: it is for the rare cases, not for every attach.
func (n *Network) EndpointIn(ctx context.Context, ns *Namespace) (Endpoint, bool, error) {
	if err := ctx.Err(); err != nil {
		return Endpoint{}, false, err
	}
	c, err := n.conn()
	if err != nil {
		return Endpoint{}, false, err
	}
	defer n.release(c)
	id, err := c.NSID(int(ns.file.Fd()))
	if err != nil || id == nlx.NoNSID {
		return Endpoint{}, false, err // without a number, no link of the host leads there
	}
	links, err := c.Links()
	if err != nil {
		return Endpoint{}, false, err
	}
	for _, l := range links {
		if p, ok := portOf(l); ok && l.NSID == id {
			return p.Endpoint, true, nil
		}
	}
	return Endpoint{}, false, nil
}
