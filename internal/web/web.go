// Package web serves a page on which an operator sees what the agent knows: nodes
// and how full their subnets are, endpoints, routes, Raft, events. It reads and
// changes nothing.
//
// The page is for people on this machine, or at the other end of their ssh: it is
// served on a loopback address alone, to connections from loopback addresses alone,
// and says nothing without the token (see guard.go for what is refused and why). The
// files below page/ are the source that browsers get: no framework, no build step,
// nothing from other hosts.
package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"stellar.io/stellar/api"
)

const (
	headerTimeout = 5 * time.Second
	idleTimeout   = 2 * time.Minute
	stopGrace     = 2 * time.Second // for answers under way when the server stops
	askTimeout    = 10 * time.Second
)

// Source is what the page shows. Its methods are called from several goroutines at
// once, must end when ctx does and work in every state of the node; an *api.Error
// reaches the page with its hint.
type Source interface {
	Version(ctx context.Context) (api.VersionInfo, error)
	Status(ctx context.Context) (api.StatusReport, error)
	// Events calls send for the newest q.Tail remembered events at or after q.Since,
	// oldest first, and with q.Follow for each new one until ctx ends.
	Events(ctx context.Context, q api.EventQuery, send func(api.Event) error) error
	Nodes(ctx context.Context) ([]api.Node, error)
	Subnets(ctx context.Context) ([]api.Subnet, error)
	// ClusterEndpoints are this node's endpoints, whole, and of the other nodes
	// what the replicated state says.
	ClusterEndpoints(ctx context.Context) ([]api.Endpoint, error)
	// Endpoint returns all about one of this node.
	Endpoint(ctx context.Context, ref api.EndpointRef) (api.EndpointDetail, error)
	Routes(ctx context.Context) ([]api.Route, error)
	// RouteDrift asks the kernel now and returns what is not as it should be.
	RouteDrift(ctx context.Context) ([]api.Route, error)
	RaftPeers(ctx context.Context) ([]api.RaftPeer, error)
	RaftStats(ctx context.Context) (api.RaftStats, error)
}

// Server serves the page. Make it with New.
type Server struct {
	src     Source
	token   string
	log     *slog.Logger
	views   views
	streams chan struct{} // one element for each stream that is served
}

// New returns a server that does not serve yet. token must not be empty; a nil
// logger discards.
func New(src Source, token string, logger *slog.Logger) *Server {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &Server{src: src, token: token, log: logger, views: newViews(src), streams: make(chan struct{}, maxStreams)}
}

// Run serves on l until ctx ends, then ends streams, lets answers under way finish
// for a moment and closes l. It may be called once.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	requests, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	srv := &http.Server{
		Handler:           s.Handler(ctx),
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       headerTimeout, // there are no bodies to be read
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return requests },
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve the web page on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	grace, stop := context.WithTimeout(requests, stopGrace)
	defer stop()
	if srv.Shutdown(grace) != nil {
		cancel()
		srv.Close()
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the web page on %s: %w", l.Addr(), err)
	}
	return nil
}

// Handler returns what Run serves. Streams end when ctx does.
func (s *Server) Handler(ctx context.Context) http.Handler {
	data := http.NewServeMux()
	data.HandleFunc("GET /api/summary", s.summary)
	data.HandleFunc("GET /api/map", s.blocks)
	data.HandleFunc("GET /api/nodes", s.nodes)
	data.HandleFunc("GET /api/endpoints", s.endpoints)
	data.HandleFunc("GET /api/endpoint", s.endpoint)
	data.HandleFunc("GET /api/routes", s.routes)
	data.HandleFunc("GET /api/raft", s.raft)
	data.HandleFunc("GET /api/events", func(w http.ResponseWriter, r *http.Request) { s.events(ctx, w, r) })
	mux := http.NewServeMux()
	mux.Handle("/api/", s.authorized(data))
	mux.Handle("/", assets())
	return local(mux)
}
