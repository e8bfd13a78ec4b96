package routes

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/nlx"
)

// kernel is the main routing table of one network namespace. One goroutine uses it.
type kernel struct {
	c     *nlx.Conn
	names map[int]string
}

func openKernel(nsfd int) (*kernel, error) {
	c, err := nlx.Dial(nsfd, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	return &kernel{c: c, names: map[int]string{}}, nil
}

func (k *kernel) close() { k.c.Close() }

func (k *kernel) forget() { clear(k.names) }

func (k *kernel) routes() ([]nlx.FIBRoute, error) { return k.c.MainRoutes() }

func (k *kernel) lookup(addrs []netip.Addr) ([]nlx.Lookup, error) { return k.c.RouteTo(addrs) }

func (k *kernel) rpFilter(index int) (int, error) { return k.c.ReversePathFilter(index) }

// name returns the name of an interface, something to show for one that is gone.
func (k *kernel) name(index int) string {
	if index == 0 {
		return ""
	}
	name, known := k.names[index]
	if !known {
		name = fmt.Sprintf("interface %d", index)
		if link, err := k.c.LinkByIndex(index); err == nil {
			name = link.Name
		}
		k.names[index] = name
	}
	return name
}

// change makes the changes in order and returns the kernel's answer to each.
// What is already as it should be is no error.
func (k *kernel) change(actions []action) ([]error, error) {
	msgs := make([]*nlx.Message, len(actions))
	for i, a := range actions {
		if a.op == Delete {
			msgs[i] = nlx.DelMainRoute(a.fib)
		} else {
			msgs[i] = nlx.NewMainRoute(a.fib, a.op == Replace)
		}
	}
	errs, err := k.c.ChangeRoutes(msgs)
	if err != nil {
		return nil, fmt.Errorf("change routes: %w", err)
	}
	for i, a := range actions {
		switch {
		case errs[i] == nil:
		case a.op == Delete && errors.Is(errs[i], unix.ESRCH):
			errs[i] = nil
		case a.op != Delete && errors.Is(errs[i], unix.EEXIST):
			errs[i] = ErrRouteExists
		}
	}
	return errs, nil
}
