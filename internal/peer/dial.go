package peer

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"stellar.io/stellar/internal/pki"
	"stellar.io/stellar/ipam"
)

// dial connects to an address for a protocol. expect is the node that must
// answer; empty: any server, and for Raft any node that may speak it.
func (p *Port) dial(ctx context.Context, address string, proto Protocol, expect ipam.NodeID) (net.Conn, error) {
	select {
	case <-p.done:
		return nil, fmt.Errorf("dial %s: %w", address, net.ErrClosed)
	default:
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.HandshakeTimeout)
	defer cancel()
	defer p.cancelWhenDone(cancel)()

	peer := Peer{Protocol: proto}
	cfg := clientTLS(proto, func(cs tls.ConnectionState) (err error) {
		if peer.Identity, err = p.cfg.TLS.VerifyServer(cs); err != nil {
			return err
		}
		return fits(peer.Identity, proto, expect)
	})
	cfg.GetClientCertificate = p.cfg.TLS.GetClientCertificate
	t, raw, err := connect(ctx, address, cfg, greeting{generation: p.cfg.Generation()}, &peer)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", address, err)
	}
	c := newConn(t, raw, peer, p.registry)
	if _, err := p.registry.add(c); err != nil {
		raw.Close()
		return nil, fmt.Errorf("dial %s: %w", address, err)
	}
	if err := p.cfg.Admit(peer); err != nil { // entered first, asked second: see DropNode
		c.kill()
		return nil, fmt.Errorf("dial %s: node %s is not admitted here: %w", address, peer.Identity, err)
	}
	return c, nil
}

// cancelWhenDone calls cancel when the port closes, until stop is called.
func (p *Port) cancelWhenDone(cancel func()) (stop func()) {
	stopped := make(chan struct{})
	go func() {
		select {
		case <-p.done:
			cancel()
		case <-stopped:
		}
	}()
	return func() { close(stopped) }
}

// fits says whether the node that answers is one that we called.
func fits(id pki.Identity, proto Protocol, expect ipam.NodeID) error {
	switch {
	case expect != "" && id.Node != expect:
		return fmt.Errorf("%w: %s, not %s", ErrWrongNode, id, expect.Short())
	case proto == Raft && !id.Raft:
		return fmt.Errorf("%s: %w", id, ErrNoRaft)
	case expect == "" && (proto == API || proto == Follow) && id.Role != pki.RoleServer:
		return fmt.Errorf("%w: %s", ErrNotServer, id)
	}
	return nil
}

// clientTLS returns a configuration that leaves the judgement of the server to
// verify, which crypto/tls calls before anything of ours is sent.
func clientTLS(proto Protocol, verify func(tls.ConnectionState) error) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		NextProtos:         []string{string(proto)},
		InsecureSkipVerify: true, // names and system roots mean nothing here: verify does it
		VerifyConnection: func(cs tls.ConnectionState) error {
			if cs.NegotiatedProtocol != string(proto) {
				return ErrProtocol
			}
			return verify(cs)
		},
	}
}

// connect does the client's side up to the server's verdict. ctx bounds all of
// it. peer holds the server's identity when cfg's verification is over.
func connect(ctx context.Context, address string, cfg *tls.Config, hello greeting, peer *Peer) (*tls.Conn, net.Conn, error) {
	raw, err := (&net.Dialer{KeepAliveConfig: keepAlive}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { raw.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	t := tls.Client(raw, cfg)
	if err = t.HandshakeContext(ctx); err == nil {
		peer.Generation, err = greet(t, hello, peer.Identity)
	}
	if err == nil && !stop() {
		err = ctx.Err()
	}
	if err != nil {
		raw.Close()
		if ctx.Err() != nil {
			err = fmt.Errorf("%w (%w)", ctx.Err(), err)
		}
		return nil, nil, err
	}
	return t, raw, nil
}

// greet sends our greeting and reads the server's verdict.
func greet(t *tls.Conn, hello greeting, server pki.Identity) (generation uint64, err error) {
	if _, err := t.Write(hello.encode()); err != nil {
		return 0, err
	}
	answer, err := readGreeting(t)
	if err != nil {
		return 0, fmt.Errorf("waiting for the verdict of %s: %w", server, err)
	}
	if answer.verdict != codeAccepted {
		return 0, &RefusedError{Server: server, Text: answer.reason, Generation: answer.generation, code: answer.verdict}
	}
	return answer.generation, nil
}
