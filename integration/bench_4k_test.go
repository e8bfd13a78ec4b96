package integration

import (
	endian "encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/client"
	"stellar.io/stellar/internal/nsx"
	"stellar.io/stellar/internal/testx"
)

const (
	fullNode        = 4093 // endpoints; the /20 has one address more, which the peer's check leaves free
	fullNodeWorkers = 8
	fullNodeSample  = 64 // endpoints that a container of another node calls
)

// benchFullNode fills the /20 of a node in routed mode through the agent's own socket,
// as CNI clients do, with namespaces that have no process, and asks whether all answer.
func benchFullNode(b *testing.B, t *table) {
	lan := testx.NewLAN(b, 2)
	n, peer := newNode(b, lan, 0, nodeOptions{}), newNode(b, lan, 1, nodeOptions{})
	n.startAgent()
	n.cli("cluster", "init", "--network", "10.0.0.0/8", "--subnet-prefix", "20")
	n.cli("status", "--wait", "--timeout", "30s")
	peer.startAgent()
	peer.join(n, n.token())
	for _, r := range []struct {
		n     *node
		route string
	}{{n, "10.0.16.0/20 via 192.0.2.2"}, {peer, "10.0.0.0/20 via 192.0.2.1"}} {
		r.n.eventually(quiet, r.n.name+" has the other's route", func() error {
			out, err := r.n.host.Output("ip", "route", "show", "proto", "147")
			if err == nil && !strings.Contains(out, r.route) {
				err = fmt.Errorf("no %s in %s", r.route, out)
			}
			return err
		})
	}
	size := scaled(fullNode)
	empty := residentMB(b, n.agent.Process.Pid)
	spaces := make([]*os.File, size)
	p := newProgress("namespaces", size)
	for i := range spaces {
		var err error
		if spaces[i], err = nsx.New(); err != nil {
			b.Fatal(err)
		}
		p.done(i)
	}
	b.Cleanup(func() {
		for _, f := range spaces {
			f.Close()
		}
	})
	began := time.Now()
	took, addrs := attachAll(b, n, spaces)
	rate := float64(size) / time.Since(began).Seconds()
	reached := echoes(b, n.host.FD, addrs)
	from, err := nsx.New()
	if err != nil {
		b.Fatal(err)
	}
	defer from.Close()
	_, _ = attachAll(b, peer, []*os.File{from})
	sample := addrs[:0:0]
	for i := 0; i < len(addrs); i += max(len(addrs)/fullNodeSample, 1) {
		sample = append(sample, addrs[i])
	}
	sampled := echoes(b, int(from.Fd()), sample)
	t.spread(fmt.Sprintf("one of %d attachments of a node, lease and all, %d at a time", size, fullNodeWorkers), "ms", took, bar{})
	t.spread(fmt.Sprintf("  one of the first %d", size/8), "ms", took[:size/8], bar{})
	t.spread(fmt.Sprintf("  one of the last %d", size/8), "ms", took[size-size/8:], bar{})
	t.value("  rate", "/s", size, rate, bar{})
	t.value("  do not answer their host", "", size, float64(len(addrs)-reached), bar{none: true})
	t.value("  do not answer a container of another node", "", len(sample), float64(len(sample)-sampled), bar{none: true})
	t.value("VmRSS of the agent with all of them", "MB", size, residentMB(b, n.agent.Process.Pid), bar{p50: 150})
	t.value("  before", "MB", 1, empty, bar{})
}

// attachAll attaches namespaces by the agent of a node, some at a time.
func attachAll(b *testing.B, n *node, spaces []*os.File) (took samples, addrs []netip.Addr) {
	b.Helper()
	c, err := client.New("unix://" + filepath.Join(n.dir, "run", "stellar.sock"))
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	var mu sync.Mutex // guards took, addrs, errs
	var errs []error
	p := newProgress("attachments on "+n.name, len(spaces))
	next := make(chan int)
	var wg sync.WaitGroup
	for range fullNodeWorkers {
		wg.Go(func() {
			for i := range next {
				start := time.Now()
				got, err := c.AddAttachment(b.Context(), api.AttachmentSpec{Attachment: api.Attachment{
					Network: "bench", ContainerID: fmt.Sprintf("full-%s-%d", n.name, i), Ifname: "eth0",
					NetNS: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), spaces[i].Fd()),
				}})
				mu.Lock()
				took.add(time.Since(start))
				addrs, errs = append(addrs, got.Address.Addr()), append(errs, err)
				mu.Unlock()
			}
		})
	}
	for i := range spaces {
		next <- i
		p.done(i)
	}
	close(next)
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		b.Fatalf("%v\n%s", err, n.tail())
	}
	return took, addrs
}

// echoes sends an ICMP echo request to each address from a namespace, again to those
// that have not answered, and returns how many answer.
func echoes(b *testing.B, ns int, addrs []netip.Addr) int {
	b.Helper()
	fd := -1
	err := nsx.Do(ns, func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
		return err
	})
	if err == nil {
		err = errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 200_000}),
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20))
	}
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(fd)
	left := make(map[netip.Addr]bool, len(addrs))
	for _, a := range addrs {
		left[a] = true
	}
	request := []byte{8, 0, 0, 0, 0x42, 0x42, 0, 1}
	endian.BigEndian.PutUint16(request[2:], ^uint16(0x0800+0x4242+1))
	listen := func() {
		buf := make([]byte, 1500)
		for {
			size, from, err := unix.Recvfrom(fd, buf, 0)
			if err != nil {
				return // nothing comes any more
			}
			if sa, ok := from.(*unix.SockaddrInet4); ok && size >= 28 && buf[20] == 0 { // echo reply
				delete(left, netip.AddrFrom4(sa.Addr))
			}
		}
	}
	for range 5 {
		var batch []netip.Addr
		for a := range left {
			batch = append(batch, a)
		}
		for i, a := range batch {
			_ = unix.Sendto(fd, request, 0, &unix.SockaddrInet4{Addr: a.As4()})
			if i%256 == 255 || i == len(batch)-1 {
				listen()
			}
		}
	}
	return len(addrs) - len(left)
}
