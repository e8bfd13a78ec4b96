package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"

	"connectrpc.com/connect"

	"stellar.io/stellar/api"
)

// MaxRequest is how many bytes a message to a handler may have.
const MaxRequest = 1 << 20

// ChunkSize is how many bytes of a stream travel in one message.
const ChunkSize = 64 << 10

// HandlerOptions are those of every handler: bounded messages, and a panic that
// ends the one request only.
func HandlerOptions(log *slog.Logger) []connect.HandlerOption {
	return []connect.HandlerOption{
		connect.WithReadMaxBytes(MaxRequest),
		connect.WithRecover(func(_ context.Context, spec connect.Spec, _ http.Header, v any) error {
			log.Error("request handler panicked", "procedure", spec.Procedure, "panic", fmt.Sprint(v))
			return Error(api.Errorf(api.CodeInternal, "%s failed inside the agent; its log says more", spec.Procedure))
		}),
	}
}
