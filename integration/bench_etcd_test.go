package integration

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protowire"
)

const (
	etcdNodes = 3
	// etcdConns is over how many connections callers speak to etcd where it is not one.
	etcdConns = 8
)

// etcdBench is a cluster of etcd, as Debian has it and as it is when nothing is set: three
// processes on loopback, files on the disk that ours are on, every write synced.
type etcdBench struct {
	b        *testing.B
	follower []*grpc.ClientConn
	made     atomic.Int64 // keys so far
}

func newEtcdBench(b *testing.B) *etcdBench {
	b.Helper()
	program, err := filepath.Abs(filepath.Join("..", ".cache", "etcd", "etcd"))
	if err == nil {
		_, err = os.Stat(program)
	}
	if err != nil {
		b.Fatalf("etcd is what leases are compared with (`./packaging/deps.sh bench` brings it): %v", err)
	}
	e := &etcdBench{b: b}
	dir := scratch(b)
	var clients, peers []int
	for range etcdNodes {
		clients, peers = append(clients, freePort(b)), append(peers, freePort(b))
	}
	var members []string
	for i, p := range peers {
		members = append(members, fmt.Sprintf("n%d=http://127.0.0.1:%d", i, p))
	}
	for i := range etcdNodes {
		e.start(program, filepath.Join(dir, fmt.Sprint("n", i)), i, clients[i], peers[i], strings.Join(members, ","))
	}
	e.follower = e.findFollower(clients)
	return e
}

func freePort(b *testing.B) int {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func (e *etcdBench) start(program, dir string, i, client, peer int, members string) {
	e.b.Helper()
	log, err := os.Create(dir + ".log")
	if err != nil {
		e.b.Fatal(err)
	}
	at := func(port int) string { return "http://127.0.0.1:" + strconv.Itoa(port) }
	cmd := exec.Command(program, "--name", fmt.Sprint("n", i), "--data-dir", dir, "--initial-cluster", members, "--initial-cluster-state", "new",
		"--listen-client-urls", at(client), "--advertise-client-urls", at(client), "--listen-peer-urls", at(peer), "--initial-advertise-peer-urls", at(peer),
		"--logger", "zap", "--log-level", "warn")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		e.b.Fatal(err)
	}
	e.b.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		log.Close()
	})
}

// findFollower waits for a leader and connects to a member that is not it.
func (e *etcdBench) findFollower(ports []int) []*grpc.ClientConn {
	e.b.Helper()
	var last error
	for end := time.Now().Add(quiet); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		for _, port := range ports {
			c := e.dial(port)
			var status wireBytes
			if last = c.Invoke(e.b.Context(), "/etcdserverpb.Maintenance/Status", &wireBytes{}, &status); last != nil {
				continue
			}
			header, leader := status.field(1), status.number(4)
			if id := header.number(2); leader == 0 || id == leader {
				continue
			}
			conns := []*grpc.ClientConn{c}
			for len(conns) < etcdConns {
				conns = append(conns, e.dial(port))
			}
			return conns
		}
	}
	e.b.Fatalf("etcd has no leader: %v", last)
	return nil
}

func (e *etcdBench) dial(port int) *grpc.ClientConn {
	e.b.Helper()
	c, err := grpc.NewClient("127.0.0.1:"+strconv.Itoa(port), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodec(wireCodec{})))
	if err != nil {
		e.b.Fatal(err)
	}
	e.b.Cleanup(func() { c.Close() })
	return c
}

// lease takes an address as users of etcd do: a key that must not be there is made, in
// one transaction.
func (e *etcdBench) lease(ctx context.Context, conn *grpc.ClientConn) error {
	n := e.made.Add(1)
	key := fmt.Sprintf("/ipam/default/10.%d.%d.%d", byte(n>>16), byte(n>>8), byte(n))
	value := fmt.Sprintf(`{"owner":"default/%064x/eth0","created":%d}`, n, time.Now().UnixNano())
	var compare, put, txn wireBytes // etcd's rpc.proto
	compare.addNumber(2, 1)         // target: CREATE
	compare.add(3, []byte(key))
	compare.addNumber(5, 0) // create_revision: there is none
	put.add(1, []byte(key))
	put.add(2, []byte(value))
	var op wireBytes
	op.add(2, put.data) // request_put
	txn.add(1, compare.data)
	txn.add(2, op.data) // success
	var answer wireBytes
	if err := conn.Invoke(ctx, "/etcdserverpb.KV/Txn", &txn, &answer); err != nil {
		return err
	}
	if answer.number(2) != 1 {
		return fmt.Errorf("%s is taken", key)
	}
	return nil
}

// bind lets callers together make leases, over so many connections.
func (e *etcdBench) bind(conns, callers, leases int) (took time.Duration, each samples) {
	e.b.Helper()
	var wg sync.WaitGroup
	var left atomic.Int64
	left.Store(int64(leases))
	all, errs := make([]samples, callers), make([]error, callers)
	begin := time.Now()
	for c := range callers {
		wg.Go(func() {
			for left.Add(-1) >= 0 && errs[c] == nil {
				start := time.Now()
				errs[c] = e.lease(e.b.Context(), e.follower[c%conns])
				all[c].add(time.Since(start))
			}
		})
	}
	wg.Wait()
	took = time.Since(begin)
	if err := errors.Join(errs...); err != nil {
		e.b.Fatal(err)
	}
	for _, one := range all {
		each = append(each, one...)
	}
	return took, each
}

// wireBytes is a protobuf message whose fields are written and read one by one: the few
// that are needed here are not worth etcd's modules.
type wireBytes struct{ data []byte }

func (w *wireBytes) add(field protowire.Number, v []byte) {
	w.data = protowire.AppendBytes(protowire.AppendTag(w.data, field, protowire.BytesType), v)
}

func (w *wireBytes) addNumber(field protowire.Number, v uint64) {
	w.data = protowire.AppendVarint(protowire.AppendTag(w.data, field, protowire.VarintType), v)
}

// find returns the value of a field, nil if there is none.
func (w wireBytes) find(field protowire.Number) []byte {
	for rest := w.data; len(rest) > 0; {
		number, typ, n := protowire.ConsumeTag(rest)
		if n < 0 {
			return nil
		}
		rest = rest[n:]
		if n = protowire.ConsumeFieldValue(number, typ, rest); n < 0 {
			return nil
		}
		if number == field {
			return rest[:n]
		}
		rest = rest[n:]
	}
	return nil
}

func (w wireBytes) field(field protowire.Number) wireBytes {
	v, _ := protowire.ConsumeBytes(w.find(field))
	return wireBytes{v}
}

func (w wireBytes) number(field protowire.Number) uint64 {
	v, n := protowire.ConsumeVarint(w.find(field))
	if n < 0 {
		return 0
	}
	return v
}

// wireCodec sends them as they are.
type wireCodec struct{}

func (wireCodec) Name() string { return "proto" }

func (wireCodec) Marshal(v any) ([]byte, error) { return v.(*wireBytes).data, nil }

func (wireCodec) Unmarshal(data []byte, v any) error {
	v.(*wireBytes).data = append([]byte(nil), data...) // the buffer is used again
	return nil
}
