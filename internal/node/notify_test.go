package node

import (
	"context"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"stellar.io/stellar/internal/config"
)

// TestNotify: systemd hears READY once the API serves, WATCHDOG while the node
// makes progress, STOPPING at the end.
func TestNotify(t *testing.T) {
	dir := t.TempDir()
	sock := filepath.Join(dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: sock, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	t.Setenv("NOTIFY_SOCKET", sock)
	t.Setenv("WATCHDOG_USEC", strconv.Itoa(int((300 * time.Millisecond).Microseconds())))

	cfg := config.DefaultConfig()
	cfg.DataDir, cfg.RunDir, cfg.NodeName, cfg.MetricsListen = filepath.Join(dir, "data"), dir, "a", netip.AddrPort{}
	cfg.DataDir = dir
	n, err := New(Options{Config: cfg})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()

	next := func() string {
		t.Helper()
		buf := make([]byte, 256)
		if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		size, err := conn.Read(buf)
		if err != nil {
			t.Fatalf("nothing was said: %v", err)
		}
		return string(buf[:size])
	}
	if said := next(); said != "READY=1" {
		t.Errorf("first %q, want READY=1", said)
	}
	if c, err := net.Dial("unix", cfg.SocketPath()); err != nil {
		t.Errorf("ready without an API: %v", err)
	} else {
		c.Close()
	}
	for range 3 {
		if said := next(); said != "WATCHDOG=1" {
			t.Errorf("then %q, want WATCHDOG=1", said)
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	for said := ""; !strings.Contains(said, "STOPPING=1"); {
		said = next()
	}
}
