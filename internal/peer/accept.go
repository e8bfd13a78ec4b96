package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"stellar.io/stellar/internal/pki"
)

// serverTLS asks for a certificate and takes any or none: judge decides, so that
// it can give the reason. Without tickets each connection shows its certificate.
func (p *Port) serverTLS() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{string(Raft), string(Follow), string(API), string(Join)},
		ClientAuth:             tls.RequestClientCert,
		GetCertificate:         p.cfg.TLS.GetCertificate,
		SessionTicketsDisabled: true,
	}
}

// serve takes one inbound connection from its first byte to whoever serves its
// protocol.
func (p *Port) serve(raw net.Conn) {
	done := p.pending.add(raw)
	c, err := p.welcome(raw)
	done()
	if err != nil {
		raw.Close()
		p.logRefusal(raw, err)
		return
	}
	if !p.deliver(c) {
		c.kill()
	}
}

// welcome does the handshake and the greetings.
func (p *Port) welcome(raw net.Conn) (*conn, error) {
	deadline := time.Now().Add(p.cfg.HandshakeTimeout)
	if err := raw.SetDeadline(deadline); err != nil {
		return nil, err
	}
	turn := &turn{Conn: raw, turns: p.turns}
	defer turn.end()
	t := tls.Server(turn, p.serverTLS())
	if err := t.HandshakeContext(context.Background()); err != nil {
		return nil, fmt.Errorf("handshake: %w", err)
	}
	hello, err := readGreeting(t)
	if err != nil {
		return nil, fmt.Errorf("greeting: %w", err)
	}
	peer := Peer{Protocol: Protocol(t.ConnectionState().NegotiatedProtocol), Generation: hello.generation, Inbound: true}
	c, err := p.judge(t, raw, &peer)
	answer := greeting{verdict: codeOf(err), generation: p.cfg.Generation()}
	if err != nil {
		answer.reason = err.Error()
	}
	_, writeErr := t.Write(answer.encode())
	if err != nil {
		t.Close() // with a good-bye, so that the answer arrives
		return nil, &refusal{peer: peer, err: err}
	}
	if err := errors.Join(writeErr, raw.SetDeadline(time.Time{})); err != nil {
		c.kill()
		return nil, err
	}
	return c, nil
}

// judge says whether the connection may go on, enters it into the registry, and
// fills in who the peer is as far as that is proven.
func (p *Port) judge(t *tls.Conn, raw net.Conn, peer *Peer) (*conn, error) {
	if err := p.identify(t.ConnectionState(), remoteIP(raw), peer); err != nil {
		return nil, err
	}
	c := newConn(t, raw, *peer, p.registry)
	p.limitLife(c)
	victim, err := p.registry.add(c)
	if victim != nil {
		victim.kill()
	}
	// Entered first, asked second: see DropNode.
	if err == nil && peer.Protocol != Join {
		err = p.cfg.Admit(*peer)
	}
	if err != nil {
		c.forget()
		return nil, err
	}
	return c, nil
}

// identify checks the certificate, if the protocol needs one, and that somebody
// serves the protocol.
func (p *Port) identify(cs tls.ConnectionState, from netip.Addr, peer *Peer) (err error) {
	switch peer.Protocol {
	case Raft, Follow, API:
		if peer.Identity, err = p.cfg.TLS.VerifyClient(cs); err != nil {
			return err
		}
	case Join:
		if !p.joins.allow(from, time.Now()) {
			return ErrTooMany
		}
	default:
		return fmt.Errorf("%w: no ALPN", ErrProtocol)
	}
	served := false
	switch peer.Protocol {
	case Raft:
		// Who never votes never calls: it answers its leader. And Raft believes whoever
		// calls, also a member that was taken over.
		if !peer.Raft || peer.Role != pki.RoleServer {
			return ErrNoRaft
		}
		served = p.raft.Load() != nil
	case Follow:
		served = p.follow.Load() != nil
	case API:
		served = p.api.Load() != nil
	case Join:
		served = p.join.Load() != nil
	}
	if !served {
		return fmt.Errorf("%s: %w", peer.Protocol, ErrNotServed)
	}
	return nil
}

// limitLife says when an inbound connection ends by itself.
func (p *Port) limitLife(c *conn) {
	end := p.cfg.JoinLife
	if c.peer.Protocol != Join {
		c.maxAge = p.cfg.MaxAge - rand.N(p.cfg.MaxAge/10+1)
		end = c.maxAge
	}
	if c.peer.Protocol == API {
		end += p.cfg.MaxAge / 24
	}
	c.endAfter(end)
}

// deliver hands the connection to whoever serves its protocol.
func (p *Port) deliver(c *conn) bool {
	var q *queue
	switch c.peer.Protocol {
	case Raft:
		l := p.raft.Load()
		if l == nil {
			return false
		}
		q = l.queue
	case Follow:
		l := p.follow.Load()
		if l == nil {
			return false
		}
		q = l.queue
	case API:
		q = p.apiQueue
	case Join:
		q = p.joinQueue
	}
	return q.put(c, p.cfg.HandshakeTimeout)
}

// refusal is an inbound connection that judge turned away.
type refusal struct {
	peer Peer
	err  error
}

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

// logRefusal: a refused node is worth a line now and then, and so is one that does
// not like our certificate; port scanners and broken connections are not.
func (p *Port) logRefusal(raw net.Conn, err error) {
	from := slog.String("from", raw.RemoteAddr().String())
	var r *refusal
	var op *net.OpError
	switch {
	case errors.As(err, &r):
		attrs := []slog.Attr{from, slog.String("protocol", string(r.peer.Protocol)), slog.Any("reason", r.err)}
		if r.peer.Node != "" {
			attrs = append(attrs, slog.Any("node", r.peer.Identity))
		}
		p.quiet.warn(remoteIP(raw), codeOf(r.err), "refused a connection", attrs...)
	case errors.As(err, &op) && op.Op == "remote error": // a TLS alert
		p.quiet.warn(remoteIP(raw), codeOther, "the other side did not accept this node's certificate", from, slog.Any("error", err))
	default:
		p.cfg.Logger.LogAttrs(context.Background(), slog.LevelDebug, "connection without a handshake", from, slog.Any("error", err))
	}
}
