package attachclient

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/reflect/protoreflect"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/apitest"
	"stellar.io/stellar/api/server"
	stellarv1 "stellar.io/stellar/api/stellar/v1"
)

var equate = cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})}

// recorder keeps what it is asked and answers what it is given.
type recorder struct {
	*apitest.Backend
	asked   []any
	added   api.AttachmentResult
	awaited api.Awaited
	err     error
	delay   time.Duration
	left    time.Duration // until the deadline of the last call
}

func (r *recorder) see(ctx context.Context, asked ...any) error {
	r.asked = asked
	end, _ := ctx.Deadline()
	r.left = time.Until(end)
	select {
	case <-time.After(r.delay):
	case <-ctx.Done():
		return ctx.Err()
	}
	return r.err
}

func (r *recorder) AddAttachment(ctx context.Context, s api.AttachmentSpec) (api.AttachmentResult, error) {
	return r.added, r.see(ctx, s)
}

func (r *recorder) DelAttachment(ctx context.Context, a api.Attachment) (bool, error) {
	return true, r.see(ctx, a)
}

func (r *recorder) CheckAttachment(ctx context.Context, c api.AttachmentCheck) error {
	return r.see(ctx, c)
}

func (r *recorder) AttachmentsReady(ctx context.Context) error { return r.see(ctx) }

func (r *recorder) CollectAttachments(ctx context.Context, network string, ipamOnly bool, valid []api.Attachment) ([]string, error) {
	return []string{"a eth0", "b eth1"}, r.see(ctx, network, ipamOnly, valid)
}

func (r *recorder) Asked(ctx context.Context, c api.ContainerRef) (api.Asked, error) {
	return api.Asked{Wanted: true, Strict: true, Rejected: "no <such> thing"}, r.see(ctx, c)
}

func (r *recorder) AwaitEndpoint(ctx context.Context, c api.ContainerRef, pid int) (api.Awaited, error) {
	return r.awaited, r.see(ctx, c, pid)
}

// serve serves b until the test ends and returns its address.
func serve(t *testing.T, b server.Backend) string {
	t.Helper()
	path := socket(t)
	l, err := server.Listen(path, "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.New(b, nil).Run(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		goleak.VerifyNone(t)
	})
	return "unix://" + path
}

func socket(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "stellar-attach-") // t.TempDir can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "s")
}

// full reports the first field of a struct that the test forgot to set.
func full(t *testing.T, v any) {
	t.Helper()
	for rv, i := reflect.ValueOf(v), 0; i < rv.NumField(); i++ {
		if rv.Field(i).IsZero() {
			t.Errorf("%T.%s is not set, so the test does not see it lost", v, rv.Type().Field(i).Name)
		}
	}
}

func TestEveryCallCarriesEveryField(t *testing.T) {
	r := &recorder{Backend: apitest.New(nil)}
	c := New(serve(t, r))
	ctx := t.Context()
	a := api.Attachment{Network: "stellar", ContainerID: "default-web", Ifname: "eth0", NetNS: "/proc/9/ns/net", IPAMOnly: true}
	spec := api.AttachmentSpec{Attachment: a, Address: netip.MustParseAddr("172.16.0.9"), MAC: "02:00:00:00:00:09", Hostname: "web", MTU: 1400}
	r.added = api.AttachmentResult{
		Address: netip.MustParsePrefix("172.16.0.9/22"), Gateway: netip.MustParseAddr("172.16.0.1"),
		Network: netip.MustParsePrefix("172.16.0.0/12"), Subnet: netip.MustParsePrefix("172.16.0.0/22"),
		MAC: spec.MAC, HostIfname: "veth1", HostMAC: "02:00:00:00:00:0a", Ifname: "eth0", MTU: 1400, DefaultRoute: true,
		Warnings: []string{"one", "two"},
	}
	r.awaited = api.Awaited{Wanted: true, Address: spec.Address, Ifname: "eth0", Ready: "sync"}
	check := api.AttachmentCheck{Attachment: a, Address: spec.Address, MAC: spec.MAC}
	web := api.ContainerRef{Namespace: "default", Container: "web"}
	for _, v := range []any{a, spec, check, web, r.added, r.awaited} {
		full(t, v)
	}
	for name, call := range map[string]struct {
		do          func() (any, error)
		asked, want []any
	}{
		"Add":   {func() (any, error) { return c.Add(ctx, spec) }, []any{spec}, []any{r.added}},
		"Del":   {func() (any, error) { return c.Del(ctx, a) }, []any{a}, []any{true}},
		"Check": {func() (any, error) { return nil, c.Check(ctx, check) }, []any{check}, []any{nil}},
		"Ready": {func() (any, error) { return nil, c.Ready(ctx) }, nil, []any{nil}},
		"Collect": {
			func() (any, error) { return c.Collect(ctx, "stellar", true, []api.Attachment{a, a}) },
			[]any{"stellar", true, []api.Attachment{a, a}}, []any{[]string{"a eth0", "b eth1"}},
		},
		"Asked": {func() (any, error) { return c.Asked(ctx, web) }, []any{web}, []any{api.Asked{Wanted: true, Strict: true, Rejected: "no <such> thing"}}},
		"Await": {func() (any, error) { return c.Await(ctx, web, 4711) }, []any{web, 4711}, []any{r.awaited}},
	} {
		got, err := call.do()
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if d := cmp.Diff(call.asked, r.asked, equate); d != "" {
			t.Errorf("%s was asked (-want +got):\n%s", name, d)
		}
		if d := cmp.Diff(call.want, []any{got}, equate); d != "" {
			t.Errorf("%s answered (-want +got):\n%s", name, d)
		}
	}
}

