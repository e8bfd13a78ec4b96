package server

import (
	"context"
	"net/http"

	"stellar.io/stellar/api/internal/rpc"
	"stellar.io/stellar/api/peerapi"
)

// Relay serves the same services for requests that other nodes have passed on
// for their operators. It must stand behind peerapi.Handler, which decides what
// each certificate may ask; the audit log names the node and its caller.
func (s *Server) Relay() http.Handler {
	mux := s.mux(rpc.HandlerOptions(s.log)...)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, ok := peerapi.CallerOf(r.Context()); !ok {
			http.Error(w, "no certificate", http.StatusForbidden)
			return
		}
		mux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), relayKey{}, r.Header.Get(rpc.RelayHeader))))
	})
}

// Forwarded returns the node that has passed the request of ctx on; false when it
// came over this node's own socket. A forwarded request is passed on to nobody.
func Forwarded(ctx context.Context) (peerapi.Caller, bool) { return peerapi.CallerOf(ctx) }

// Origin says, for the audit log of the node that a request is passed on to, who
// asked for it here; give it to client.NewRelay.
func Origin(ctx context.Context) string { return peerOf(ctx).String() }

type relayKey struct{}

// relayedFor returns what the passing node said of its caller. It is only for
// people: that node's word, bounded.
func relayedFor(ctx context.Context) string {
	by, _ := ctx.Value(relayKey{}).(string)
	const most = 64
	return quoted(by[:min(len(by), most)])
}
