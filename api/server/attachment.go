package server

import (
	"context"
	"slices"
	"strings"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/internal/rpc"
	"stellar.io/stellar/api/internal/wire"
	stellarv1 "stellar.io/stellar/api/stellar/v1"
)

// Attachments are networks that a client asks for and waits for. All methods are
// idempotent and return at ctx's end at the latest.
type Attachments interface {
	// Attach gives a container a network by hand; Detach takes it away, and says
	// what it was. The server has resolved r.Ref to one container.
	Attach(ctx context.Context, r api.AttachRequest) (api.Endpoint, error)
	Detach(ctx context.Context, ref api.EndpointRef) (api.Endpoint, error)
	// Containers are those of this node that a person may name in an AttachRequest.
	Containers(ctx context.Context) ([]api.ContainerRef, error)

	AddAttachment(ctx context.Context, s api.AttachmentSpec) (api.AttachmentResult, error)
	// DelAttachment reports whether there was anything to take away.
	DelAttachment(ctx context.Context, a api.Attachment) (found bool, err error)
	CheckAttachment(ctx context.Context, c api.AttachmentCheck) error
	// AttachmentsReady returns nil when an AddAttachment would be served.
	AttachmentsReady(ctx context.Context) error
	CollectAttachments(ctx context.Context, network string, ipamOnly bool, valid []api.Attachment) (collected []string, err error)

	Asked(ctx context.Context, c api.ContainerRef) (api.Asked, error)
	// AwaitEndpoint waits for the endpoint in the namespace of the container's init process.
	AwaitEndpoint(ctx context.Context, c api.ContainerRef, pid int) (api.Awaited, error)
}

func (h endpointsHandler) Attach(ctx context.Context, m *stellarv1.EndpointsAttachRequest) (*stellarv1.EndpointsAttachResponse, error) {
	r := wire.ToAttachRequest(m)
	err := checkAddress(m.GetAddress())
	if err == nil {
		r.Ref, err = h.resolveContainer(ctx, r.Ref)
	}
	if err != nil {
		return nil, rpc.Error(err)
	}
	e, err := h.backend.Attach(ctx, r)
	if err != nil {
		return nil, rpc.Error(err)
	}
	h.audit(ctx, "endpoint attached on request", "endpoint", r.Ref.String(), "ip", e.Address)
	return &stellarv1.EndpointsAttachResponse{Endpoint: wire.FromEndpoint(e)}, nil
}

func (h endpointsHandler) Detach(ctx context.Context, m *stellarv1.EndpointsDetachRequest) (*stellarv1.EndpointsDetachResponse, error) {
	ref, err := h.resolve(ctx, m.GetRef())
	if err != nil {
		return nil, rpc.Error(err)
	}
	e, err := h.backend.Detach(ctx, ref)
	if err != nil {
		return nil, rpc.Error(err)
	}
	h.audit(ctx, "endpoint detached on request", "endpoint", ref.String(), "ip", e.Address)
	return &stellarv1.EndpointsDetachResponse{Endpoint: wire.FromEndpoint(e)}, nil
}

// resolveContainer finds the container that the caller means among all of the node's.
func (h endpointsHandler) resolveContainer(ctx context.Context, ref api.EndpointRef) (api.EndpointRef, error) {
	all, err := h.backend.Containers(ctx)
	if err != nil {
		return ref, err
	}
	named := make([]api.Endpoint, len(all))
	for i, c := range all {
		named[i] = api.Endpoint{Namespace: c.Namespace, Container: c.Container}
	}
	slices.SortFunc(named, func(a, b api.Endpoint) int { return strings.Compare(a.Ref().String(), b.Ref().String()) }) // for the error
	e, err := resolveEndpoint(named, api.EndpointRef{Namespace: ref.Namespace, Container: ref.Container})
	if api.CodeOf(err) == api.CodeNotFound {
		err = api.Errorf(api.CodeNotFound, "no container %s on this node", quoted(ref.String())).
			WithHint("`ctr -n NAMESPACE containers ls` and `nerdctl ps -a` show the containers")
	}
	return api.EndpointRef{Namespace: e.Namespace, Container: e.Container, Ifname: ref.Ifname}, err
}

