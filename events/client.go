package events

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	contentapi "github.com/containerd/containerd/api/services/content/v1"
	eventsapi "github.com/containerd/containerd/api/services/events/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	introspectionapi "github.com/containerd/containerd/api/services/introspection/v1"
	namespacesapi "github.com/containerd/containerd/api/services/namespaces/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	versionapi "github.com/containerd/containerd/api/services/version/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"
)

// Client watches one containerd. Its methods may be called from any goroutine;
// Run only once at a time.
type Client struct {
	cfg     Config
	log     *slog.Logger
	ignored map[string]bool
	conn    *grpc.ClientConn

	containers    containersapi.ContainersClient
	content       contentapi.ContentClient
	events        eventsapi.EventsClient
	images        imagesapi.ImagesClient
	introspection introspectionapi.IntrospectionClient
	namespaces    namespacesapi.NamespacesClient
	tasks         tasksapi.TasksClient
	version       versionapi.VersionClient

	// dials counts the connections made; a session is good for one of them.
	dials atomic.Uint64
	// serverPID is the peer of the newest connection.
	serverPID atomic.Int64
	// proven is the number of the connection whose event stream is proven, 0 for none.
	proven atomic.Uint64

	configs imageCache
	stats   counters
}

// maxMessage is containerd's own default for the largest message it sends.
const maxMessage = 16 << 20

// New checks cfg and returns a client that has not connected yet. The caller
// closes it.
func New(cfg Config) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	c := &Client{cfg: cfg, log: cfg.Logger, ignored: make(map[string]bool)}
	for _, ns := range cfg.IgnoreNamespaces {
		c.ignored[ns] = true
	}
	path := socketPath(cfg.Address)
	// "passthrough" keeps gRPC from interpreting the path; the dialer knows it.
	conn, err := grpc.NewClient("passthrough:///containerd",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return c.dial(ctx, path) }),
		grpc.WithAuthority("localhost"),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: cfg.MaxBackoff},
			MinConnectTimeout: cfg.ConnectTimeout,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithDisableServiceConfig(),
		grpc.WithNoProxy(),
	)
	if err != nil {
		return nil, fmt.Errorf("containerd at %s: %w", path, err)
	}
	c.conn = conn
	c.containers = containersapi.NewContainersClient(conn)
	c.content = contentapi.NewContentClient(conn)
	c.events = eventsapi.NewEventsClient(conn)
	c.images = imagesapi.NewImagesClient(conn)
	c.introspection = introspectionapi.NewIntrospectionClient(conn)
	c.namespaces = namespacesapi.NewNamespacesClient(conn)
	c.tasks = tasksapi.NewTasksClient(conn)
	c.version = versionapi.NewVersionClient(conn)
	return c, nil
}

// Close ends the connection. Call it after Run has returned.
func (c *Client) Close() error { return c.conn.Close() }

// Version returns the version that containerd reports, such as 1.6.20 or v2.4.2.
func (c *Client) Version(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.CallTimeout)
	defer cancel()
	resp, err := c.version.Version(ctx, &emptypb.Empty{})
	if err != nil {
		return "", fmt.Errorf("containerd version: %w", unreachable(err))
	}
	return resp.GetVersion(), nil
}

// ServerPID returns the process that listens on containerd's socket, as the
// kernel names it. It is 0 before the first connection, and when containerd runs
// in a pid namespace that this process cannot see: then pids in hints and tasks
// mean nothing here.
func (c *Client) ServerPID() int { return int(c.serverPID.Load()) }

// Ignored reports whether the containerd namespace is left out.
func (c *Client) Ignored(namespace string) bool { return c.ignored[namespace] }

// Run watches containerd until ctx ends and returns ctx's error. It subscribes,
// proves the subscription, lists, and starts over with a growing pause when
// anything of that fails. Sink tells what sink must not do.
func (c *Client) Run(ctx context.Context, sink Sink) error {
	var (
		pause = newPauses(c.cfg.MaxBackoff)
		down  = false // an outage was reported
	)
	for {
		proven := false
		err := c.session(ctx, sink, func() {
			c.log.Info("connected to containerd", "address", c.cfg.Address, "pid", c.ServerPID())
			down, proven = false, true
			pause.reset()
		})
		c.proven.Store(0)
		if ctx.Err() != nil {
			if proven {
				c.stats.setConnected(false)
				sink.Connected(false, ctx.Err())
			}
			return ctx.Err()
		}
		if err == nil {
			err = errors.New("event stream ended")
		}
		if !down {
			down = true
			c.stats.setConnected(false)
			c.log.Warn("containerd is not reachable, will retry", "address", c.cfg.Address, "error", err)
			sink.Connected(false, err)
		}
		if proven {
			c.stats.reconnects.Add(1)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause.next()):
		}
		c.conn.ResetConnectBackoff()
	}
}

func (c *Client) dial(ctx context.Context, path string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	c.serverPID.Store(int64(peerPID(conn)))
	c.dials.Add(1)
	return conn, nil
}

// peerPID returns the listening process of a unix connection, 0 if unknown.
func peerPID(conn net.Conn) int {
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0
	}
	pid := 0
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})
	return pid
}

// inNamespace names the containerd namespace of a call.
func inNamespace(ctx context.Context, namespace string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "containerd-namespace", namespace)
}

// pauses grow by doubling, with jitter, from firstPause to limit.
type pauses struct{ step, limit time.Duration }

const firstPause = 100 * time.Millisecond

func newPauses(limit time.Duration) *pauses { return &pauses{firstPause, limit} }

func (p *pauses) reset() { p.step = firstPause }

// next returns the pause to make now: between half and all of the present step.
func (p *pauses) next() time.Duration {
	d := min(p.step, p.limit)
	p.step = min(2*d, p.limit)
	return d/2 + rand.N(d/2+1)
}
