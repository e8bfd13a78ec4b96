package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

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

// serve opens the listeners before anything else starts, so that a socket that
// cannot be had is known at once, and serves them until ctx ends.
func (n *Node) serve(ctx context.Context, g *errgroup.Group) error {
	lis, err := server.Listen(n.opts.Config.SocketPath(), socketGroup)
	if err != nil {
		return err
	}
	page, err := n.listenWeb()
	if err != nil {
		return errors.Join(err, lis.Close())
	}
	if a := n.opts.Config.MetricsListen; a.IsValid() {
		metrics, err := net.Listen("tcp", a.String())
		if err != nil {
			return errors.Join(fmt.Errorf("metrics and health: %w", err), page.close(), lis.Close())
		}
		n.log.Info("metrics and health", "address", metrics.Addr().String())
		g.Go(func() error { return runHTTP(ctx, metrics, n.metricsHandler()) })
	}
	if page != nil {
		g.Go(func() error { return page.server.Run(ctx, page.lis) })
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
