package server

import (
	"context"

	"connectrpc.com/connect"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/internal/rpc"
	stellarv1 "stellar.io/stellar/api/stellar/v1"
)

// Debug is for who looks for a fault of the agent itself.
type Debug interface {
	// LogLevel returns the level of the log, and what it was before level, if that is
	// not empty, was set. api.CodeInvalid for a level that is none.
	LogLevel(ctx context.Context, level string) (now, before string, err error)
	// Bugreport calls send with each file that only the agent can tell. No file has a
	// secret in it. One that cannot be had says so in its text.
	Bugreport(ctx context.Context, send func(api.ReportFile) error) error
}

type debugHandler struct{ *Server }

func (h debugHandler) LogLevel(ctx context.Context, m *stellarv1.DebugLogLevelRequest) (*stellarv1.DebugLogLevelResponse, error) {
	b, err := part[Debug](h.Server)
	if err != nil {
		return nil, rpc.Error(err)
	}
	now, before, err := b.LogLevel(ctx, m.GetLevel())
	if err != nil {
		return nil, rpc.Error(err)
	}
	if m.GetLevel() != "" {
		h.audit(ctx, "log level changed on request", "level", now, "before", before)
	}
	return &stellarv1.DebugLogLevelResponse{Level: now, Before: before}, nil
}

func (h debugHandler) Bugreport(ctx context.Context, _ *stellarv1.DebugBugreportRequest, out *connect.ServerStream[stellarv1.DebugBugreportResponse]) error {
	b, err := part[Debug](h.Server)
	if err != nil {
		return rpc.Error(err)
	}
	err = b.Bugreport(ctx, func(f api.ReportFile) error {
		w := rpc.NewChunkWriter(func(p []byte) error {
			return out.Send(&stellarv1.DebugBugreportResponse{Name: f.Name, Chunk: p})
		})
		if len(f.Data) == 0 { // an empty file is one, too
			return out.Send(&stellarv1.DebugBugreportResponse{Name: f.Name})
		}
		if _, err := w.Write(f.Data); err != nil {
			return err
		}
		return w.Flush()
	})
	if err != nil {
		return rpc.Error(err)
	}
	h.audit(ctx, "bug report made on request")
	return out.Send(&stellarv1.DebugBugreportResponse{End: true})
}
