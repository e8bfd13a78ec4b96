package ipam

import (
	"fmt"

	"stellar.io/stellar/ipam/ipampb"
)

// RevokeToken makes a join token useless for good; whoever has joined with it
// stays. Revoking a revoked one changes nothing. It is refused with
// ErrTokenNotFound when there is no such token.
type RevokeToken struct {
	ID string
}

func (c RevokeToken) apply(t *tx) Result {
	if t.cluster.ID == "" {
		return Result{Err: ErrNotInitialized}
	}
	k, ok := t.tokens.get(c.ID)
	if !ok {
		return Result{Err: fmt.Errorf("%q: %w", c.ID, ErrTokenNotFound)}
	}
	if !k.Revoked {
		k.Revoked = true
		t.putToken(k)
	}
	return Result{}
}

func (c RevokeToken) pb() (*ipampb.Command, error) {
	return &ipampb.Command{Kind: &ipampb.Command_RevokeToken{RevokeToken: &ipampb.RevokeToken{Id: c.ID}}}, nil
}

func revokeTokenFromPB(m *ipampb.RevokeToken) Command { return RevokeToken{ID: m.GetId()} }
