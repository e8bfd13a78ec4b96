package netsetup

import (
	"context"
	"net/netip"

	"stellar.io/stellar/internal/nlx"
	"stellar.io/stellar/ipam"
)

// layout is what the two modes differ in: what all endpoints share, and what an
// endpoint needs besides its pair of links. bridged and routed are the two.
type layout interface {
	// ready reports whether what the endpoints share has been there once. Free.
	ready() bool
	// sync makes what the endpoints share what it must be and reports what it had to
	// change, unless it is only now made for the first time.
	sync(ctx context.Context) error
	// version changes when all host ends have to be looked at again.
	version() int64
	// sysctls are parameters, path and value, that are looked at each second.
	sysctls() [][2]string
	// capacity is the most endpoints, and full why it is not more.
	capacity() int
	full() string
	// leave removes what the other mode has left, links being all of the host's.
	leave(c *nlx.Conn, links []nlx.Link) error

	// veth completes the request for a pair.
	veth(a *attachment, v *nlx.NewVeth)
	// again says whether a request for a pair that was refused may succeed now.
	again(ctx context.Context, a *attachment, refused error) (bool, error)
	// host are the messages that make the host's end work; they begin with the one
	// that sets its alias.
	host(a *attachment, alias *nlx.Message) []*nlx.Message
	// refused says what it means that the kernel has refused one of them.
	refused(a *attachment, err error) error
	// guest are the messages that make the container's end work; the route to dst
	// comes last.
	guest(a *attachment, dst netip.Prefix) []*nlx.Message
	// entered is called when the table knows of the port.
	entered(a *attachment) error

	// want is what the host's end must look like.
	want(p port) portWant
	// entries makes what ports need besides their links what it must be.
	entries(c *nlx.Conn, ports []port) error
	// forget removes what the host remembers of addresses.
	forget(c *nlx.Conn, addrs []netip.Addr) error
	// notice reads a notification that is about no port's link; done: nothing else is
	// to be learnt from it.
	notice(w *watch, typ uint16, body []byte) (done bool)
	// groups are those that notice needs besides links, addresses and routes.
	groups() []int

	// accepting are the rules of our chain for iptables, as iptables lists them.
	accepting() []string
}

func newLayout(n *Network) layout {
	if n.cfg.Mode == ipam.ModeRouted {
		return &routed{n: n}
	}
	return &bridged{n: n}
}
