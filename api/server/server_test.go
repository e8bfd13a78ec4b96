package server

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/apitest"
	"stellar.io/stellar/api/client"
	"stellar.io/stellar/ipam"
)

var equate = cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.EquateEmpty()}

// fixture is a client of a served fake.
func fixture(t *testing.T) (*apitest.Backend, *client.Client, func()) {
	t.Helper()
	goleak.VerifyNone(t)
	b := apitest.New(nil)
	path := filepath.Join(socketDir(t), "s")
	stop := serve(t, b, path, "")
	c, err := client.New("unix://" + path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		stop()
		goleak.VerifyNone(t)
	})
	return b, c, stop
}

func web() api.EndpointDetail {
	return api.EndpointDetail{
		Endpoint: api.Endpoint{
			Namespace: "default", Container: "web", Network: "default", Address: netip.MustParseAddr("172.16.0.2"),
			MAC: "02:73:ac:10:00:02", Ifname: "eth0", HostIfname: "veth0123456789a", State: api.StateAttached,
			Ready: "early", Source: "label", Since: time.Now().UTC().Truncate(time.Second),
		},
		Created: time.Now().UTC().Add(-time.Minute), PID: 4711, MTU: 1500, DefaultRoute: true,
		Phases: []api.Phase{{Name: "veth", Duration: 321 * time.Microsecond}},
	}
}

func TestEveryCall(t *testing.T) {
	b, c, _ := fixture(t)
	ctx := t.Context()
	if _, err := c.Nodes(ctx); api.CodeOf(err) != api.CodeNotInitialized {
		t.Errorf("Nodes before init: %v", err)
	}
	cluster, err := c.InitCluster(ctx, api.ClusterSpec{})
	if err != nil || cluster.Subnet != netip.MustParsePrefix("172.16.0.0/22") {
		t.Fatalf("InitCluster = %+v, %v", cluster, err)
	}
	_, err = c.InitCluster(ctx, api.ClusterSpec{})
	if e, ok := errors.AsType[*api.Error](err); !ok || e.Code != api.CodeConflict || e.Hint == "" || !strings.Contains(e.Error(), ipam.ErrAlreadyInitialized.Error()) {
		t.Errorf("second InitCluster: %v", err)
	}
	if v, err := c.Version(ctx); err != nil || v.Version != "v9.9.9" {
		t.Errorf("Version = %+v, %v", v, err)
	}
	if r, err := c.Status(ctx); err != nil || r.Worst() != api.OK || r.Cluster != apitest.ClusterID {
		t.Errorf("Status = %+v, %v", r, err)
	}
	want := web()
	if err := b.PutEndpoint(want); err != nil {
		t.Fatal(err)
	}
	want.Node = apitest.NodeName
	got, err := c.Endpoint(ctx, api.EndpointRef{Container: "web"})
	if diff := cmp.Diff(want, got, equate); err != nil || diff != "" {
		t.Errorf("Endpoint: %v\n%s", err, diff)
	}
	if es, err := c.Endpoints(ctx, "default"); err != nil || len(es) != 1 {
		t.Errorf("Endpoints = %v, %v", es, err)
	}
	if es, err := c.Endpoints(ctx, "other"); err != nil || len(es) != 0 {
		t.Errorf("Endpoints of another namespace = %v, %v", es, err)
	}
	b.Break("web", "master")
	if r, err := c.RepairEndpoint(ctx, api.EndpointRef{Container: "web"}); err != nil || len(r.Repaired) != 1 {
		t.Errorf("RepairEndpoint = %+v, %v", r, err)
	}
	if ns, err := c.Nodes(ctx); err != nil || len(ns) != 1 || !ns[0].Self || ns[0].Endpoints != 1 {
		t.Errorf("Nodes = %+v, %v", ns, err)
	}
	if n, err := c.Node(ctx, string(apitest.NodeID[:8])); err != nil || n.Name != apitest.NodeName {
		t.Errorf("Node = %+v, %v", n, err)
	}
	if rs, err := c.Routes(ctx); err != nil || len(rs) != 2 || rs[0].Destination.Bits() > rs[1].Destination.Bits() {
		t.Errorf("Routes = %+v, %v", rs, err)
	}
	if ss, err := c.Subnets(ctx); err != nil || len(ss) != 1 || ss[0].Used != 1 {
		t.Errorf("Subnets = %+v, %v", ss, err)
	}
}

