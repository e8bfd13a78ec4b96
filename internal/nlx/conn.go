// Package nlx is netlink made safe.
//
// It answers these real problems: a dump that races with changes is cut short
// and, taken for the truth, leads to deletions of what is there (Dump retries
// and never returns a partial one); the usual library waits 60 s for an answer
// (5 s here); descriptors that leak pin namespaces (everything here has one
// Close); and requests that depend on each other cost a system call each (Do
// sends a batch in one).
//
// Conn speaks raw messages, for paths where time counts. Handle is
// vishvananda/netlink with safe lists, for all others. No other package calls
// that library's list functions.
package nlx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/nsx"
)

const (
	// timeout bounds the wait for the kernel's answer.
	timeout = 5 * time.Second
	// dumpTries bounds how often an interrupted dump is repeated.
	dumpTries = 10
	// receiveBuffer holds the largest datagram that the kernel sends: dumps fill
	// at most 32 KiB per message.
	receiveBuffer = 64 << 10
)

// Conn is a netlink socket bound to the namespace it was opened in. It is safe
// for concurrent use; requests queue.
type Conn struct {
	fd int

	mu  sync.Mutex // guards everything below and one exchange with the kernel
	seq uint32
	out []byte
	in  []byte
}

// Reply is the kernel's answer to one message of a batch.
type Reply struct {
	Err  error    // an *Error when the kernel refused
	Data [][]byte // payloads after the netlink header: what a get or an echo returned
}

// Dial opens a socket of a netlink protocol (NETLINK_ROUTE, …) in the namespace
// with the open descriptor nsfd; nsfd -1 is the calling thread's namespace.
func Dial(nsfd, protocol int) (*Conn, error) {
	fd, err := socketAt(nsfd, protocol, 0)
	if err != nil {
		return nil, err
	}
	return &Conn{fd: fd, in: make([]byte, receiveBuffer)}, nil
}

func socketAt(nsfd, protocol int, flags int) (int, error) {
	fd := -1
	open := func() (err error) {
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|flags, protocol)
		return err
	}
	var err error
	if nsfd < 0 {
		err = open()
	} else {
		err = nsx.Do(nsfd, open)
	}
	if err != nil {
		return -1, fmt.Errorf("netlink socket: %w", err)
	}
	if err := configure(fd); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("netlink socket: %w", err)
	}
	return fd, nil
}

func configure(fd int) error {
	tv := unix.NsecToTimeval(timeout.Nanoseconds())
	return errors.Join(
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv),
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1),
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1),
		// Lets the kernel apply the filters of a dump request.
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1),
	)
}

// Close releases the socket. It must not be called during a request.
func (c *Conn) Close() error { return unix.Close(c.fd) }

// Do sends the messages in one system call and returns a reply for each, in
// order. The kernel goes on after a refused one. The error is about the
// exchange itself; what took effect is then unknown.
func (c *Conn) Do(msgs ...*Message) ([]Reply, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := c.seq + 1
	c.seq += uint32(len(msgs))
	if err := c.send(msgs, first, 0); err != nil {
		return nil, err
	}
	replies := make([]Reply, len(msgs))
	for open := len(msgs); open > 0; {
		err := c.receive(func(h header, body []byte) {
			i := h.seq - first
			if i >= uint32(len(msgs)) {
				return // an answer to a request that timed out
			}
			if h.typ == unix.NLMSG_ERROR {
				replies[i].Err = decodeError(h, body)
				open--
				return
			}
			replies[i].Data = append(replies[i].Data, append([]byte(nil), body...))
		})
		if err != nil {
			return nil, err
		}
	}
	return replies, nil
}

// Dump sends a get request for all objects and returns the payloads. It repeats
// an interrupted dump and returns ErrInterrupted rather than a partial result.
func (c *Conn) Dump(m *Message) ([][]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for range dumpTries {
		data, interrupted, err := c.dumpOnce(m)
		if err != nil {
			return nil, err
		}
		if !interrupted {
			return data, nil
		}
	}
	return nil, ErrInterrupted
}

