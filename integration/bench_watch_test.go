package integration

import (
	"bufio"
	endian "encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/testx"
)

// The watchers know nothing of the agent: one is containerd's own `ctr events`,
// the other listens to what the kernel announces of all namespaces.

// eventWatch notes when containerd says that tasks were created.
type eventWatch struct {
	mu      sync.Mutex // guards created
	created map[string]time.Time
}

// watchEvents listens until the benchmark ends.
func watchEvents(b *testing.B, c *testx.Containerd) *eventWatch {
	b.Helper()
	w := &eventWatch{created: map[string]time.Time{}}
	cmd := exec.Command("ctr", "--address", c.Address, "events")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			w.line(lines.Text())
		}
	}()
	b.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
		_ = cmd.Wait()
	})
	return w
}

// line reads "2006-01-02 15:04:05.999 +0000 UTC NAMESPACE /tasks/create {…}".
func (w *eventWatch) line(line string) {
	before, after, ok := strings.Cut(line, " /tasks/create ")
	f := strings.Fields(before)
	if !ok || len(f) != 5 {
		return
	}
	at, err := time.Parse("2006-01-02 15:04:05.999999999 -0700 MST", strings.Join(f[:4], " "))
	var e struct {
		ID string `json:"container_id"`
	}
	if err != nil || json.Unmarshal([]byte(after), &e) != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.created[e.ID] = at
}

func (w *eventWatch) taskCreate(b *testing.B, n *node, id string) (at time.Time) {
	b.Helper()
	n.eventually(quiet, "ctr events shows the task of "+id, func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		var ok bool
		if at, ok = w.created[id]; !ok {
			return errors.New("no such line")
		}
		return nil
	})
	return at
}

// kernelWatch notes when addresses, links and routes appear in the namespaces
// that a host is connected to.
type kernelWatch struct {
	fd int

	mu     sync.Mutex            // guards what follows
	spaces map[int32]*appearance // by the number that the host gives a namespace
	byAddr map[netip.Addr]*appearance
}

// appearance is when the last address of a namespace came, and what came after.
type appearance struct {
	address, up, route time.Time
	index              int
}

// watchKernel listens until the benchmark ends.
func watchKernel(b *testing.B, host *testx.NetNS) *kernelWatch {
	b.Helper()
	w := &kernelWatch{spaces: map[int32]*appearance{}, byAddr: map[netip.Addr]*appearance{}}
	err := host.Do(func() (err error) {
		w.fd, err = listenAll()
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go w.run(stop, done)
	b.Cleanup(func() {
		close(stop)
		<-done
		_ = unix.Close(w.fd)
	})
	return w
}

func listenAll() (fd int, err error) {
	fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return -1, err
	}
	err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	for _, group := range []int{unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE} {
		err = errors.Join(err, unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group))
	}
	return fd, errors.Join(err,
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_LISTEN_ALL_NSID, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}))
}

func (w *kernelWatch) run(stop, done chan struct{}) {
	defer close(done)
	data, control := make([]byte, 64<<10), make([]byte, 256)
	for {
		n, cn, _, _, err := unix.Recvmsg(w.fd, data, control, 0)
		now := time.Now()
		select {
		case <-stop:
			return
		default:
		}
		if err != nil {
			if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
				fmt.Fprintln(os.Stderr, "watching the kernel:", err)
			}
			continue
		}
		space, ok := spaceOf(control[:cn])
		if !ok { // the host's own
			continue
		}
		msgs, err := syscall.ParseNetlinkMessage(data[:n])
		if err != nil {
			continue
		}
		for _, m := range msgs {
			w.message(space, now, m)
		}
	}
}

// spaceOf reads which namespace a message is from.
func spaceOf(control []byte) (int32, bool) {
	msgs, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return 0, false
	}
	for _, m := range msgs {
		if m.Header.Level == unix.SOL_NETLINK && m.Header.Type == unix.NETLINK_LISTEN_ALL_NSID && len(m.Data) >= 4 {
			return int32(endian.NativeEndian.Uint32(m.Data)), true
		}
	}
	return 0, false
}

func (w *kernelWatch) message(space int32, now time.Time, m syscall.NetlinkMessage) {
	w.mu.Lock()
	defer w.mu.Unlock()
	have := w.spaces[space]
	switch m.Header.Type {
	case unix.RTM_NEWADDR:
		addr, index := addressOf(m)
		if !addr.IsValid() || addr.IsLoopback() {
			return
		}
		// Numbers of namespaces are used again: an address begins anew.
		have = &appearance{address: now, index: index}
		w.spaces[space], w.byAddr[addr] = have, have
	case unix.RTM_NEWLINK:
		if have == nil || len(m.Data) < unix.SizeofIfInfomsg {
			return
		}
		index, flags := int(endian.NativeEndian.Uint32(m.Data[4:])), endian.NativeEndian.Uint32(m.Data[8:])
		if index == have.index && flags&unix.IFF_UP != 0 && flags&unix.IFF_RUNNING != 0 && have.up.IsZero() {
			have.up = now
		}
	case unix.RTM_NEWROUTE:
		// The main table's default route: no destination.
		if have != nil && len(m.Data) >= unix.SizeofRtMsg && m.Data[0] == unix.AF_INET && m.Data[1] == 0 && m.Data[4] == unix.RT_TABLE_MAIN && have.route.IsZero() {
			have.route = now
		}
	}
}

func addressOf(m syscall.NetlinkMessage) (netip.Addr, int) {
	attrs, err := syscall.ParseNetlinkRouteAttr(&m)
	if err != nil || len(m.Data) < unix.SizeofIfAddrmsg {
		return netip.Addr{}, 0
	}
	for _, a := range attrs {
		if a.Attr.Type == unix.IFA_LOCAL && len(a.Value) == 4 {
			return netip.AddrFrom4([4]byte(a.Value)), int(endian.NativeEndian.Uint32(m.Data[4:]))
		}
	}
	return netip.Addr{}, 0
}

// ready returns when the last of address, link and default route was there.
func (w *kernelWatch) ready(b *testing.B, address string) time.Time {
	b.Helper()
	ip, err := netip.ParseAddr(address)
	if err != nil {
		b.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		w.mu.Lock()
		a := w.byAddr[ip]
		var at appearance
		if a != nil {
			at = *a
		}
		if !at.address.IsZero() && !at.up.IsZero() && !at.route.IsZero() {
			delete(w.byAddr, ip)
			w.mu.Unlock()
			last := at.address
			for _, t := range []time.Time{at.up, at.route} {
				if t.After(last) {
					last = t
				}
			}
			return last
		}
		w.mu.Unlock()
		if time.Now().After(deadline) {
			b.Fatalf("the kernel did not announce all of %s: %+v", address, at)
		}
	}
}