func TestIpamCalls(t *testing.T) {
	b, c, _ := fixture(t)
	ctx := t.Context()
	if _, err := c.InitCluster(ctx, api.ClusterSpec{Network: netip.MustParsePrefix("10.0.0.0/8"), SubnetPrefix: 20}); err != nil {
		t.Fatal(err)
	}
	w := web()
	w.Address = netip.MustParseAddr("10.0.0.2")
	if err := b.PutEndpoint(w); err != nil {
		t.Fatal(err)
	}
	one := netip.PrefixFrom(w.Address, 32)
	if a, err := c.Address(ctx, w.Address); err != nil || a.State != api.AddressAttached || a.Owner == nil || a.Owner.Container != "web" {
		t.Errorf("Address = %+v, %v", a, err)
	}
	if _, err := c.Address(ctx, netip.MustParseAddr("192.0.2.1")); api.CodeOf(err) != api.CodeNotFound {
		t.Errorf("address of no network: %v", err)
	}
	if err := c.Reserve(ctx, api.Reservation{Prefix: one}); api.CodeOf(err) != api.CodeConflict {
		t.Errorf("Reserve a taken address: %v", err)
	}
	if err := c.Reserve(ctx, api.Reservation{Prefix: one, Reason: strings.Repeat("x", 300)}); api.CodeOf(err) != api.CodeInvalid {
		t.Errorf("Reserve with an endless reason: %v", err)
	}
	block := netip.MustParsePrefix("10.64.0.0/16")
	if err := c.Reserve(ctx, api.Reservation{Prefix: block, Reason: "office"}); err != nil {
		t.Error(err)
	}
	if was, err := c.Release(ctx, api.Release{Prefix: block}); err != nil || was != "reservation" {
		t.Errorf("Release a block = %s, %v", was, err)
	}
	if _, err := c.Release(ctx, api.Release{Prefix: one}); api.CodeOf(err) != api.CodeConflict {
		t.Errorf("Release what is carried: %v", err)
	}
	b.RemoveEndpoint("web")
	r, err := c.CheckIpam(ctx, false)
	if err != nil || len(r.Problems) != 1 || !r.Problems[0].Releasable {
		t.Fatalf("CheckIpam = %+v, %v", r, err)
	}
	if _, err := c.Release(ctx, api.Release{Prefix: one, Owner: &api.Owner{Container: "other"}}); api.CodeOf(err) != api.CodeConflict {
		t.Errorf("Release for another owner: %v", err)
	}
	if was, err := c.Release(ctx, api.Release{Prefix: one, Owner: r.Problems[0].Owner}); err != nil || was != "lease" {
		t.Errorf("Release a leak = %s, %v", was, err)
	}
}

