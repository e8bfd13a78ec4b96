package nlx

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// subscriptionBuffer holds some 8,000 link notifications (about 2 KiB of kernel
// memory each) while the reader is busy.
const subscriptionBuffer = 16 << 20

// Subscription receives the kernel's notifications of one protocol.
type Subscription struct {
	file *os.File
	in   []byte
}

// Subscribe listens to multicast groups (RTNLGRP_LINK, …) in the namespace with
// the open descriptor nsfd. Changes after its return are seen.
func Subscribe(nsfd, protocol int, groups ...int) (*Subscription, error) {
	fd, err := socketAt(nsfd, protocol, unix.SOCK_NONBLOCK)
	if err != nil {
		return nil, err
	}
	// Beyond rmem_max only with CAP_NET_ADMIN in the initial user namespace; a
	// smaller buffer merely resynchronises more often.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, subscriptionBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, subscriptionBuffer)
	}
	for _, g := range groups {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, g); err != nil {
			unix.Close(fd)
			return nil, fmt.Errorf("netlink group %d: %w", g, err)
		}
	}
	return &Subscription{file: os.NewFile(uintptr(fd), "netlink"), in: make([]byte, receiveBuffer)}, nil
}

// Close releases the socket; a waiting Receive returns an error.
func (s *Subscription) Close() error { return s.file.Close() }

// Receive waits for notifications and calls fn for each message of one datagram:
// its type and its payload, valid during the call. It returns ErrOverrun when
// notifications were lost; the subscription goes on after that. One goroutine
// receives.
func (s *Subscription) Receive(ctx context.Context, fn func(typ uint16, body []byte)) error {
	if err := s.file.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("netlink receive: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = s.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := s.file.SyscallConn()
	if err != nil {
		return fmt.Errorf("netlink receive: %w", err)
	}
	var n int
	var from unix.Sockaddr
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		n, from, failed = unix.Recvfrom(int(fd), s.in, 0)
		return failed != unix.EAGAIN && failed != unix.EINTR
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("netlink receive: %w", err)
	}
	if failed != nil {
		return exchangeError("receive", failed)
	}
	if sa, ok := from.(*unix.SockaddrNetlink); !ok || sa.Pid != 0 {
		return nil
	}
	split(s.in[:n], func(h header, body []byte) { fn(h.typ, body) })
	return nil
}
