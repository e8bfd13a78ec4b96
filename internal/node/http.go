package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/server"
)

const (
	// headerTimeout bounds how long a client may take to say what it wants.
	headerTimeout = 5 * time.Second
	// drainTimeout bounds how long requests under way may go on after the end.
	drainTimeout = 2 * time.Second
	// socketGroup may use the socket beside root.
	socketGroup = "stellar"
)

// serve opens both listeners before anything else starts, so that a socket that
// cannot be had is known at once, and serves them until ctx ends.
func (n *Node) serve(ctx context.Context, g *errgroup.Group) error {
	lis, err := server.Listen(n.opts.Config.SocketPath(), socketGroup)
	if err != nil {
		return err
	}
	if a := n.opts.Config.MetricsListen; a.IsValid() {
		metrics, err := net.Listen("tcp", a.String())
		if err != nil {
			return errors.Join(fmt.Errorf("metrics and health: %w", err), lis.Close())
		}
		n.log.Info("metrics and health", "address", metrics.Addr().String())
		g.Go(func() error { return runHTTP(ctx, metrics, n.metricsHandler()) })
	}
	g.Go(func() error { return n.server.Run(ctx, lis) })
	return nil
}

// runHTTP serves plain HTTP until ctx ends, then lets answers under way finish.
func runHTTP(ctx context.Context, lis net.Listener, h http.Handler) error {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: headerTimeout}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(lis) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve %s: %w", lis.Addr(), err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	if srv.Shutdown(grace) != nil {
		srv.Close()
	}
	<-served
	return nil
}

// metricsHandler serves metrics and health. Nothing in it is secret, nothing
// changes anything; it is for the local machine all the same.
func (n *Node) metricsHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(n.reg, promhttp.HandlerOpts{ErrorLog: nil}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		n.alive()
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		report, err := n.Status(r.Context())
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_, ignoreLeader := r.URL.Query()["noleader"]
		writeReady(w, report, ignoreLeader)
	})
	return mux
}

// writeReady answers 200 when the node can attach containers, 503 otherwise,
// with every check in the body.
func writeReady(w http.ResponseWriter, report api.StatusReport, ignoreLeader bool) {
	ready, _ := report.Check(api.CheckReady)
	leader, _ := report.Check(api.CheckLeader)
	code := http.StatusOK
	if ready.State != api.OK || (leader.State != api.OK && !ignoreLeader) || report.Worst() == api.Err {
		code = http.StatusServiceUnavailable
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	for _, c := range report.Checks {
		fmt.Fprintf(w, "%-4s %s %s\n", c.State, c.Name, c.Reason)
	}
}
