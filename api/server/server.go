// Package server serves a Backend as the services of stellar/v1 (Connect, gRPC
// and gRPC-Web; HTTP/1.1 and HTTP/2 without TLS) on the local socket.
//
// Who may call is decided when a connection is accepted, from the kernel's word
// on the peer: uid 0, the server's own uid, and the members of one group. All
// others are told so and get nothing else.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/internal/rpc"
	"stellar.io/stellar/api/peerapi"
	"stellar.io/stellar/api/stellar/v1/stellarv1connect"
)

const (
	headerTimeout = 5 * time.Second
	idleTimeout   = 2 * time.Minute
	stopGrace     = 2 * time.Second // for answers under way when the server stops
)

// Server serves one backend. Make it with New.
type Server struct {
	backend Backend
	log     *slog.Logger
}

// New returns a server that does not serve yet. A nil logger discards.
func New(b Backend, logger *slog.Logger) *Server {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &Server{backend: b, log: logger}
}

// Run serves on l until ctx ends, then lets answers under way finish for a
// moment, ends streams, closes l and returns nil. It may be called once.
func (s *Server) Run(ctx context.Context, l *Listener) error {
	// Requests outlive ctx for the grace; streams watch ctx by this value.
	requests, cancel := context.WithCancel(context.WithValue(context.WithoutCancel(ctx), servingKey{}, ctx))
	defer cancel()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	srv := &http.Server{
		Handler:           s.handler(),
		Protocols:         protocols,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return requests },
		ConnContext:       withPeer,
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	var err error
	select {
	case err = <-served:
		err = fmt.Errorf("serve %s: %w", l.path, err)
	case <-ctx.Done():
		grace, stop := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
		defer stop()
		if srv.Shutdown(grace) != nil {
			cancel()
			srv.Close()
		}
		if e := <-served; !errors.Is(e, http.ErrServerClosed) {
			err = fmt.Errorf("serve %s: %w", l.path, e)
		}
	}
	return errors.Join(err, l.Close())
}

// servingKey finds, in the context of a request, the context of Run.
type servingKey struct{}

// serving returns the context of the Run that serves the request of ctx.
func serving(ctx context.Context) context.Context {
	if run, ok := ctx.Value(servingKey{}).(context.Context); ok {
		return run
	}
	return context.Background()
}

// mux mounts the services.
func (s *Server) mux(opts ...connect.HandlerOption) *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle(stellarv1connect.NewAgentHandler(agentHandler{s}, opts...))
	mux.Handle(stellarv1connect.NewClusterHandler(clusterHandler{s}, opts...))
	mux.Handle(stellarv1connect.NewEndpointsHandler(endpointsHandler{s}, opts...))
	mux.Handle(stellarv1connect.NewAttachmentsHandler(attachmentsHandler{s}, opts...))
	mux.Handle(stellarv1connect.NewNodesHandler(nodesHandler{s}, opts...))
	mux.Handle(stellarv1connect.NewIpamHandler(ipamHandler{s}, opts...))
	mux.Handle(stellarv1connect.NewCheckerHandler(checkHandler{s}, opts...))
	mux.Handle(stellarv1connect.NewRoutesHandler(routesHandler{s}, opts...))
	mux.Handle(stellarv1connect.NewRaftHandler(raftHandler{s}, opts...))
	mux.Handle(stellarv1connect.NewDebugHandler(debugHandler{s}, opts...))
	mux.Handle(stellarv1connect.NewConnectivityHandler(connectivityHandler{s}, opts...))
	mux.Handle(stellarv1connect.NewTraceHandler(traceHandler{s}, opts...))
	return mux
}

// handler lets only those through that the kernel has named and Listen's group
// admits.
func (s *Server) handler() http.Handler {
	opts := rpc.HandlerOptions(s.log)
	mux := s.mux(opts...)
	denied := connect.NewErrorWriter(opts...)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := peerOf(r.Context())
		if p.allowed {
			mux.ServeHTTP(w, r)
			return
		}
		s.log.Warn("caller refused", "uid", p.uid, "pid", p.pid)
		w.Header().Set("Connection", "close")
		err := rpc.Error(api.Errorf(api.CodeDenied, "uid %d may not use the agent", p.uid).
			WithHint("be root or a member of the group stellar"))
		if !denied.IsSupported(r) {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		if err := denied.Write(w, r, err); err != nil {
			s.log.Debug("refusal not delivered", "uid", p.uid, "err", err)
		}
	})
}

// audit logs a change that a caller asked for.
func (s *Server) audit(ctx context.Context, msg string, attrs ...any) {
	if c, ok := peerapi.CallerOf(ctx); ok {
		s.log.Info(msg, append(attrs, "from", c.Name, "by", relayedFor(ctx))...)
		return
	}
	p := peerOf(ctx)
	s.log.Info(msg, append(attrs, "uid", p.uid, "pid", p.pid)...)
}
