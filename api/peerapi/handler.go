package peerapi

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"

	"connectrpc.com/connect"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/internal/rpc"
	peerv1 "stellar.io/stellar/api/stellar/peer/v1"
	"stellar.io/stellar/api/stellar/peer/v1/peerv1connect"
	"stellar.io/stellar/raftstore"
)

// maxCSR bounds a certificate request; real ones have a few hundred bytes.
const maxCSR = 16 << 10

// Backend answers other nodes. A caller was let in by its certificate and by
// Allowed before a method is called; a request is passed on to nobody else.
// Errors are those of server.Backend.
type Backend interface {
	Consensus
	Followed
	Members
	Joins
}

// Consensus is what nodes ask of the leader, or of one that is ahead.
type Consensus interface {
	// Forward executes a request that CheckForward has passed
	// (raftstore.Store.HandleForward) and returns the answer.
	Forward(ctx context.Context, request []byte) (answer []byte, err error)
	// FetchState writes the applied state (raftstore.Store.SnapshotSave).
	FetchState(ctx context.Context, w io.Writer) error
}

// Members are the callers themselves.
type Members interface {
	Announce(ctx context.Context, c Caller, a Announcement) error
	WhoAmI(ctx context.Context, c Caller) (Standing, error)
	// Claim registers c, if need be, as the holder of what it says it holds; the
	// refusals of ipam.RegisterNode and ipam.ClaimHeld. Only the leader does that.
	Claim(ctx context.Context, c Caller, claim Claim) (ClaimAnswer, error)
	// RenewCertificate signs for the identity of c, whatever the request says, and
	// refuses one of another key than it proves. DER, leaf first.
	RenewCertificate(ctx context.Context, c Caller, csr []byte) (chain [][]byte, err error)
	// CAKey returns the cluster's key, PEM, if c is a voter by the state of Raft;
	// api.CodeDenied if it is not.
	CAKey(ctx context.Context, c Caller) ([]byte, error)
}

// Joins are nodes that want to become members.
type Joins interface {
	// Join makes a node a member, or passes the request on to a node that can,
	// unless CallerOf says that it was passed on already. The refusals of
	// ipam.JoinNode; api.CodeInvalid for a clock that is off.
	Join(ctx context.Context, r JoinRequest) (JoinAnswer, error)
}

// Config is what Handler serves.
type Config struct {
	Backend Backend
	// Caller says who is at the other end of the connection that ctx is of, as its
	// verified certificate names it.
	Caller func(ctx context.Context) (Caller, bool)
	// Relay serves the local API for requests that were passed on
	// (server.Server.Relay); nil: they are refused.
	Relay  http.Handler
	Logger *slog.Logger // nil discards
}

// Handler serves members: the Peer service, Join for those who pass it on, and
// the local API behind Relay. Each request is let in by Allowed, or refused with
// api.CodeDenied before its body is read.
func Handler(cfg Config) http.Handler {
	h := newHandler(cfg.Backend, cfg.Logger)
	opts := rpc.HandlerOptions(h.log)
	mux := http.NewServeMux()
	mux.Handle(peerv1connect.NewPeerHandler(h, opts...))
	mux.Handle(peerv1connect.NewJoinHandler(h, opts...))
	if cfg.Relay != nil {
		mux.Handle("/", cfg.Relay)
	}
	refusal := connect.NewErrorWriter(opts...)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, ok := cfg.Caller(r.Context())
		if ok && Allowed(c.Role, c.Raft, r.URL.Path) {
			mux.ServeHTTP(w, r.WithContext(WithCaller(r.Context(), c)))
			return
		}
		h.log.Warn("node refused", "node", c.Name, "id", c.Node, "procedure", r.URL.Path)
		err := rpc.Error(denied(c, "node %q may not call %.80q", c.Name, r.URL.Path))
		if !refusal.IsSupported(r) {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		if err := refusal.Write(w, r, err); err != nil {
			h.log.Debug("refusal not delivered", "node", c.Name, "err", err)
		}
	})
}

// JoinHandler serves those who have no certificate: Join and nothing else.
func JoinHandler(b Joins, log *slog.Logger) http.Handler {
	h := newHandler(nil, log)
	h.joins = b
	mux := http.NewServeMux()
	mux.Handle(peerv1connect.NewJoinHandler(h, rpc.HandlerOptions(h.log)...))
	return mux
}

type handler struct {
	backend Backend
	joins   Joins
	log     *slog.Logger
}

func newHandler(b Backend, log *slog.Logger) *handler {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &handler{backend: b, joins: b, log: log}
}

