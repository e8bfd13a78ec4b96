package ipam

import (
	"fmt"

	"stellar.io/stellar/ipam/ipampb"
)

// CreateToken stores a join token, good for one node until Expires. Tokens that
// expired more than a day before Now are dropped. The same token again changes
// nothing, also when it was used or revoked meanwhile; it is refused with
// ErrTokenExists when another one has the ID, with ErrInvalid when it has expired
// already. Times are seconds since the Unix epoch, Now is the proposer's clock.
type CreateToken struct {
	ID         string   // 16 lower-case hexadecimal digits
	SecretHash [32]byte // SHA-256 of the secret
	Role       Role     // the most that the joiner may become
	Expires    int64
	Now        int64
}

func (c CreateToken) apply(t *tx) Result {
	if t.cluster.ID == "" {
		return Result{Err: ErrNotInitialized}
	}
	token := Token{ID: c.ID, SecretHash: c.SecretHash, Role: c.Role, Expires: c.Expires}
	if err := token.validate(); err != nil {
		return Result{Err: err}
	}
	if old, ok := t.tokens.get(c.ID); ok {
		if old.SecretHash != c.SecretHash || old.Role != c.Role || old.Expires != c.Expires {
			return Result{Err: fmt.Errorf("%s: %w", c.ID, ErrTokenExists)}
		}
		return Result{}
	}
	if c.Now <= 0 || c.Expires <= c.Now {
		return Result{Err: fmt.Errorf("%w: token expires at %d, it is %d", ErrInvalid, c.Expires, c.Now)}
	}
	t.pruneTokens(c.Now)
	token.Created = t.index
	t.putToken(token)
	return Result{}
}

// pruneTokens drops the tokens that nobody needs to see any more.
func (t *tx) pruneTokens(now int64) {
	var old []Token
	for _, k := range t.tokens.all() {
		if k.Expires <= now-tokenKept {
			old = append(old, k)
		}
	}
	for _, k := range old {
		t.tokens.delete(k.ID)
		t.emit(TokenRemoved{k})
	}
}

// validate tells whether k may be stored.
func (k Token) validate() error {
	switch {
	case !validTokenID(k.ID):
		return fmt.Errorf("%w: token id %q", ErrInvalid, k.ID)
	case k.SecretHash == [32]byte{}:
		return fmt.Errorf("%w: token without a secret", ErrInvalid)
	case !k.Role.known():
		return fmt.Errorf("%w: token without a role", ErrInvalid)
	case k.Expires <= 0:
		return fmt.Errorf("%w: token expires at %d", ErrInvalid, k.Expires)
	}
	return nil
}

func (c CreateToken) pb() (*ipampb.Command, error) {
	role, err := roleToPB(c.Role)
	return &ipampb.Command{Kind: &ipampb.Command_CreateToken{CreateToken: &ipampb.CreateToken{
		Id: c.ID, SecretHash: hashToPB(c.SecretHash), Role: role, Expires: c.Expires, Now: c.Now,
	}}}, err
}

func createTokenFromPB(m *ipampb.CreateToken) Command {
	return CreateToken{
		ID: m.GetId(), SecretHash: hashFromPB(m.GetSecretHash()), Role: Role(m.GetRole()),
		Expires: m.GetExpires(), Now: m.GetNow(),
	}
}
