package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// deaf has n lose what comes from the others' node-to-node ports, that many of 100
// packets. The others hear n unless they are made deaf too.
func (n *node) deaf(percent int, to ...*node) {
	n.t.Helper()
	if len(to) == 0 {
		return
	}
	var from []string
	for _, o := range to {
		ip, _, _ := strings.Cut(o.address(), ":")
		from = append(from, ip)
	}
	loss := "" // nft refuses a comparison that is always true
	if percent < 100 {
		loss = fmt.Sprintf("numgen random mod 100 < %d ", percent)
	}
	text := "add table inet fault; add chain inet fault input { type filter hook input priority 0; }"
	for _, port := range []string{"dport", "sport"} {
		text += fmt.Sprintf("; add rule inet fault input ip saddr { %s } tcp %s 9640 %sdrop", strings.Join(from, ", "), port, loss)
	}
	n.host.Run(n.t, "nft", text)
}

// hears undoes deaf; it is idempotent.
func (n *node) hears() {
	n.t.Helper()
	n.host.Run(n.t, "nft", "add table inet fault; delete table inet fault")
}

// slowLinks leads the node-to-node connections of all hosts through proxies that
// hold every piece of data back for as long as the delay says, each way. While
// the delay is zero they pass it on at once. Call it before agents start:
// connections that are there already do not change their way.
type slowLinks struct {
	mean, spread atomic.Int64 // nanoseconds
	wg           sync.WaitGroup
}

const (
	proxyPort = 19640
	proxyMark = 9640 // of the proxies' own connections, which go straight on
)

func newSlowLinks(t *testing.T, nodes []*node) *slowLinks {
	t.Helper()
	s := &slowLinks{}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() {
		cancel()
		s.wg.Wait()
	})
	for _, n := range nodes {
		var l net.Listener
		if err := n.host.Do(func() (err error) {
			l, err = net.Listen("tcp4", fmt.Sprintf("0.0.0.0:%d", proxyPort))
			return err
		}); err != nil {
			t.Fatal(err)
		}
		n.host.Run(t, "nft", fmt.Sprintf("add table ip slow; add chain ip slow output { type nat hook output priority -100; }; "+
			"add rule ip slow output oifname eth0 tcp dport 9640 meta mark != %d redirect to :%d", proxyMark, proxyPort))
		stop := context.AfterFunc(ctx, func() { l.Close() })
		s.wg.Go(func() {
			defer stop()
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				s.wg.Go(func() { s.serve(ctx, n, c.(*net.TCPConn)) })
			}
		})
	}
	return s
}

// set changes the delay of what is sent from now on.
func (s *slowLinks) set(mean, spread time.Duration) {
	s.mean.Store(int64(mean))
	s.spread.Store(int64(spread))
}

func (s *slowLinks) delay() time.Duration {
	mean, spread := s.mean.Load(), s.spread.Load()
	if spread == 0 {
		return time.Duration(mean)
	}
	return time.Duration(mean - spread + rand.Int64N(2*spread))
}

// serve carries one connection to where it was meant to go.
func (s *slowLinks) serve(ctx context.Context, n *node, in *net.TCPConn) {
	defer in.Close()
	to, err := originalDestination(in)
	if err != nil {
		return
	}
	var out net.Conn
	dialer := net.Dialer{Timeout: 5 * time.Second, Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		return cmpErr(raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, proxyMark) }), &err)
	}}
	// A dial to an address, not a name, stays on the thread that is in the namespace.
	if err := n.host.Do(func() (err error) {
		out, err = dialer.DialContext(ctx, "tcp4", to)
		return err
	}); err != nil {
		return
	}
	defer out.Close()
	defer context.AfterFunc(ctx, func() { in.Close(); out.Close() })()
	var wg sync.WaitGroup
	wg.Go(func() { s.carry(out, in) })
	wg.Go(func() { s.carry(in, out) })
	wg.Wait()
}

func cmpErr(err error, inner *error) error {
	if err != nil {
		return err
	}
	return *inner
}

// originalDestination is where a redirected connection was meant to go.
func originalDestination(c *net.TCPConn) (string, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return "", err
	}
	var dst *unix.IPv6Mreq // large enough for a sockaddr_in, which is what comes back
	var inner error
	err = cmpErr(raw.Control(func(fd uintptr) { dst, inner = unix.GetsockoptIPv6Mreq(int(fd), unix.SOL_IP, unix.SO_ORIGINAL_DST) }), &inner)
	if err != nil {
		return "", err
	}
	a := dst.Multiaddr
	return fmt.Sprintf("%d.%d.%d.%d:%d", a[4], a[5], a[6], a[7], int(a[2])<<8|int(a[3])), nil
}

// carry passes data on, in its order, each piece after its delay, until an end closes.
func (s *slowLinks) carry(to, from net.Conn) {
	type piece struct {
		data []byte
		due  time.Time
	}
	pieces := make(chan piece, 1024)
	var wg sync.WaitGroup
	wg.Go(func() {
		for p := range pieces {
			time.Sleep(time.Until(p.due))
			if _, err := to.Write(p.data); err != nil {
				from.Close() // else the reader would not end
			}
		}
	})
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			pieces <- piece{append([]byte(nil), buf[:n]...), time.Now().Add(s.delay())}
		}
		if err != nil {
			break
		}
	}
	close(pieces)
	wg.Wait()
	if c, ok := to.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
	}
}