func (c *Conn) dumpOnce(m *Message) (data [][]byte, interrupted bool, err error) {
	c.seq++
	if err := c.send([]*Message{m}, c.seq, unix.NLM_F_DUMP); err != nil {
		return nil, false, err
	}
	var refused error
	for done := false; !done; {
		err := c.receive(func(h header, body []byte) {
			if h.seq != c.seq {
				return
			}
			interrupted = interrupted || h.flags&unix.NLM_F_DUMP_INTR != 0
			switch h.typ {
			case unix.NLMSG_DONE, unix.NLMSG_ERROR:
				refused, done = decodeError(h, body), true
			default:
				data = append(data, append([]byte(nil), body...))
			}
		})
		if err != nil {
			return nil, false, err
		}
	}
	return data, interrupted, refused
}

func (c *Conn) send(msgs []*Message, first uint32, extra uint16) error {
	c.out = c.out[:0]
	for i, m := range msgs {
		c.out = m.appendTo(c.out, first+uint32(i), extra)
	}
	for {
		err := unix.Sendto(c.fd, c.out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if !errors.Is(err, unix.EINTR) {
			return exchangeError("send", err)
		}
	}
}

type header struct {
	typ, flags uint16
	seq        uint32
}

// receive reads one datagram and calls fn for each message in it. The body is
// only valid during the call.
func (c *Conn) receive(fn func(h header, body []byte)) error {
	n, from, err := unix.Recvfrom(c.fd, c.in, 0)
	for errors.Is(err, unix.EINTR) {
		n, from, err = unix.Recvfrom(c.fd, c.in, 0)
	}
	if err != nil {
		return exchangeError("receive", err)
	}
	if sa, ok := from.(*unix.SockaddrNetlink); !ok || sa.Pid != 0 {
		return nil // not from the kernel
	}
	split(c.in[:n], fn)
	return nil
}

func split(b []byte, fn func(h header, body []byte)) {
	for len(b) >= unix.SizeofNlMsghdr {
		n := int(binary.NativeEndian.Uint32(b))
		if n < unix.SizeofNlMsghdr || n > len(b) {
			return
		}
		fn(header{
			typ:   binary.NativeEndian.Uint16(b[4:]),
			flags: binary.NativeEndian.Uint16(b[6:]),
			seq:   binary.NativeEndian.Uint32(b[8:]),
		}, b[unix.SizeofNlMsghdr:n])
		next := (n + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1)
		b = b[min(next, len(b)):]
	}
}

func exchangeError(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EAGAIN):
		return fmt.Errorf("netlink %s: %w", what, ErrTimeout)
	case errors.Is(err, unix.ENOBUFS):
		return fmt.Errorf("netlink %s: %w", what, ErrOverrun)
	}
	return fmt.Errorf("netlink %s: %w", what, err)
}

// decodeError reads the errno and the kernel's text from an acknowledgement.
// Both NLMSG_ERROR and NLMSG_DONE begin with the errno.
func decodeError(h header, body []byte) error {
	if len(body) < 4 {
		return nil
	}
	errno := -int32(binary.NativeEndian.Uint32(body))
	if errno == 0 {
		return nil
	}
	e := &Error{Errno: syscall.Errno(errno)}
	if h.typ == unix.NLMSG_ERROR && h.flags&unix.NLM_F_ACK_TLVS != 0 {
		// errno, then the header of the request (its body is cut off by
		// NETLINK_CAP_ACK), then attributes.
		if rest := 4 + unix.SizeofNlMsghdr; len(body) > rest {
			attrs(body[rest:], func(typ uint16, v []byte) {
				if typ == unix.NLMSGERR_ATTR_MSG {
					e.Text = unix.ByteSliceToString(v)
				}
			})
		}
	}
	return e
}
