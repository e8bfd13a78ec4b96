package ping

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Socket sends requests and hears what comes back. One goroutine at a time uses it.
type Socket struct {
	file *os.File
	raw  interface {
		Read(func(uintptr) bool) error
	}
	id     uint16
	cookie cookie
	buf    []byte
}

// Open opens a socket in the network namespace of the calling thread. It needs
// CAP_NET_RAW. With dontFragment, packets leave in one piece or not at all, whatever
// the kernel believes of the path. The caller closes it.
func Open(dontFragment bool) (*Socket, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	if err != nil {
		return nil, fmt.Errorf("open an ICMP socket: %w", err)
	}
	s := &Socket{file: os.NewFile(uintptr(fd), "icmp"), buf: make([]byte, 64<<10)}
	discover := unix.IP_PMTUDISC_DONT
	if dontFragment {
		discover = unix.IP_PMTUDISC_PROBE
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, discover); err != nil {
		s.Close()
		return nil, fmt.Errorf("set the ICMP socket's MTU discovery: %w", err)
	}
	if s.raw, err = s.file.SyscallConn(); err != nil {
		s.Close()
		return nil, fmt.Errorf("open an ICMP socket: %w", err)
	}
	var random [10]byte
	rand.Read(random[:])
	s.id, s.cookie = binary.BigEndian.Uint16(random[8:]), cookie(random[:8])
	return s, nil
}

// Close closes the socket. It may be called more than once.
func (s *Socket) Close() error {
	if err := s.file.Close(); !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// send sends one request.
func (s *Socket) send(to netip.Addr, seq uint16, size int) error {
	request := echo(s.id, seq, s.cookie, size)
	var err error
	if e := s.control(func(fd int) { err = unix.Sendto(fd, request, 0, &unix.SockaddrInet4{Addr: to.As4()}) }); e != nil {
		return e
	}
	return err
}

func (s *Socket) control(fn func(fd int)) error {
	c, err := s.file.SyscallConn()
	if err != nil {
		return err
	}
	return c.Control(func(fd uintptr) { fn(int(fd)) })
}

// receive waits until the deadline for a packet about a request to target;
// os.ErrDeadlineExceeded when there is none.
func (s *Socket) receive(target netip.Addr, deadline time.Time) (answer, time.Time, error) {
	if err := s.file.SetReadDeadline(deadline); err != nil {
		return answer{}, time.Time{}, err
	}
	for {
		var n int
		var err error
		if e := s.raw.Read(func(fd uintptr) bool {
			n, _, err = unix.Recvfrom(int(fd), s.buf, 0)
			return !errors.Is(err, unix.EAGAIN)
		}); e != nil {
			return answer{}, time.Time{}, e
		}
		now := time.Now()
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return answer{}, now, fmt.Errorf("receive: %w", err)
		}
		if a, ok := parse(s.buf[:n], target, s.id, s.cookie); ok {
			return a, now, nil
		}
	}
}

// sendProblem says what it means that the kernel does not let a request go.
func sendProblem(err error) string {
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return "not sent: a filter of this host refuses it"
	case errors.Is(err, unix.ENETUNREACH):
		return "not sent: no route to the target"
	case errors.Is(err, unix.EHOSTUNREACH):
		return "not sent: the route to the target is unreachable, or nobody has the next hop's address"
	case errors.Is(err, unix.EMSGSIZE):
		return "not sent: larger than the MTU of its interface"
	case errors.Is(err, unix.EINVAL):
		return "not sent: the target is no address of a host"
	}
	return "not sent: " + err.Error()
}
