package node

import (
	"context"
	"fmt"
	"net"
	"path/filepath"

	"stellar.io/stellar/api"
	"stellar.io/stellar/internal/web"
	"stellar.io/stellar/ipam"
)

var _ web.Source = (*Node)(nil)

// WebTokenFile is the file with the web page's token, below the data directory.
const WebTokenFile = "web-token"

// webPage is a page that is ready to be served.
type webPage struct {
	server *web.Server
	lis    net.Listener
}

// listenWeb opens the web page's port; nil when there is to be no page.
func (n *Node) listenWeb() (*webPage, error) {
	a := n.opts.Config.Web.Listen
	if !a.IsValid() {
		return nil, nil
	}
	token, err := web.EnsureToken(filepath.Join(n.opts.Config.DataDir, WebTokenFile))
	if err != nil {
		return nil, err
	}
	lis, err := net.Listen("tcp4", a.String())
	if err != nil {
		return nil, fmt.Errorf("web page: %w", err)
	}
	n.log.Info("web page", "address", lis.Addr().String())
	return &webPage{web.New(n, token, n.log), lis}, nil
}

// close ends a page that was never served.
func (p *webPage) close() error {
	if p == nil {
		return nil
	}
	return p.lis.Close()
}

// ClusterEndpoints implements web.Source.
func (n *Node) ClusterEndpoints(ctx context.Context) ([]api.Endpoint, error) {
	p, err := n.ready()
	if err != nil {
		return nil, err
	}
	out, err := n.Endpoints(ctx)
	if err != nil {
		return nil, err
	}
	p.store.View(func(s *ipam.State) { out = append(out, endpointsElsewhere(s, n.id.ID)...) })
	return out, nil
}

// endpointsElsewhere are the addresses that owners on other nodes have. What only
// those nodes know, such as a reason, is left empty.
func endpointsElsewhere(s *ipam.State, self ipam.NodeID) []api.Endpoint {
	var out []api.Endpoint
	for sub := range s.Subnets() {
		if sub.Node == self || sub.State == ipam.SubnetFree {
			continue
		}
		name := string(sub.Node)
		if m, ok := s.Node(sub.Node); ok {
			name = m.Name
		}
		for l := range s.Leases(sub.SubnetKey) {
			if l.State == ipam.Cooling {
				continue
			}
			e := api.Endpoint{
				Namespace: l.Owner.Namespace, Container: l.Owner.ID, Network: sub.Network, Address: l.Addr, Node: name,
				Ifname: l.Owner.Interface, State: api.StateBound,
			}
			if l.State == ipam.Attached {
				e.State = api.StateAttached
			}
			out = append(out, e)
		}
	}
	return out
}
