package web

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"stellar.io/stellar/api"
)

// asking bounds how long a page may keep the node busy.
func asking(r *http.Request) (context.Context, context.CancelFunc) {
	return context.WithTimeout(r.Context(), askTimeout)
}

// summary is what every view shows on top.
type summary struct {
	Node      string         `json:"node"`
	Cluster   string         `json:"cluster"`
	Version   string         `json:"version"`
	State     api.CheckState `json:"state"` // the worst check's
	Checks    []api.Check    `json:"checks"`
	Nodes     map[string]int `json:"nodes"` // status → number
	Subnets   int            `json:"subnets"`
	Used      int            `json:"used"` // addresses
	Free      int            `json:"free"`
	Cooling   int            `json:"cooling"`
	Endpoints map[string]int `json:"endpoints"` // state → number
	// Problem is why the numbers are missing, e.g. that there is no cluster yet.
	Problem *problem `json:"problem"`
}

func (s *Server) summary(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := asking(r)
	defer cancel()
	v, err := s.summarize(ctx)
	answer(w, r, v, err)
}

func (s *Server) summarize(ctx context.Context) (summary, error) {
	out := summary{Checks: []api.Check{}, Nodes: map[string]int{}, Endpoints: map[string]int{}}
	report, err := s.views.status.get(ctx)
	if err != nil {
		return out, err
	}
	version, err := s.src.Version(ctx)
	if err != nil {
		return out, err
	}
	out.Node, out.Cluster, out.Version, out.State = report.Node, report.Cluster, version.Version, report.Worst()
	out.Checks = append(out.Checks, report.Checks...)
	rows, err := s.views.rows.get(ctx)
	if err != nil {
		out.Problem = problemOf(err)
		return out, nil
	}
	for _, row := range rows {
		if row.Name != "" {
			out.Nodes[row.Status]++
		}
		if row.State == api.SubnetHeld {
			out.Subnets++
			out.Used, out.Free, out.Cooling = out.Used+row.Used, out.Free+row.Free, out.Cooling+row.Cooling
		}
	}
	endpoints, err := s.views.endpoints.get(ctx)
	if err != nil {
		out.Problem = problemOf(err)
		return out, nil
	}
	for _, e := range endpoints {
		out.Endpoints[e.State]++
	}
	return out, nil
}

// blocks are all subnets by address, for the map.
func (s *Server) blocks(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := asking(r)
	defer cancel()
	rows, err := s.views.rows.get(ctx)
	rows = slices.SortedStableFunc(slices.Values(rows), func(a, b nodeRow) int { return comparePrefix(a.Subnet, b.Subnet) })
	answer(w, r, map[string]any{"items": append([]nodeRow{}, rows...)}, err)
}

// list answers with the page that the query asks for.
func list[T any](w http.ResponseWriter, r *http.Request, l listing[T], rows []T, err error) {
	if err != nil {
		answer(w, r, nil, err)
		return
	}
	q, err := parseQuery(r.URL.Query())
	if err != nil {
		answer(w, r, nil, err)
		return
	}
	p, err := l.of(rows, q)
	answer(w, r, p, err)
}

func (s *Server) nodes(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := asking(r)
	defer cancel()
	rows, err := s.views.rows.get(ctx)
	list(w, r, nodeListing, rows, err)
}

func (s *Server) endpoints(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := asking(r)
	defer cancel()
	rows, err := s.views.endpoints.get(ctx)
	list(w, r, endpointListing, rows, err)
}

// endpoint is all about one endpoint of this node.
func (s *Server) endpoint(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := asking(r)
	defer cancel()
	v := r.URL.Query()
	d, err := s.src.Endpoint(ctx, api.EndpointRef{Namespace: v.Get("namespace"), Container: v.Get("container"), Ifname: v.Get("ifname")})
	answer(w, r, d, err)
}

func (s *Server) routes(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := asking(r)
	defer cancel()
	v, err := s.views.routes.get(ctx)
	if err != nil {
		answer(w, r, nil, err)
		return
	}
	q, err := parseQuery(r.URL.Query())
	if err != nil {
		answer(w, r, nil, err)
		return
	}
	rows := v.rows
	drift := 0
	for _, row := range rows {
		if row.Drift {
			drift++
		}
	}
	if r.URL.Query().Get("drift") == "true" {
		rows = slices.DeleteFunc(slices.Clone(rows), func(row routeRow) bool { return !row.Drift })
	}
	p, err := routeListing.of(rows, q)
	answer(w, r, struct {
		page[routeRow]
		Drift   int      `json:"drift"`
		Problem *problem `json:"problem"`
	}{p, drift, v.problem}, err)
}

func (s *Server) raft(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := asking(r)
	defer cancel()
	v, err := s.views.raft.get(ctx)
	v.Peers = slices.SortedFunc(slices.Values(v.Peers), func(a, b api.RaftPeer) int {
		if a.Voter != b.Voter {
			if a.Voter {
				return -1
			}
			return 1
		}
		if c := natural(a.Node, b.Node); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	if v.Peers == nil {
		v.Peers = []api.RaftPeer{}
	}
	answer(w, r, v, err)
}