// TestMessagesAreThoseOfTheProto: a field added there is not forgotten here.
func TestMessagesAreThoseOfTheProto(t *testing.T) {
	for _, m := range []struct {
		ours  any
		proto protoreflect.ProtoMessage
	}{
		{attachment{}, &stellarv1.Attachment{}},
		{addRequest{}, &stellarv1.AttachmentsAddRequest{}}, {addResponse{}, &stellarv1.AttachmentsAddResponse{}},
		{delRequest{}, &stellarv1.AttachmentsDelRequest{}}, {delResponse{}, &stellarv1.AttachmentsDelResponse{}},
		{checkRequest{}, &stellarv1.AttachmentsCheckRequest{}}, {struct{}{}, &stellarv1.AttachmentsCheckResponse{}},
		{struct{}{}, &stellarv1.AttachmentsReadyRequest{}}, {struct{}{}, &stellarv1.AttachmentsReadyResponse{}},
		{collectRequest{}, &stellarv1.AttachmentsCollectRequest{}}, {collectResponse{}, &stellarv1.AttachmentsCollectResponse{}},
		{askedRequest{}, &stellarv1.AttachmentsAskedRequest{}}, {askedResponse{}, &stellarv1.AttachmentsAskedResponse{}},
		{awaitRequest{}, &stellarv1.AttachmentsAwaitRequest{}}, {awaitResponse{}, &stellarv1.AttachmentsAwaitResponse{}},
	} {
		have := map[string]bool{}
		for rt, i := reflect.TypeOf(m.ours), 0; i < rt.NumField(); i++ {
			name, _, _ := strings.Cut(rt.Field(i).Tag.Get("json"), ",")
			have[name] = true
		}
		fields := m.proto.ProtoReflect().Descriptor().Fields()
		for i := range fields.Len() {
			if name := fields.Get(i).JSONName(); !have[name] {
				t.Errorf("%T has no %s", m.ours, name)
			}
		}
		if len(have) != fields.Len() {
			t.Errorf("%T has %d fields, the message %d", m.ours, len(have), fields.Len())
		}
	}
}

func codeAndHint(err error) (api.Code, string) {
	if e, ok := errors.AsType[*api.Error](err); ok {
		return e.Code, e.Hint
	}
	return "", ""
}

func TestAgentsErrors(t *testing.T) {
	r := &recorder{Backend: apitest.New(nil)}
	c := New(serve(t, r))
	for _, code := range []api.Code{
		api.CodeInternal, api.CodeInvalid, api.CodeUnreachable, api.CodeNotFound, api.CodeUnhealthy, api.CodeNoLeader,
		api.CodeNotInitialized, api.CodeConflict, api.CodeDenied, api.CodeTimeout, api.CodeUnknownOutcome, api.CodeExhausted,
	} {
		hint := strings.Repeat("do \"this\" — or that; ", 20) // longer than one byte of length
		r.err = api.Errorf(code, "%s is what went wrong", code).WithHint(hint)
		_, err := c.Add(t.Context(), api.AttachmentSpec{})
		if gotCode, gotHint := codeAndHint(err); gotCode != code || gotHint != hint || err.Error() != string(code)+" is what went wrong" {
			t.Errorf("%s arrived as %q, hint %q: %v", code, gotCode, gotHint, err)
		}
	}
	r.err = errors.New("plain")
	if code, _ := codeAndHint(c.Ready(t.Context())); code != api.CodeInternal {
		t.Errorf("a plain error arrived as %s", code)
	}
}

