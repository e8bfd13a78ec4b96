package server

import (
	"context"
	"net"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/internal/rpc"
	"stellar.io/stellar/api/internal/wire"
	stellarv1 "stellar.io/stellar/api/stellar/v1"
)

// HostChecker looks for what keeps packets from containers.
type HostChecker interface {
	// CheckHost looks at this host now, or has all nodes do so, and changes nothing. It
	// works in every state of the node. A node that cannot be asked is named in the
	// report.
	CheckHost(ctx context.Context, allNodes bool) (api.CheckReport, error)
}

type checkHandler struct{ *Server }

func (h checkHandler) Check(ctx context.Context, m *stellarv1.CheckRequest) (*stellarv1.CheckResponse, error) {
	b, err := part[HostChecker](h.Server)
	if err != nil {
		return nil, rpc.Error(err)
	}
	r, err := b.CheckHost(ctx, m.GetAllNodes())
	if err != nil {
		return nil, rpc.Error(err)
	}
	return wire.FromCheck(r), nil
}

func (h checkHandler) Now(context.Context, *stellarv1.NowRequest) (*stellarv1.NowResponse, error) {
	return &stellarv1.NowResponse{Time: timestamppb.New(time.Now()), Macs: hardwareAddresses()}, nil
}

// maxMACs bounds what Now lists: a host has a few links of its own.
const maxMACs = 64

// hardwareAddresses are those of the host's own links, not of containers' ends.
func hardwareAddresses() []string {
	links, err := net.Interfaces()
	if err != nil {
		return nil // the caller then knows less
	}
	var out []string
	for _, l := range links {
		if len(l.HardwareAddr) > 0 && !strings.HasPrefix(l.Name, "veth") && len(out) < maxMACs {
			out = append(out, l.HardwareAddr.String())
		}
	}
	return out
}
