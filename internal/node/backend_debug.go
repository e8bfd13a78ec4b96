package node

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"runtime/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/server"
	"stellar.io/stellar/internal/redact"
)

var _ server.Debug = (*Node)(nil)

// LogLevel implements server.Debug.
func (n *Node) LogLevel(_ context.Context, level string) (now, before string, err error) {
	before = n.opts.Logs.Level()
	if level != "" {
		if err := n.opts.Logs.SetLevel(level); err != nil {
			return "", "", api.Errorf(api.CodeInvalid, "%w", err)
		}
	}
	return n.opts.Logs.Level(), before, nil
}

// reportPatience is how long one file of a report may take to be made.
const reportPatience = 2 * time.Second

// Bugreport implements server.Debug. It works in every state of the node, also when a
// part hangs: what takes no lock comes first. What has a secret in it is not asked at
// all, and all text is redacted besides.
func (n *Node) Bugreport(ctx context.Context, send func(api.ReportFile) error) error {
	for _, part := range []struct {
		name string
		text func(context.Context) ([]byte, error)
	}{
		{"goroutines.txt", reportGoroutines},
		{"log.txt", func(context.Context) ([]byte, error) { return n.opts.Logs.Lines(), nil }},
		{"config.toml", func(context.Context) ([]byte, error) { return n.opts.Config.Text() }},
		{"facts.json", n.reportFacts},
		{"leases.json", n.reportLeases},
		{"metrics.txt", n.reportMetrics},
	} {
		data, err := within(ctx, reportPatience, part.text)
		if err != nil {
			data = fmt.Appendf(data, "not to be had: %v\n", err)
		}
		if err := send(api.ReportFile{Name: part.name, Data: redact.Text(data)}); err != nil {
			return err
		}
	}
	return nil
}

// within returns what text returns, or an error when that takes longer than patience;
// text then goes on by itself.
func within(ctx context.Context, patience time.Duration, text func(context.Context) ([]byte, error)) ([]byte, error) {
	type result struct {
		data []byte
		err  error
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	done := make(chan result, 1)
	go func() { // ends when the part does that it asks
		defer cancel()
		data, err := text(ctx)
		done <- result{data, err}
	}()
	select {
	case r := <-done:
		return r.data, r.err
	case <-ctx.Done():
		select {
		case r := <-done: // it was there in time
			return r.data, r.err
		default:
			return nil, fmt.Errorf("no answer within %s: see where its goroutine hangs", patience)
		}
	}
}

// processStart is about when the process was started.
var processStart = time.Now()

// reportFacts are figures of the process and of what it found around it.
func (n *Node) reportFacts(ctx context.Context) ([]byte, error) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	p, phase := n.current()
	facts := map[string]any{
		"node": n.id.Name, "id": n.id.ID, "version": n.opts.Version, "phase": phase, "up": p != nil,
		"started": processStart.UTC(), "pid": os.Getpid(), "goroutines": runtime.NumGoroutine(),
		"processors": runtime.GOMAXPROCS(0), "heapBytes": m.HeapAlloc, "systemBytes": m.Sys, "garbageCollections": m.NumGC,
		"logLevel": n.opts.Logs.Level(),
	}
	if fds, err := os.ReadDir("/proc/self/fd"); err == nil {
		facts["openFiles"] = len(fds)
	}
	if err := n.fence.get(); err != nil {
		facts["fenced"] = err.Error()
	}
	if p == nil {
		return json.MarshalIndent(facts, "", "  ")
	}
	facts["cluster"], facts["generation"], facts["subnet"] = p.clusterID(), p.generation(), p.subnet.Prefix
	facts["containerdPID"] = n.containerdPID.list()
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if v, err := p.containerd.Version(ctx); err == nil {
		facts["containerdVersion"] = v
	} else {
		facts["containerdVersion"] = err.Error()
	}
	facts["events"] = p.containerd.Stats()
	if p.hold != nil {
		facts["hold"] = p.hold.Status()
	}
	return json.MarshalIndent(facts, "", "  ")
}

// reportLeases are the addresses that this node's journal holds.
func (n *Node) reportLeases(context.Context) ([]byte, error) {
	p, err := n.ready()
	if err != nil {
		return nil, err
	}
	alone, halted := p.holder.Status()
	report := map[string]any{"leases": p.holder.All(), "counts": p.holder.Counts(), "alone": alone}
	if halted != nil {
		report["halted"] = halted.Error()
	}
	return json.MarshalIndent(report, "", "  ")
}

// reportMetrics is what a scrape would get.
func (n *Node) reportMetrics(ctx context.Context) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "/metrics", nil)
	if err != nil {
		return nil, err
	}
	w := page{head: http.Header{}}
	promhttp.HandlerFor(n.reg, promhttp.HandlerOpts{DisableCompression: true, ErrorHandling: promhttp.ContinueOnError}).ServeHTTP(&w, r)
	return w.body.Bytes(), nil
}

// page is an answer of an HTTP handler that nobody is sent.
type page struct {
	head http.Header
	body bytes.Buffer
}

func (p *page) Header() http.Header            { return p.head }
func (p *page) WriteHeader(int)                {}
func (p *page) Write(data []byte) (int, error) { return p.body.Write(data) }

// reportGoroutines says where each goroutine is.
func reportGoroutines(context.Context) ([]byte, error) {
	var b bytes.Buffer
	err := pprof.Lookup("goroutine").WriteTo(&b, 2)
	return b.Bytes(), err
}