func TestEventsFollow(t *testing.T) {
	b, c, stop := fixture(t)
	b.AddEvent("a", "one", "")
	b.AddEvent("b", "two", "")
	var seen []string
	err := c.Events(t.Context(), api.EventQuery{}, func(e api.Event) error {
		seen = append(seen, e.Type)
		return nil
	})
	if err != nil || !cmp.Equal(seen, []string{"a", "b"}) {
		t.Fatalf("history = %v, %v", seen, err)
	}
	enough := errors.New("enough")
	seen = nil
	err = c.Events(t.Context(), api.EventQuery{Follow: true}, func(e api.Event) error {
		seen = append(seen, e.Type)
		switch len(seen) {
		case 2:
			b.AddEvent("c", "three", "") // arrives only by following
		case 3:
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || !cmp.Equal(seen, []string{"a", "b", "c"}) {
		t.Errorf("followed = %v, %v", seen, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = c.Events(ctx, api.EventQuery{Follow: true}, func(api.Event) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled follow: %v", err)
	}
	var began time.Time
	err = c.Events(t.Context(), api.EventQuery{Follow: true}, func(api.Event) error {
		if began.IsZero() {
			began = time.Now()
			go stop()
		}
		return nil
	})
	if api.CodeOf(err) != api.CodeUnreachable || time.Since(began) > stopGrace/2 {
		t.Errorf("a stop ended the stream after %s with %v, want agent_unreachable at once", time.Since(began), err)
	}
	stop()
}

// stuck is a backend that answers when it is told to.
type stuck struct {
	*apitest.Backend
	entered, release chan struct{}
}

func (s stuck) Status(ctx context.Context) (api.StatusReport, error) {
	close(s.entered)
	<-s.release
	return api.StatusReport{Node: "n"}, ctx.Err()
}

func (s stuck) Version(context.Context) (api.VersionInfo, error) { panic("boom") }

func TestStopLetsAnswersFinish(t *testing.T) {
	b := stuck{apitest.New(nil), make(chan struct{}), make(chan struct{})}
	path := filepath.Join(socketDir(t), "s")
	stop := serve(t, b, path, "")
	c, err := client.New(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Version(t.Context()); api.CodeOf(err) != api.CodeInternal {
		t.Errorf("a panic in the backend: %v", err)
	}
	go func() {
		<-b.entered
		go stop()
		time.Sleep(50 * time.Millisecond)
		close(b.release)
	}()
	if r, err := c.Status(t.Context()); err != nil || r.Node != "n" {
		t.Errorf("Status during a stop = %+v, %v", r, err)
	}
	stop()
	if _, err := c.Status(t.Context()); api.CodeOf(err) != api.CodeUnreachable {
		t.Errorf("Status after the stop: %v", err)
	}
}

func TestClientErrors(t *testing.T) {
	b, c, _ := fixture(t)
	want := api.Errorf(api.CodeNoLeader, "no leader for 3s").WithHint("wait")
	b.Fail("Status", want)
	_, err := c.Status(t.Context())
	if e, ok := errors.AsType[*api.Error](err); !ok || e.Code != want.Code || e.Hint != want.Hint || e.Error() != want.Error() {
		t.Errorf("error = %#v, want %v", err, want)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	if _, err := c.Version(ctx); api.CodeOf(err) != api.CodeTimeout {
		t.Errorf("after the deadline: %v", err)
	}
	if _, err := client.New("tcp://1.2.3.4:5"); api.CodeOf(err) != api.CodeInvalid {
		t.Errorf("an address that is no socket: %v", err)
	}
}

// An agent that is killed closes its connections in the middle of anything.
func TestClientSeesAKilledAgent(t *testing.T) {
	replies := []string{
		"",
		"HTTP/1.1 200 OK\r\nContent-Type: application/proto\r\nContent-Length: 100\r\n\r\nhalf",
		"HTTP/1.1 200 OK\r\nContent-Type: application/connect+proto\r\nTransfer-Encoding: chunked\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Type: application/connect+proto\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n\x00\x00\x00\r\n",
	}
	for _, reply := range replies {
		path := filepath.Join(socketDir(t), "s")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				buf := make([]byte, 4096)
				_, _ = conn.Read(buf)
				_, _ = io.WriteString(conn, reply)
				conn.Close()
			}
		}()
		c, err := client.New(path)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(reply, "connect+proto") {
			err = c.Events(t.Context(), api.EventQuery{Follow: true}, func(api.Event) error { return nil })
		} else {
			_, err = c.Status(t.Context())
		}
		if api.CodeOf(err) != api.CodeUnreachable {
			t.Errorf("reply %q: %v, want agent_unreachable", reply, err)
		}
		c.Close()
		l.Close()
	}
}

// People without our client: curl speaks HTTP/1.1 and JSON, gRPC needs HTTP/2.
func TestPlainHTTP(t *testing.T) {
	path := filepath.Join(socketDir(t), "s")
	serve(t, apitest.New(nil), path, "")
	h2 := new(http.Protocols)
	h2.SetUnencryptedHTTP2(true)
	for _, protocols := range []*http.Protocols{nil, h2} {
		tr := &http.Transport{Protocols: protocols, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}}
		resp, err := (&http.Client{Transport: tr}).Post("http://x/stellar.v1.Agent/Version", "application/json", bytes.NewReader([]byte("{}")))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		tr.CloseIdleConnections()
		if err != nil || !strings.Contains(string(body), `"version":"v9.9.9"`) {
			t.Errorf("%s: %s %v", resp.Proto, body, err)
		}
	}
}
