package pki

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"log/slog"
	"strings"
	"time"
)

// Token lets one machine join: it names the cluster and its CA, so that the
// joiner knows whom it speaks to before it sends anything, and carries the
// secret that admits it. However a Token is printed, only its id shows; String,
// called by name, gives the text to hand over.
type Token struct {
	Cluster string // 32 lower-case hexadecimal digits
	CAHash  [32]byte
	ID      string // 16 lower-case hexadecimal digits, for `token ls` and `revoke`
	Secret  Secret
	Role    Role      // the most that the joiner may become
	Expires time.Time // whole seconds; the servers' clocks judge
}

// Secret is a token's secret: 128 random bits. It lies in a closure because fmt
// prints the unexported fields of a foreign struct without asking them, and with
// a wrong verb (%s) even what a pointer points to.
type Secret struct{ reveal func() [16]byte }

func newSecret(b [16]byte) Secret { return Secret{func() [16]byte { return b }} }

// NewToken makes a token for the CA's cluster. Nothing knows of it until its id
// and SecretHash are in the cluster's state.
func NewToken(ca *CA, role Role, expires time.Time) (Token, error) {
	return NewTokenFor(ca.Cluster(), ca.SPKIHash(), role, expires)
}

// NewTokenFor is NewToken for nodes that do not hold the CA's key.
func NewTokenFor(cluster string, caHash [32]byte, role Role, expires time.Time) (Token, error) {
	var id [8]byte
	var secret [16]byte
	rand.Read(id[:]) // never fails, says its documentation
	rand.Read(secret[:])
	t := Token{
		Cluster: cluster, CAHash: caHash, ID: hex.EncodeToString(id[:]), Secret: newSecret(secret),
		Role: role, Expires: time.Unix(expires.Unix(), 0).UTC(),
	}
	return t, t.validate()
}

func (t Token) validate() error {
	id, err := hex.DecodeString(t.ID)
	switch {
	case !validCluster(t.Cluster):
		return fmt.Errorf("%w: cluster id", ErrBadToken)
	case err != nil || len(id) != 8 || strings.ToLower(t.ID) != t.ID:
		return fmt.Errorf("%w: token id", ErrBadToken)
	case t.Role != RoleServer && t.Role != RoleNode:
		return fmt.Errorf("%w: role", ErrBadToken)
	case t.Secret.reveal == nil:
		return fmt.Errorf("%w: no secret", ErrBadToken)
	case t.Expires.Unix() < 0 || t.Expires.Unix() > 1<<40:
		return fmt.Errorf("%w: expiry", ErrBadToken)
	}
	return nil
}

// Binary form: cluster 16, CA hash 32, id 8, secret 16, role 1, expiry 8 (Unix
// seconds, big endian), CRC-32C 4. In base32 every typed character is 5 bits, and
// a CRC-32 finds any damage within 32 bits in a row: a wrong character, two
// swapped neighbours, up to six wrong in a row, always.
const (
	tokenPrefix = "STELLAR1-"
	tokenSize   = 16 + 32 + 8 + 16 + 1 + 8 + 4
)

var (
	tokenText = base32.StdEncoding.WithPadding(base32.NoPadding)
	tokenSum  = crc32.MakeTable(crc32.Castagnoli)
)

// String returns the token with its secret, one line without blanks.
func (t Token) String() string {
	if t.validate() != nil {
		return "(invalid token)"
	}
	b := make([]byte, 0, tokenSize)
	b, _ = hex.AppendDecode(b, []byte(t.Cluster))
	b = append(b, t.CAHash[:]...)
	b, _ = hex.AppendDecode(b, []byte(t.ID))
	b = append(b, t.Secret.Bytes()...)
	b = append(b, byte(t.Role))
	b = binary.BigEndian.AppendUint64(b, uint64(t.Expires.Unix()))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, tokenSum))
	return tokenPrefix + tokenText.EncodeToString(b)
}

// ParseToken reads what String wrote; blanks around it and the case of its
// letters do not matter. The error wraps ErrBadToken and quotes nothing.
func ParseToken(s string) (Token, error) {
	text, ok := strings.CutPrefix(strings.ToUpper(strings.TrimSpace(s)), tokenPrefix)
	if !ok {
		return Token{}, fmt.Errorf("%w: it does not begin with %s", ErrBadToken, tokenPrefix)
	}
	if want := tokenText.EncodedLen(tokenSize); len(text) != want {
		return Token{}, fmt.Errorf("%w: %d characters after the prefix, want %d", ErrBadToken, len(text), want)
	}
	b, err := tokenText.DecodeString(text)
	if err != nil || tokenText.EncodeToString(b) != text {
		return Token{}, fmt.Errorf("%w: it has a character that no token has", ErrBadToken)
	}
	body := b[:tokenSize-4]
	if crc32.Checksum(body, tokenSum) != binary.BigEndian.Uint32(b[tokenSize-4:]) {
		return Token{}, fmt.Errorf("%w: checksum does not match, is there a typing error?", ErrBadToken)
	}
	t := Token{
		Cluster: hex.EncodeToString(body[:16]), CAHash: [32]byte(body[16:48]), ID: hex.EncodeToString(body[48:56]),
		Secret: newSecret([16]byte(body[56:72])), Role: Role(body[72]),
		Expires: time.Unix(int64(min(binary.BigEndian.Uint64(body[73:]), 1<<62)), 0).UTC(),
	}
	return t, t.validate()
}

// SecretHash returns the SHA-256 of the secret, which the cluster's state keeps.
func (t Token) SecretHash() [32]byte { return t.Secret.Hash() }

// Hash returns the secret's SHA-256.
func (s Secret) Hash() [32]byte {
	return sha256.Sum256(s.Bytes())
}

// Bytes returns the secret itself: for the one message that proves it to a server.
func (s Secret) Bytes() []byte {
	if s.reveal == nil {
		return nil
	}
	b := s.reveal()
	return b[:]
}

func (s Secret) Format(f fmt.State, _ rune)   { fmt.Fprint(f, redacted) }
func (s Secret) LogValue() slog.Value         { return slog.StringValue(redacted) }
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

func (t Token) shown() string                { return "token " + t.ID }
func (t Token) Format(f fmt.State, _ rune)   { fmt.Fprint(f, t.shown()) }
func (t Token) LogValue() slog.Value         { return slog.StringValue(t.shown()) }
func (t Token) MarshalText() ([]byte, error) { return []byte(t.shown()), nil }
