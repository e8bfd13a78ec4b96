package pki

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/big"
	"strings"
	"testing"
)

// TestSecretsAreNotPrinted prints everything that holds a secret in every way
// that code prints things by accident, also from inside foreign structs.
func TestSecretsAreNotPrinted(t *testing.T) {
	t.Parallel()
	token, ca := newToken(t), newCA(t, clusterA)
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	store, _ := newStore(t, ca)
	var secrets []string
	hide := func(b []byte) {
		secrets = append(secrets, hex.EncodeToString(b), strings.ToUpper(hex.EncodeToString(b)), string(b),
			strings.Trim(fmt.Sprint(b), "[]"), strings.Trim(strings.ReplaceAll(fmt.Sprint(b), " ", ","), "[]"),
			new(big.Int).SetBytes(b).String())
	}
	hide(token.Secret.Bytes())
	for _, k := range []Key{key, ca.key} {
		d, err := k.signer.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		hide(d)
	}
	secrets = append(secrets, token.String(), token.String()[60:80])

	type hidden struct {
		token  Token
		secret Secret
		key    Key
		ca     *CA
		store  *Store
	}
	type shown struct {
		Token  Token
		Ptr    *Token
		Secret Secret
		Key    Key
		CA     *CA
		Store  *Store
	}
	var out bytes.Buffer
	for _, v := range []any{
		token, &token, token.Secret, &token.Secret, key, &key, ca, *ca, store, []Token{token}, map[string]Token{"a": token}, []*Token{&token},
		hidden{token, token.Secret, key, ca, store}, &hidden{token, token.Secret, key, ca, store},
		shown{token, &token, token.Secret, key, ca, store}, &shown{token, &token, token.Secret, key, ca, store},
		fmt.Errorf("join with %v: %w", token, ErrBadToken),
	} {
		for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			fmt.Fprintf(&out, format+"\n", v)
		}
		data, err := json.Marshal(v)
		if err == nil {
			out.Write(data)
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", v)
	}
	for _, s := range secrets {
		if strings.Contains(out.String(), s) {
			i := strings.Index(out.String(), s)
			t.Errorf("a secret was printed: %.300q", out.String()[max(0, i-200):])
		}
	}
	if !strings.Contains(out.String(), "token "+token.ID) {
		t.Error("a token does not show its id")
	}
}
