package events

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	eventtypes "github.com/containerd/containerd/api/events"
	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	contentapi "github.com/containerd/containerd/api/services/content/v1"
	eventsapi "github.com/containerd/containerd/api/services/events/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	introspectionapi "github.com/containerd/containerd/api/services/introspection/v1"
	namespacesapi "github.com/containerd/containerd/api/services/namespaces/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	versionapi "github.com/containerd/containerd/api/services/version/v1"
	"github.com/containerd/containerd/api/types"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// fake is a containerd in memory with faults. It keeps state and delivers
// events as the real one does: to those who are subscribed, unbounded queue, no
// replay.
type fake struct {
	address string
	srv     *grpc.Server

	subscribeDelay time.Duration // before the subscriber is registered
	deaf           atomic.Bool   // subscribers get nothing any more
	failLists      atomic.Int32  // so many container listings fail
	lists          atomic.Int32
	blobReads      atomic.Int32

	mu          sync.Mutex // guards what follows
	uuid        string
	containers  map[Key]*containersapi.Container
	tasks       map[Key]*tasktypes.Process
	hangTasks   bool
	brokenGet   codes.Code // answered by Containers.Get, if not OK
	images      map[string]*imagesapi.Image
	blobs       map[string][]byte
	subscribers map[chan *types.Envelope]func() // with what ends the stream
	topics      []string                        // of all published events
	filters     []string                        // of the last subscription
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{
		address: filepath.Join(t.TempDir(), "s"), uuid: "fake-1",
		containers: make(map[Key]*containersapi.Container), tasks: make(map[Key]*tasktypes.Process),
		images: make(map[string]*imagesapi.Image), blobs: make(map[string][]byte),
		subscribers: make(map[chan *types.Envelope]func()),
	}
	t.Cleanup(func() { f.stop() })
	return f
}

func (f *fake) start(t *testing.T) {
	t.Helper()
	l, err := net.Listen("unix", f.address)
	if err != nil {
		t.Fatal(err)
	}
	f.srv = grpc.NewServer()
	containersapi.RegisterContainersServer(f.srv, &fakeContainers{f: f})
	contentapi.RegisterContentServer(f.srv, &fakeContent{f: f})
	eventsapi.RegisterEventsServer(f.srv, &fakeEvents{f: f})
	imagesapi.RegisterImagesServer(f.srv, &fakeImages{f: f})
	introspectionapi.RegisterIntrospectionServer(f.srv, &fakeIntrospection{f: f})
	namespacesapi.RegisterNamespacesServer(f.srv, &fakeNamespaces{f: f})
	tasksapi.RegisterTasksServer(f.srv, &fakeTasks{f: f})
	versionapi.RegisterVersionServer(f.srv, &fakeVersion{})
	go func(srv *grpc.Server) { _ = srv.Serve(l) }(f.srv)
}

// stop is a crash: every stream is cut.
func (f *fake) stop() {
	if f.srv != nil {
		f.srv.Stop()
		f.srv = nil
	}
}

// cut ends the event streams alone; the connection stays.
func (f *fake) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, end := range f.subscribers {
		end()
	}
}

func (f *fake) emit(ns, topic string, event any) {
	ev, err := typeurl.MarshalAnyToProto(event)
	if err != nil {
		panic(err)
	}
	f.send(&types.Envelope{Timestamp: timestamppb.Now(), Namespace: ns, Topic: topic, Event: ev})
}

func (f *fake) send(env *types.Envelope) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.topics = append(f.topics, env.GetTopic())
	if f.deaf.Load() {
		return
	}
	for ch := range f.subscribers {
		ch <- env
	}
}

// create adds a container with a running task and emits its events.
func (f *fake) create(key Key, pid uint32) {
	f.mu.Lock()
	f.containers[key] = &containersapi.Container{
		ID: key.ID, CreatedAt: timestamppb.Now(), UpdatedAt: timestamppb.Now(), Runtime: &containersapi.Container_Runtime{Name: "io.containerd.runc.v2"},
		Spec: &anypb.Any{Value: []byte(`{"hostname":"h","linux":{"namespaces":[{"type":"network"}]}}`)},
	}
	f.tasks[key] = &tasktypes.Process{ID: key.ID, Pid: pid, Status: tasktypes.Status_RUNNING}
	f.mu.Unlock()
	f.emit(key.Namespace, string(ContainerCreate), &eventtypes.ContainerCreate{ID: key.ID})
	f.emit(key.Namespace, string(TaskCreate), &eventtypes.TaskCreate{ContainerID: key.ID, Pid: pid, Bundle: "/bundle"})
}

func (f *fake) published() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.topics)
}

// namespaceOf fails as containerd does when the header is missing.
func namespaceOf(ctx context.Context) (string, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	if ns := md.Get("containerd-namespace"); len(ns) == 1 && ns[0] != "" {
		return ns[0], nil
	}
	return "", status.Error(codes.FailedPrecondition, "namespace is required: failed precondition")
}

type fakeEvents struct {
	eventsapi.UnimplementedEventsServer
	f *fake
}

func (s *fakeEvents) Publish(ctx context.Context, r *eventsapi.PublishRequest) (*emptypb.Empty, error) {
	ns, err := namespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	s.f.send(&types.Envelope{Timestamp: timestamppb.Now(), Namespace: ns, Topic: r.GetTopic(), Event: r.GetEvent()})
	return &emptypb.Empty{}, nil
}

