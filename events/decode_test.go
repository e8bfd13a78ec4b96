package events

import (
	"errors"
	"testing"
	"time"

	eventtypes "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/typeurl/v2"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

func envelope(t testing.TB, ns string, topic Topic, event proto.Message) *types.Envelope {
	t.Helper()
	ev, err := typeurl.MarshalAnyToProto(event)
	if err != nil {
		t.Fatal(err)
	}
	return &types.Envelope{Namespace: ns, Topic: string(topic), Event: ev, Timestamp: timestamppb.New(time.Unix(100, 0))}
}

func TestDecode(t *testing.T) {
	t.Parallel()
	now := time.Unix(101, 0)
	malformed := errors.New("any other error")
	for _, tc := range []struct {
		name  string
		topic Topic
		event proto.Message
		want  Hint
		err   error
	}{
		{"container create", ContainerCreate, &eventtypes.ContainerCreate{ID: "a"}, Hint{Key: Key{"ns", "a"}}, nil},
		{"container update", ContainerUpdate, &eventtypes.ContainerUpdate{ID: "a"}, Hint{Key: Key{"ns", "a"}}, nil},
		{"container delete", ContainerDelete, &eventtypes.ContainerDelete{ID: "a"}, Hint{Key: Key{"ns", "a"}}, nil},
		{
			"task create", TaskCreate, &eventtypes.TaskCreate{ContainerID: "a", Pid: 5, Bundle: "/b"},
			Hint{Key: Key{"ns", "a"}, PID: 5, Bundle: "/b"}, nil,
		},
		{
			"restored checkpoint", TaskCreate, &eventtypes.TaskCreate{ContainerID: "a", Checkpoint: "/image"},
			Hint{Key: Key{"ns", "a"}, Checkpoint: true}, nil,
		},
		{"task start", TaskStart, &eventtypes.TaskStart{ContainerID: "a", Pid: 5}, Hint{Key: Key{"ns", "a"}, PID: 5}, nil},
		{"init exit", TaskExit, &eventtypes.TaskExit{ContainerID: "a", ID: "a", Pid: 5}, Hint{Key: Key{"ns", "a"}, PID: 5}, nil},
		{"exec exit", TaskExit, &eventtypes.TaskExit{ContainerID: "a", ID: "e", Pid: 6}, Hint{}, errExecEvent},
		{"exit without id", TaskExit, &eventtypes.TaskExit{ContainerID: "a", Pid: 6}, Hint{}, errExecEvent},
		{"init delete, no id", TaskDelete, &eventtypes.TaskDelete{ContainerID: "a", Pid: 5}, Hint{Key: Key{"ns", "a"}, PID: 5}, nil},
		{"init delete, id", TaskDelete, &eventtypes.TaskDelete{ContainerID: "a", ID: "a"}, Hint{Key: Key{"ns", "a"}}, nil},
		{"exec delete", TaskDelete, &eventtypes.TaskDelete{ContainerID: "a", ID: "e"}, Hint{}, errExecEvent},
		{"namespace delete", NamespaceDelete, &eventtypes.NamespaceDelete{Name: "gone"}, Hint{Key: Key{Namespace: "gone"}}, nil},
		{"unknown topic", "/tasks/oom", &eventtypes.TaskOOM{ContainerID: "a"}, Hint{}, errUnknownTopic},
		{"type and topic differ", TaskExit, &eventtypes.TaskOOM{ContainerID: "a"}, Hint{}, malformed},
		{"no id", TaskStart, &eventtypes.TaskStart{}, Hint{}, malformed},
		{"bad id", TaskStart, &eventtypes.TaskStart{ContainerID: "../a"}, Hint{}, malformed},
	} {
		got, err := decode(envelope(t, "ns", tc.topic, tc.event), now)
		switch {
		case tc.err == nil:
			tc.want.Topic, tc.want.Time, tc.want.Received = tc.topic, time.Unix(100, 0).UTC(), now
			if diff := cmp.Diff(tc.want, got); diff != "" || err != nil {
				t.Errorf("%s: %v\n%s", tc.name, err, diff)
			}
		case errors.Is(tc.err, malformed):
			if err == nil || errors.Is(err, errExecEvent) || errors.Is(err, errUnknownTopic) {
				t.Errorf("%s: %v, %v, want a decoding error", tc.name, got, err)
			}
		case !errors.Is(err, tc.err):
			t.Errorf("%s: %v, %v, want %v", tc.name, got, err, tc.err)
		}
	}
	for name, env := range map[string]*types.Envelope{
		"nil":          nil,
		"empty":        {},
		"no event":     {Namespace: "ns", Topic: string(TaskExit)},
		"no namespace": envelope(t, "", TaskStart, &eventtypes.TaskStart{ContainerID: "a"}),
		"garbage":      {Namespace: "ns", Topic: string(TaskExit), Event: &anypb.Any{TypeUrl: "containerd.events.TaskExit", Value: []byte{0xff}}},
	} {
		if h, err := decode(env, now); err == nil {
			t.Errorf("%s: %+v", name, h)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, topic := range Topics() {
		f.Add("default", string(topic), "containerd.events.TaskExit", []byte("\n\x01a\x12\x01a\x18\x05"), int64(1), int32(2))
	}
	f.Add("default", "/tasks/exit", "type.googleapis.com/containerd.events.TaskExit", []byte{0xff}, int64(-1), int32(-1))
	f.Fuzz(func(t *testing.T, ns, topic, url string, value []byte, sec int64, nsec int32) {
		env := &types.Envelope{
			Namespace: ns, Topic: topic, Event: &anypb.Any{TypeUrl: url, Value: value},
			Timestamp: &timestamppb.Timestamp{Seconds: sec, Nanos: nsec},
		}
		h, err := decode(env, time.Now())
		if err != nil {
			if h != (Hint{}) {
				t.Errorf("an error comes with %+v", h)
			}
			return
		}
		if !validIdentifier(h.Key.Namespace) || (h.Key.ID == "") != (h.Topic == NamespaceDelete) {
			t.Errorf("key %+v", h.Key)
		}
		new(counters).hint(h)
	})
}

func FuzzSpec(f *testing.F) {
	f.Add([]byte(`{"annotations":{"a":"b"},"linux":{"namespaces":[{"type":"network","path":"/x"}]}}`), `["bridge"]`)
	f.Fuzz(func(t *testing.T, spec []byte, networks string) {
		var c Container
		_ = c.readSpec(&anypb.Any{Value: spec})
		if (c.NetNSPath != "") != (c.NetNS == NetNSPath) {
			t.Errorf("%s with path %q", c.NetNS, c.NetNSPath)
		}
		hasCNI(map[string]string{nerdctlNetworks: networks}, map[string]*anypb.Any{ctrCNI: {Value: spec}})
	})
}
