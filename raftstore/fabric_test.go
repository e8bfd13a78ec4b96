package raftstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// fabric is the network between the stores of a test: real TCP over loopback, whose
// connections pass gates that can be held (packets are late, as on a link that drops
// them), cut (connections break) and delayed, each direction for itself.
type fabric struct {
	t      testing.TB
	direct bool // connections without gates, to measure

	mu    sync.Mutex
	ports map[string]*port // address → who listens there
	gates map[[2]string]*gate
	conns map[*pipe]struct{}
	wg    sync.WaitGroup
}

// port is one node's listener.
type port struct {
	host string
	l    net.Listener
	slow bool
}

// gate is one direction between two hosts.
type gate struct {
	held  bool
	open  chan struct{} // closed when it is not held
	delay time.Duration
}

func newFabric(t testing.TB) *fabric {
	f := &fabric{t: t, ports: map[string]*port{}, gates: map[[2]string]*gate{}, conns: map[*pipe]struct{}{}}
	t.Cleanup(func() {
		f.breakConns(func(*pipe) bool { return true })
		f.wg.Wait()
	})
	return f
}

// listen opens a port under a symbolic address.
func (f *fabric) listen(host, address string) net.Listener {
	f.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatal(err)
	}
	f.mu.Lock()
	f.ports[address] = &port{host, l, !strings.HasPrefix(address, "rpc:")}
	f.mu.Unlock()
	return l
}

// forget makes an address unknown.
func (f *fabric) forget(address string) {
	f.mu.Lock()
	delete(f.ports, address)
	f.mu.Unlock()
}

func (f *fabric) gate(from, to string) *gate {
	g := f.gates[[2]string{from, to}]
	if g == nil {
		g = &gate{open: make(chan struct{})}
		close(g.open)
		f.gates[[2]string{from, to}] = g
	}
	return g
}

// hold stops or starts the flow of one direction.
func (f *fabric) hold(from, to string, held bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	g := f.gate(from, to)
	if g.held == held {
		return
	}
	g.held = held
	if held {
		g.open = make(chan struct{})
	} else {
		close(g.open)
	}
}

// delay slows Raft's connections down.
func (f *fabric) delay(from, to string, d time.Duration) {
	f.mu.Lock()
	f.gate(from, to).delay = d
	f.mu.Unlock()
}

// isolate holds or frees all directions between a host and the others.
func (f *fabric) isolate(host string, others []string, held bool) {
	for _, o := range others {
		if o != host {
			f.hold(host, o, held)
			f.hold(o, host, held)
		}
	}
}

// breakConns closes connections as a dying machine does not, but its kernel does.
func (f *fabric) breakConns(which func(*pipe) bool) {
	f.mu.Lock()
	var list []*pipe
	for p := range f.conns {
		if which(p) {
			list = append(list, p)
		}
	}
	f.mu.Unlock()
	for _, p := range list {
		p.close()
	}
}

// kill breaks a host's connections and holds it off.
func (f *fabric) kill(host string, others []string) {
	f.isolate(host, others, true)
	f.breakConns(func(p *pipe) bool { return p.from == host || p.to == host })
}

var errNoHost = errors.New("no such host")

// dial connects a host to an address.
func (f *fabric) dial(from, address string, timeout time.Duration) (net.Conn, error) {
	f.mu.Lock()
	p := f.ports[address]
	f.mu.Unlock()
	if p == nil {
		return nil, fmt.Errorf("%s: %w", address, errNoHost)
	}
	if f.direct {
		return net.DialTimeout("tcp", p.l.Addr().String(), timeout)
	}
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	for _, dir := range [][2]string{{from, p.host}, {p.host, from}} {
		f.mu.Lock()
		open := f.gate(dir[0], dir[1]).open
		f.mu.Unlock()
		select {
		case <-open:
		case <-deadline.C:
			return nil, fmt.Errorf("%s: %w", address, context.DeadlineExceeded)
		}
	}
	return f.connect(from, p)
}

// pipe is a connection through the gates.
type pipe struct {
	f        *fabric
	from, to string
	a, b     net.Conn // towards from, towards to
	slow     bool     // delays count
	done     chan struct{}
	once     sync.Once
}

