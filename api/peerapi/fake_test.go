package peerapi

import (
	"context"
	"io"
	"net/netip"
	"sync"

	"stellar.io/stellar/api"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore"
)

// fakeBackend remembers who asked what, and answers what it was told to.
type fakeBackend struct {
	mu     sync.Mutex
	calls  []string
	caller Caller
	join   JoinRequest
	claim  Claim

	err   error
	state []byte
	stop  error // ends FetchState after state
}

func (f *fakeBackend) called(what string, ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, what)
	f.caller, _ = CallerOf(ctx)
	return f.err
}

func (f *fakeBackend) Forward(ctx context.Context, request []byte) ([]byte, error) {
	return append([]byte("answer to "), request...), f.called("Forward", ctx)
}

func (f *fakeBackend) FetchState(ctx context.Context, w io.Writer) error {
	if err := f.called("FetchState", ctx); err != nil {
		return err
	}
	if _, err := w.Write(f.state); err != nil {
		return err
	}
	return f.stop
}

func (f *fakeBackend) Followers(ctx context.Context) ([]raftstore.FollowerStat, error) {
	return []raftstore.FollowerStat{{Node: beta, Behind: 7}}, f.called("Followers", ctx)
}

func (f *fakeBackend) Announce(ctx context.Context, c Caller, a Announcement) error {
	return f.called("Announce "+c.Name+" "+a.Address+" "+a.Version, ctx)
}

func (f *fakeBackend) WhoAmI(ctx context.Context, c Caller) (Standing, error) {
	return fullStanding, f.called("WhoAmI "+c.Name, ctx)
}

func (f *fakeBackend) Claim(ctx context.Context, c Caller, claim Claim) (ClaimAnswer, error) {
	err := f.called("Claim "+c.Name, ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.claim = claim
	return fullClaimAnswer, err
}

func (f *fakeBackend) RenewCertificate(ctx context.Context, c Caller, csr []byte) ([][]byte, error) {
	return [][]byte{csr, []byte("ca")}, f.called("RenewCertificate "+c.Name, ctx)
}

func (f *fakeBackend) CAKey(ctx context.Context, c Caller) ([]byte, error) {
	return []byte("key"), f.called("CAKey "+c.Name, ctx)
}

func (f *fakeBackend) Join(ctx context.Context, r JoinRequest) (JoinAnswer, error) {
	err := f.called("Join "+r.Name, ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.join = r
	return fullAnswer, err
}

var (
	fullClaimAnswer = ClaimAnswer{Generation: 3, Life: 5, Accepted: true, Leader: alpha, LeaderAddress: "192.0.2.1:9640"}

	fullStanding = Standing{
		Membership: Removed, Generation: 3, Subnet: netip.MustParsePrefix("172.16.4.0/22"), Epoch: ipam.Epoch{Generation: 3, Counter: 7},
		Draining: true, Index: 42, Life: 9,
	}
	fullAnswer = JoinAnswer{
		Chain: [][]byte{{1}, {2}}, CA: []byte{3}, Cluster: "c0ffee", Generation: 3, Network: "default", NetworkPrefix: netip.MustParsePrefix("172.16.0.0/12"),
		Subnet: netip.MustParsePrefix("172.16.4.0/22"), Epoch: ipam.Epoch{Generation: 3, Counter: 7}, Role: api.RoleServer, Leader: alpha,
		Members: []MemberInfo{{ID: alpha, Name: "alpha", Address: "192.0.2.1:9640", Role: api.RoleServer}}, Index: 42,
		Reserved: []netip.Prefix{netip.MustParsePrefix("172.17.0.0/16")},
	}
)
