package node

import (
	"context"
	"net/http/httptest"
	"net/netip"
	"slices"
	"testing"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/peerapi"
	"stellar.io/stellar/ipam"
)

// joins answers a join with one code after the other; "" lets it pass.
type joins struct {
	codes []api.Code
	asked []peerapi.JoinRequest
}

// Join implements peerapi.Joins.
func (j *joins) Join(_ context.Context, r peerapi.JoinRequest) (peerapi.JoinAnswer, error) {
	code := j.codes[len(j.asked)]
	j.asked = append(j.asked, r)
	if code != "" {
		return peerapi.JoinAnswer{}, api.Errorf(code, "not now")
	}
	return peerapi.JoinAnswer{Network: ipam.DefaultNetwork, NetworkPrefix: netip.MustParsePrefix("172.16.0.0/12"), Subnet: netip.MustParsePrefix("172.16.4.0/22"), Chain: [][]byte{{1}}, CA: []byte{1}, Leader: "00000000000000000000000000000001"}, nil
}

// TestJoinInsists: on the same request, through changes of leadership, and on nothing else.
func TestJoinInsists(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		codes []api.Code
		want  api.Code
	}{
		{"an election", []api.Code{api.CodeNoLeader, api.CodeNoLeader, ""}, ""},
		{"in doubt, then done", []api.Code{api.CodeUnknownOutcome, ""}, ""},
		{"refused", []api.Code{api.CodeDenied}, api.CodeDenied},
		{"refused after an election", []api.Code{api.CodeNoLeader, api.CodeConflict}, api.CodeConflict},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			j := &joins{codes: tt.codes}
			s := httptest.NewServer(peerapi.JoinHandler(j, nil))
			defer s.Close()
			r := peerapi.JoinRequest{TokenID: "t", CSR: []byte{1}, Node: "00000000000000000000000000000002", Name: "b", Mode: ipam.ModeBridge}
			_, err := insist(t.Context(), peerapi.NewClient(s.Client(), s.URL, "a"), r)
			if tt.want == "" && err != nil || tt.want != "" && api.CodeOf(err) != tt.want {
				t.Errorf("%v, want code %q", err, tt.want)
			}
			if len(j.asked) != len(tt.codes) || slices.ContainsFunc(j.asked, func(a peerapi.JoinRequest) bool { return a.TokenID != "t" || a.Node != r.Node }) {
				t.Errorf("asked %d times: %+v", len(j.asked), j.asked)
			}
		})
	}
}