func (s *fakeEvents) Subscribe(r *eventsapi.SubscribeRequest, stream eventsapi.Events_SubscribeServer) error {
	time.Sleep(s.f.subscribeDelay)
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	ch := make(chan *types.Envelope, 100_000)
	s.f.mu.Lock()
	s.f.subscribers[ch] = cancel
	s.f.filters = r.GetFilters()
	s.f.mu.Unlock()
	defer func() {
		s.f.mu.Lock()
		delete(s.f.subscribers, ch)
		s.f.mu.Unlock()
	}()
	for {
		select {
		case env := <-ch:
			// Probes of others are filtered as the real server does it.
			if strings.HasPrefix(env.GetTopic(), probeTopic) && !slices.Contains(r.GetFilters(), fmt.Sprintf("topic==%q", env.GetTopic())) {
				continue
			}
			if err := stream.Send(env); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

type fakeContainers struct {
	containersapi.UnimplementedContainersServer
	f *fake
}

func (s *fakeContainers) Get(ctx context.Context, r *containersapi.GetContainerRequest) (*containersapi.GetContainerResponse, error) {
	ns, err := namespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	if s.f.brokenGet != codes.OK {
		return nil, status.Error(s.f.brokenGet, "made to fail")
	}
	ctr, ok := s.f.containers[Key{ns, r.GetID()}]
	if !ok {
		return nil, status.Errorf(codes.NotFound, "container %q in namespace %q: not found", r.GetID(), ns)
	}
	return &containersapi.GetContainerResponse{Container: ctr}, nil
}

func (s *fakeContainers) ListStream(_ *containersapi.ListContainersRequest, stream containersapi.Containers_ListStreamServer) error {
	ns, err := namespaceOf(stream.Context())
	if err != nil {
		return err
	}
	s.f.lists.Add(1)
	if s.f.failLists.Add(-1) >= 0 {
		return status.Error(codes.Internal, "made to fail")
	}
	s.f.mu.Lock()
	var all []*containersapi.Container
	for key, ctr := range s.f.containers {
		if key.Namespace == ns {
			all = append(all, ctr)
		}
	}
	s.f.mu.Unlock()
	for _, ctr := range all {
		if err := stream.Send(&containersapi.ListContainerMessage{Container: ctr}); err != nil {
			return err
		}
	}
	return nil
}

type fakeTasks struct {
	tasksapi.UnimplementedTasksServer
	f *fake
}

func (s *fakeTasks) Get(ctx context.Context, r *tasksapi.GetRequest) (*tasksapi.GetResponse, error) {
	ns, err := namespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	s.f.mu.Lock()
	hang := s.f.hangTasks
	p, ok := s.f.tasks[Key{ns, r.GetContainerID()}]
	s.f.mu.Unlock()
	if hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if !ok {
		return nil, status.Errorf(codes.NotFound, "task %s not found: not found", r.GetContainerID())
	}
	return &tasksapi.GetResponse{Process: p}, nil
}

func (s *fakeTasks) List(ctx context.Context, _ *tasksapi.ListTasksRequest) (*tasksapi.ListTasksResponse, error) {
	ns, err := namespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	resp := &tasksapi.ListTasksResponse{}
	for key, p := range s.f.tasks {
		if key.Namespace == ns {
			resp.Tasks = append(resp.Tasks, p)
		}
	}
	return resp, nil
}

type fakeNamespaces struct {
	namespacesapi.UnimplementedNamespacesServer
	f *fake
}

func (s *fakeNamespaces) List(context.Context, *namespacesapi.ListNamespacesRequest) (*namespacesapi.ListNamespacesResponse, error) {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	resp := &namespacesapi.ListNamespacesResponse{}
	had := make(map[string]bool)
	for key := range s.f.containers {
		if !had[key.Namespace] {
			had[key.Namespace] = true
			resp.Namespaces = append(resp.Namespaces, &namespacesapi.Namespace{Name: key.Namespace})
		}
	}
	return resp, nil
}

type fakeImages struct {
	imagesapi.UnimplementedImagesServer
	f *fake
}

func (s *fakeImages) Get(ctx context.Context, r *imagesapi.GetImageRequest) (*imagesapi.GetImageResponse, error) {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	img, ok := s.f.images[r.GetName()]
	if !ok {
		return nil, status.Errorf(codes.NotFound, "image %q: not found", r.GetName())
	}
	return &imagesapi.GetImageResponse{Image: img}, nil
}

type fakeContent struct {
	contentapi.UnimplementedContentServer
	f *fake
}

func (s *fakeContent) Read(r *contentapi.ReadContentRequest, stream contentapi.Content_ReadServer) error {
	s.f.blobReads.Add(1)
	s.f.mu.Lock()
	data, ok := s.f.blobs[r.GetDigest()]
	s.f.mu.Unlock()
	if !ok {
		return status.Errorf(codes.NotFound, "content %s: not found", r.GetDigest())
	}
	for part := range slices.Chunk(data, 1<<20) {
		if err := stream.Send(&contentapi.ReadContentResponse{Data: part}); err != nil {
			return err
		}
	}
	return nil
}

type fakeIntrospection struct {
	introspectionapi.UnimplementedIntrospectionServer
	f *fake
}

func (s *fakeIntrospection) Server(context.Context, *emptypb.Empty) (*introspectionapi.ServerResponse, error) {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	return &introspectionapi.ServerResponse{UUID: s.f.uuid}, nil
}

type fakeVersion struct {
	versionapi.UnimplementedVersionServer
}

func (*fakeVersion) Version(context.Context, *emptypb.Empty) (*versionapi.VersionResponse, error) {
	return &versionapi.VersionResponse{Version: "1.6.20"}, nil
}