func TestDeadline(t *testing.T) {
	r := &recorder{Backend: apitest.New(nil)}
	c := New(serve(t, r))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := c.Ready(ctx); err != nil || r.left > 9910*time.Millisecond || r.left < 5*time.Second {
		t.Errorf("of 10 s the agent was given %v: %v", r.left, err)
	}
	r.delay = time.Minute
	ctx, cancel = context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	start := time.Now()
	if code, hint := codeAndHint(c.Ready(ctx)); code != api.CodeTimeout || hint == "" {
		t.Errorf("a slow agent is %q, hint %q", code, hint)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("200 ms took %v", d)
	}
	ctx, cancel = context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if err := c.Ready(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestNoAgent: what is found at the address is not an agent that answers.
func TestNoAgent(t *testing.T) {
	listen := func(t *testing.T, serve func(net.Conn)) string {
		path := socket(t)
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		t.Cleanup(func() { l.Close(); <-done })
		go func() {
			defer close(done)
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				serve(conn)
				conn.Close()
			}
		}()
		return "unix://" + path
	}
	answer := func(status, body string) func(net.Conn) {
		return func(c net.Conn) {
			_, _ = c.Read(make([]byte, 4096))
			_, _ = c.Write([]byte("HTTP/1.1 " + status + "\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n" + body))
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dead := socket(t)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	for name, tt := range map[string]struct {
		address string
		code    api.Code
		text    string
	}{
		"no socket":         {"unix:///nonexistent/stellar.sock", api.CodeUnreachable, "does not exist"},
		"a bare path":       {"/nonexistent/stellar.sock", api.CodeUnreachable, "does not exist"},
		"relative":          {"unix://stellar.sock", api.CodeInvalid, "unix:///path"},
		"another scheme":    {"tcp://127.0.0.1:9640", api.CodeInvalid, "unix:///path"},
		"a file":            {file, api.CodeUnreachable, "nobody listens"},
		"nobody listens":    {dead, api.CodeUnreachable, "nobody listens"},
		"path too long":     {"unix:///" + strings.Repeat("x", 200), api.CodeInvalid, "107 bytes"},
		"dies at once":      {listen(t, func(c net.Conn) {}), api.CodeUnreachable, "went away"},
		"dies in its words": {listen(t, func(c net.Conn) { _, _ = c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{")) }), api.CodeUnreachable, "went away"},
		"another protocol":  {listen(t, func(c net.Conn) { _, _ = c.Write([]byte("SSH-2.0-x\r\n")) }), api.CodeUnreachable, ""},
		"not JSON":          {listen(t, answer("200 OK", "<html>")), api.CodeInternal, "another program"},
		"another shape":     {listen(t, answer("200 OK", `{"found":"many"}`)), api.CodeInternal, "another program"},
		"an error page":     {listen(t, answer("502 Bad Gateway", "<html>")), api.CodeInternal, "502"},
		"an older agent":    {listen(t, answer("501 Not Implemented", `{"code":"unimplemented"}`)), api.CodeInternal, "older"},
		"without detail":    {listen(t, answer("403 Forbidden", `{"code":"permission_denied","message":"no"}`)), api.CodeDenied, "no"},
		"broken detail":     {listen(t, answer("404 Not Found", `{"code":"not_found","message":"no","details":[{"type":"stellar.v1.ErrorDetail","value":"%"},{"type":"stellar.v1.ErrorDetail","value":"Cv8"}]}`)), api.CodeNotFound, "no"},
		"endless":           {listen(t, answer("200 OK", strings.Repeat(" ", maxResponse+2))), api.CodeInternal, "longer"},
		"moved":             {listen(t, answer("302 Found\r\nLocation: http://stellar/elsewhere", "")), api.CodeInternal, "302"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			_, err := New(tt.address).Del(ctx, api.Attachment{})
			code, hint := codeAndHint(err)
			if code != tt.code || !strings.Contains(err.Error()+" "+hint, tt.text) || len(err.Error()) > 400 {
				t.Errorf("code %q, want %q: %v (%s)", code, tt.code, err, hint)
			}
		})
	}
}

func TestAnswerWithoutAddress(t *testing.T) {
	for _, m := range []addResponse{{}, {Address: "x"}, {Address: "10.0.0.1/24", Gateway: "x"}, {Address: "10.0.0.1/24", Subnet: "x"}} {
		if r, err := m.result(); api.CodeOf(err) != api.CodeInternal || err == nil {
			t.Errorf("%+v is %+v, %v", m, r, err)
		}
	}
}

func FuzzStringFields(f *testing.F) {
	f.Add([]byte("\x0a\x03abc\x12\x01d"))
	f.Add([]byte("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01abc"))
	f.Add([]byte("\x08\x01\x11........\x1d....\x12\x01d"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, s := range stringFields(b) {
			if len(s) > len(b) {
				t.Errorf("%d bytes out of %d", len(s), len(b))
			}
		}
	})
}

func TestStringFieldsSkipOthers(t *testing.T) {
	got := stringFields([]byte("\x08\x01\x11........\x1d....\x12\x01d\x0a\x03abc"))
	if got[1] != "abc" || got[2] != "d" || len(got) != 2 {
		t.Errorf("read %v", got)
	}
}

// FuzzParseAnswer: whatever comes is an answer within its bounds, or an error.
func FuzzParseAnswer(f *testing.F) {
	for _, s := range []string{"HTTP/1.0 200 OK\r\n\r\n{}", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\n{}", "HTTP/1.0\r\n\r\n", "\r\n\r\n", "SSH-2.0"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := parseAnswer(data)
		if err == nil && (!bytes.HasSuffix(data, append([]byte("\r\n\r\n"), got.body...)) || strings.Contains(got.status, "\r\n")) {
			t.Errorf("%q is %+v", data, got)
		}
	})
}

func TestChunksAreRefused(t *testing.T) {
	if got, err := parseAnswer([]byte("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n")); err == nil {
		t.Errorf("%+v", got)
	}
}