func (p *pipe) close() {
	p.once.Do(func() {
		close(p.done)
		p.a.Close()
		p.b.Close()
		p.f.mu.Lock()
		delete(p.f.conns, p)
		p.f.mu.Unlock()
	})
}

func (f *fabric) connect(from string, to *port) (net.Conn, error) {
	b, err := net.Dial("tcp", to.l.Addr().String())
	if err != nil {
		return nil, err
	}
	mid, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	defer mid.Close()
	c, err := net.Dial("tcp", mid.Addr().String())
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	a, err := mid.Accept()
	if err != nil {
		return nil, errors.Join(err, b.Close(), c.Close())
	}
	p := &pipe{f: f, from: from, to: to.host, a: a, b: b, slow: to.slow, done: make(chan struct{})}
	f.mu.Lock()
	f.conns[p] = struct{}{}
	f.mu.Unlock()
	f.wg.Go(func() { p.copy(p.b, p.a, from, to.host) })
	f.wg.Go(func() { p.copy(p.a, p.b, to.host, from) })
	return c, nil
}

// copy moves bytes of one direction through its gate.
func (p *pipe) copy(dst io.Writer, src io.Reader, from, to string) {
	defer p.close()
	buf := make([]byte, 64<<10)
	for {
		n, err := src.Read(buf)
		for n > 0 {
			p.f.mu.Lock()
			g := p.f.gate(from, to)
			open, delay, held := g.open, g.delay, g.held
			p.f.mu.Unlock()
			if !p.slow {
				delay = 0
			}
			if !held && delay == 0 {
				break
			}
			select {
			case <-open:
			case <-p.done:
				return
			}
			if !held {
				time.Sleep(delay)
				break
			}
		}
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// streamsOf is a host's StreamLayer.
type streamsOf struct {
	net.Listener
	f    *fabric
	host string
}

func (s streamsOf) Dial(address string, timeout time.Duration) (net.Conn, error) {
	return s.f.dial(s.host, address, timeout)
}

// caller sends requests to the other hosts: one frame there, one back.
type caller struct {
	f    *fabric
	host string

	mu   sync.Mutex
	idle map[string][]net.Conn
}

func (c *caller) call(ctx context.Context, address string, request []byte) ([]byte, error) {
	c.mu.Lock()
	var conn net.Conn
	if list := c.idle[address]; len(list) > 0 {
		conn, c.idle[address] = list[len(list)-1], list[:len(list)-1]
	}
	c.mu.Unlock()
	if conn == nil {
		var err error
		if conn, err = c.f.dial(c.host, address, 500*time.Millisecond); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNotSent, err)
		}
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	answer, err := exchange(conn, request)
	if !stop() || err != nil {
		conn.Close()
		return nil, errors.Join(err, context.Cause(ctx))
	}
	c.mu.Lock()
	if c.idle == nil {
		conn.Close()
	} else {
		c.idle[address] = append(c.idle[address], conn)
	}
	c.mu.Unlock()
	return answer, nil
}

func (c *caller) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, list := range c.idle {
		for _, conn := range list {
			conn.Close()
		}
	}
	c.idle = nil
}

func exchange(conn net.Conn, request []byte) ([]byte, error) {
	if err := writeFrame(conn, request); err != nil {
		return nil, err
	}
	return readFrame(conn)
}

func writeFrame(w io.Writer, b []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...))
	return err
}

func readFrame(r io.Reader) ([]byte, error) {
	head := make([]byte, 4)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint32(head))
	_, err := io.ReadFull(r, b)
	return b, err
}

// serve answers requests until the listener is closed.
func serve(l net.Listener, handle func([]byte) []byte) (wait func()) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	conns := map[net.Conn]bool{}
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				mu.Lock()
				for c := range conns {
					c.Close()
				}
				mu.Unlock()
				return
			}
			mu.Lock()
			conns[conn] = true
			mu.Unlock()
			wg.Go(func() {
				defer func() {
					mu.Lock()
					delete(conns, conn)
					mu.Unlock()
					conn.Close()
				}()
				for {
					req, err := readFrame(conn)
					if err != nil || writeFrame(conn, handle(req)) != nil {
						return
					}
				}
			})
		}
	})
	return wg.Wait
}
