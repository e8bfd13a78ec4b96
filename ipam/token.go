package ipam

import (
	"crypto/subtle"
	"fmt"
)

// A token is kept for so long after it has expired, used and revoked ones too,
// so that an operator sees what became of it.
const tokenKept = 24 * 60 * 60 // seconds

// Token is a right to join once, as the state keeps it: its secret is known only
// to those it was given to.
type Token struct {
	ID         string   // 16 lower-case hexadecimal digits
	SecretHash [32]byte // SHA-256 of the secret
	Role       Role     // the most that the joiner may become
	Expires    int64    // seconds since the Unix epoch; the proposer's wall clock judges
	UsedBy     NodeID   // who joined with it; empty: nobody yet
	KeyHash    [32]byte // SHA-256 of the public key that UsedBy joined with
	Revoked    bool
	Created    uint64 // Raft index
	Changed    uint64 // Raft index of the last change
}

// Used reports whether a node has joined with the token.
func (k Token) Used() bool { return k.UsedBy != "" }

// admit tells whether the holder of a secret may join at the given time (seconds
// since the Unix epoch) as node with the key. again: it has joined already. A
// wrong secret is the first thing refused, so that nobody learns more without it.
func (k Token) admit(secretHash, keyHash [32]byte, node NodeID, now int64) (again bool, err error) {
	switch {
	case subtle.ConstantTimeCompare(k.SecretHash[:], secretHash[:]) != 1:
		return false, ErrTokenInvalid
	case k.Revoked:
		return false, fmt.Errorf("%s: %w", k.ID, ErrTokenRevoked)
	case now >= k.Expires:
		return false, fmt.Errorf("%s: %w", k.ID, ErrTokenExpired)
	case !k.Used():
		return false, nil
	case k.UsedBy != node || k.KeyHash != keyHash:
		return false, fmt.Errorf("%s by %s: %w", k.ID, k.UsedBy.Short(), ErrTokenUsed)
	}
	return true, nil
}

// validTokenID reports whether s has the form of a Token's ID.
func validTokenID(s string) bool {
	return len(s) == 16 && NodeID(s+s).Valid()
}