// checkAddress refuses text that is neither empty nor an address: on the wire the
// two would look alike.
func checkAddress(s string) error {
	if s == "" {
		return nil
	}
	_, err := api.ParseAddress(s)
	return err
}

type attachmentsHandler struct{ *Server }

func (h attachmentsHandler) Add(ctx context.Context, m *stellarv1.AttachmentsAddRequest) (*stellarv1.AttachmentsAddResponse, error) {
	if err := checkAddress(m.GetAddress()); err != nil {
		return nil, rpc.Error(err)
	}
	r, err := h.backend.AddAttachment(ctx, wire.ToAttachmentSpec(m))
	if err != nil {
		return nil, rpc.Error(err)
	}
	return wire.FromAttachmentResult(r), nil
}

func (h attachmentsHandler) Del(ctx context.Context, m *stellarv1.AttachmentsDelRequest) (*stellarv1.AttachmentsDelResponse, error) {
	found, err := h.backend.DelAttachment(ctx, wire.ToAttachment(m.GetAttachment(), m.GetIpamOnly()))
	if err != nil {
		return nil, rpc.Error(err)
	}
	return &stellarv1.AttachmentsDelResponse{Found: found}, nil
}

func (h attachmentsHandler) Check(ctx context.Context, m *stellarv1.AttachmentsCheckRequest) (*stellarv1.AttachmentsCheckResponse, error) {
	if err := checkAddress(m.GetAddress()); err != nil {
		return nil, rpc.Error(err)
	}
	if err := h.backend.CheckAttachment(ctx, wire.ToAttachmentCheck(m)); err != nil {
		return nil, rpc.Error(err)
	}
	return &stellarv1.AttachmentsCheckResponse{}, nil
}

func (h attachmentsHandler) Ready(ctx context.Context, _ *stellarv1.AttachmentsReadyRequest) (*stellarv1.AttachmentsReadyResponse, error) {
	if err := h.backend.AttachmentsReady(ctx); err != nil {
		return nil, rpc.Error(err)
	}
	return &stellarv1.AttachmentsReadyResponse{}, nil
}

func (h attachmentsHandler) Collect(ctx context.Context, m *stellarv1.AttachmentsCollectRequest) (*stellarv1.AttachmentsCollectResponse, error) {
	valid := wire.Each(m.GetValid(), func(a *stellarv1.Attachment) api.Attachment { return wire.ToAttachment(a, m.GetIpamOnly()) })
	collected, err := h.backend.CollectAttachments(ctx, m.GetNetwork(), m.GetIpamOnly(), valid)
	if err != nil {
		return nil, rpc.Error(err)
	}
	if len(collected) > 0 {
		h.audit(ctx, "attachments collected", "network", m.GetNetwork(), "collected", collected)
	}
	return &stellarv1.AttachmentsCollectResponse{Collected: collected}, nil
}

func (h attachmentsHandler) Asked(ctx context.Context, m *stellarv1.AttachmentsAskedRequest) (*stellarv1.AttachmentsAskedResponse, error) {
	a, err := h.backend.Asked(ctx, api.ContainerRef{Namespace: m.GetNamespace(), Container: m.GetContainer()})
	if err != nil {
		return nil, rpc.Error(err)
	}
	return wire.FromAsked(a), nil
}

func (h attachmentsHandler) Await(ctx context.Context, m *stellarv1.AttachmentsAwaitRequest) (*stellarv1.AttachmentsAwaitResponse, error) {
	a, err := h.backend.AwaitEndpoint(ctx, api.ContainerRef{Namespace: m.GetNamespace(), Container: m.GetContainer()}, int(m.GetPid()))
	if err != nil {
		return nil, rpc.Error(err)
	}
	return wire.FromAwaited(a), nil
}
