package node

import (
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"stellar.io/stellar/api"
)

// alivePatience is how long the parts of the agent may take to answer before it counts
// as dead: they only take locks that nobody holds for long.
const alivePatience = 5 * time.Second

// metricsHandler serves metrics and health. Nothing in it is secret, nothing
// changes anything; it is for the local machine all the same.
//
//	/livez, /healthz   200 while the agent's parts answer
//	/readyz            200 while the node can attach containers and a leader answers;
//	                   ?noleader does not ask for the leader, ?verbose lists every check
func (n *Node) metricsHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(n.reg, promhttp.HandlerOpts{ErrorLog: nil}))
	live := livez(func() { n.alive() }, alivePatience)
	mux.Handle("GET /livez", live)
	mux.Handle("GET /healthz", live)
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		report, err := n.Status(r.Context())
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		q := r.URL.Query()
		writeReady(w, report, q.Has("noleader"), q.Has("verbose"))
	})
	return mux
}

// livez answers whether alive returns in time. Requests that come meanwhile wait for
// the same call, so that one goroutine at most hangs in a part that does.
func livez(alive func(), patience time.Duration) http.Handler {
	var mu sync.Mutex // guards asked
	var asked chan struct{}
	ask := func() <-chan struct{} {
		mu.Lock()
		defer mu.Unlock()
		if asked == nil {
			done := make(chan struct{})
			asked = done
			go func() {
				alive()
				mu.Lock()
				asked = nil
				mu.Unlock()
				close(done)
			}()
		}
		return asked
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-ask():
			plainText(w, http.StatusOK)
			fmt.Fprintln(w, "ok")
		case <-time.After(patience):
			plainText(w, http.StatusServiceUnavailable)
			fmt.Fprintln(w, "a part of the agent does not answer: `stellar bugreport` says where it hangs")
		case <-r.Context().Done():
		}
	})
}

func plainText(w http.ResponseWriter, code int) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
}

// writeReady answers 200 when the node can attach containers, 503 otherwise, with
// what keeps it from it, or, verbose, with every check, its state and reason.
func writeReady(w http.ResponseWriter, report api.StatusReport, ignoreLeader, verbose bool) {
	keeps := func(c api.Check) bool {
		switch c.Name {
		case api.CheckReady:
			return c.State != api.OK
		case api.CheckLeader:
			return c.State != api.OK && !ignoreLeader
		case modeCheck:
			return false // containers are attached in either mode
		}
		return c.State == api.Err
	}
	code, word := http.StatusOK, "ready"
	for _, name := range []string{api.CheckReady, api.CheckLeader} {
		if _, there := report.Check(name); !there {
			report.Checks = append(report.Checks, api.Check{Name: name, State: api.Err, Reason: "not known"})
		}
	}
	for _, c := range report.Checks {
		if keeps(c) {
			code, word = http.StatusServiceUnavailable, "not ready"
		}
	}
	plainText(w, code)
	for _, c := range report.Checks {
		if verbose || keeps(c) {
			writeCheck(w, c)
		}
	}
	fmt.Fprintln(w, word)
}

func writeCheck(w io.Writer, c api.Check) {
	if c.Reason == "" {
		fmt.Fprintf(w, "%-4s %s\n", c.State, c.Name)
		return
	}
	fmt.Fprintf(w, "%-4s %s: %s\n", c.State, c.Name, c.Reason)
}