// caller returns who Handler has let in.
func caller(ctx context.Context) Caller {
	c, _ := CallerOf(ctx)
	return c
}

func (h *handler) Forward(ctx context.Context, m *peerv1.ForwardRequest) (*peerv1.ForwardResponse, error) {
	c := caller(ctx)
	f, err := raftstore.InspectForward(m.GetRequest())
	if err != nil {
		return nil, rpc.Error(api.Errorf(api.CodeInvalid, "%w", err))
	}
	if err := CheckForward(c, f); err != nil {
		h.log.Warn("forwarded request refused", "node", c.Name, "id", c.Node, "err", err)
		return nil, rpc.Error(err)
	}
	answer, err := h.backend.Forward(ctx, m.GetRequest())
	if err != nil {
		return nil, rpc.Error(err)
	}
	return &peerv1.ForwardResponse{Answer: answer}, nil
}

func (h *handler) FetchState(ctx context.Context, _ *peerv1.FetchStateRequest, out *connect.ServerStream[peerv1.FetchStateResponse]) error {
	w := rpc.NewChunkWriter(func(b []byte) error {
		return out.Send(&peerv1.FetchStateResponse{Part: &peerv1.FetchStateResponse_Chunk{Chunk: b}})
	})
	if err := h.backend.FetchState(ctx, w); err != nil {
		return rpc.Error(err)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return out.Send(&peerv1.FetchStateResponse{Part: &peerv1.FetchStateResponse_End{End: &peerv1.StateEnd{Size: w.Size()}}})
}

func (h *handler) Announce(ctx context.Context, m *peerv1.AnnounceRequest) (*peerv1.AnnounceResponse, error) {
	if err := h.backend.Announce(ctx, caller(ctx), Announcement{Address: m.GetAddress(), Version: m.GetVersion()}); err != nil {
		return nil, rpc.Error(err)
	}
	return &peerv1.AnnounceResponse{}, nil
}

func (h *handler) WhoAmI(ctx context.Context, _ *peerv1.WhoAmIRequest) (*peerv1.WhoAmIResponse, error) {
	s, err := h.backend.WhoAmI(ctx, caller(ctx))
	if err != nil {
		return nil, rpc.Error(err)
	}
	return standingToPB(s), nil
}

func (h *handler) Claim(ctx context.Context, m *peerv1.ClaimRequest) (*peerv1.ClaimResponse, error) {
	claim, err := claimFromPB(m)
	if err != nil {
		return nil, rpc.Error(err)
	}
	a, err := h.backend.Claim(ctx, caller(ctx), claim)
	if err != nil {
		return nil, rpc.Error(err)
	}
	return claimAnswerToPB(a), nil
}

func (h *handler) RenewCertificate(ctx context.Context, m *peerv1.RenewCertificateRequest) (*peerv1.RenewCertificateResponse, error) {
	if err := checkCSR(m.GetCsr()); err != nil {
		return nil, rpc.Error(err)
	}
	chain, err := h.backend.RenewCertificate(ctx, caller(ctx), m.GetCsr())
	if err != nil {
		return nil, rpc.Error(err)
	}
	return &peerv1.RenewCertificateResponse{Chain: chain}, nil
}

func checkCSR(der []byte) error {
	if len(der) == 0 || len(der) > maxCSR {
		return api.Errorf(api.CodeInvalid, "a certificate request of %d bytes", len(der))
	}
	return nil
}

func (h *handler) CAKey(ctx context.Context, _ *peerv1.CAKeyRequest) (*peerv1.CAKeyResponse, error) {
	c := caller(ctx)
	key, err := h.backend.CAKey(ctx, c)
	if err != nil {
		return nil, rpc.Error(err)
	}
	h.log.Info("handed the cluster's key over", "node", c.Name, "id", c.Node)
	return &peerv1.CAKeyResponse{Key: key}, nil
}

func (h *handler) Join(ctx context.Context, m *peerv1.JoinRequest) (*peerv1.JoinResponse, error) {
	r, err := joinFromPB(m)
	if err == nil {
		err = checkCSR(r.CSR)
	}
	if err != nil {
		return nil, rpc.Error(err)
	}
	a, err := h.joins.Join(ctx, r)
	if err != nil {
		h.log.Warn("join refused", "node", fmt.Sprintf("%.64q", r.Name), "address", fmt.Sprintf("%.64q", r.Address), "err", err)
		return nil, rpc.Error(err)
	}
	h.log.Info("node joined", "node", r.Name, "id", r.Node, "address", r.Address, "subnet", a.Subnet)
	return joinAnswerToPB(a), nil
}
