package pki

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func newToken(t testing.TB) Token {
	t.Helper()
	token, err := NewToken(newCA(t, clusterA), RoleNode, today.Add(time.Hour+time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// same compares all of two tokens, secrets too.
func same(a, b Token) string {
	return cmp.Diff(a, b, cmp.Comparer(func(a, b Secret) bool { return bytes.Equal(a.Bytes(), b.Bytes()) }))
}

func TestTokenRoundTrip(t *testing.T) {
	t.Parallel()
	want := newToken(t)
	text := want.String()
	if strings.ContainsAny(text, " \n\t=") || !strings.HasPrefix(text, "STELLAR1-") {
		t.Errorf("text %q", text)
	}
	for _, s := range []string{text, "  " + text + "\n", strings.ToLower(text)} {
		got, err := ParseToken(s)
		if err != nil {
			t.Fatal(err)
		}
		if diff := same(want, got); diff != "" {
			t.Error(diff)
		}
		if got.SecretHash() != want.SecretHash() {
			t.Error("hash of the secret changed")
		}
	}
	if want.Expires != today.Add(time.Hour) {
		t.Errorf("expires %s", want.Expires)
	}
	other := newToken(t)
	if other.ID == want.ID || other.SecretHash() == want.SecretHash() {
		t.Error("two tokens are alike")
	}
}

// Each single wrong character, each swap of neighbours, each lost or doubled one.
func TestTokenTypos(t *testing.T) {
	t.Parallel()
	text := newToken(t).String()
	try := func(kind, s string) {
		if strings.EqualFold(s, text) {
			return
		}
		if _, err := ParseToken(s); !errors.Is(err, ErrBadToken) {
			t.Errorf("%s: %v", kind, err)
		} else if len(s) > 20 && strings.Contains(err.Error(), s[20:40]) {
			t.Errorf("%s: the error quotes the token", kind)
		}
	}
	for i := range text {
		for _, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-= \n" {
			if i > 0 && i < len(text)-1 {
				try("wrong character", text[:i]+string(c)+text[i+1:])
			}
		}
		try("lost", text[:i]+text[i+1:])
		try("doubled", text[:i]+text[i:i+1]+text[i:])
		if i+1 < len(text) {
			try("swapped", text[:i]+text[i+1:i+2]+text[i:i+1]+text[i+2:])
		}
	}
	for _, s := range []string{"", "STELLAR1-", "STELLAR2" + text[8:], "SWMTKN-1-x", text + text} {
		try("other text", s)
	}
}

func TestTokenInvalid(t *testing.T) {
	t.Parallel()
	good := newToken(t)
	for _, change := range []func(*Token){
		func(k *Token) { k.Role = 0 },
		func(k *Token) { k.Role = 77 },
		func(k *Token) { k.Cluster = "" },
		func(k *Token) { k.ID = "x" },
		func(k *Token) { k.Secret = Secret{} },
		func(k *Token) { k.Expires = time.Unix(-5, 0) },
	} {
		k := good
		change(&k)
		if s := k.String(); s != "(invalid token)" {
			t.Errorf("%q", s)
		}
	}
	if _, err := NewTokenFor(clusterA, [32]byte{}, 0, today); !errors.Is(err, ErrBadToken) {
		t.Errorf("no role: %v", err)
	}
}

func FuzzParseToken(f *testing.F) {
	text := newToken(f).String()
	f.Add(text)
	f.Add(strings.ToLower(text))
	f.Add(text[:len(text)-1] + "B")
	f.Add("STELLAR1-")
	f.Add("STELLAR1-" + strings.Repeat("7", len(text)-9))
	f.Fuzz(func(t *testing.T, s string) {
		token, err := ParseToken(s)
		if err != nil {
			if !errors.Is(err, ErrBadToken) {
				t.Fatalf("%v", err)
			}
			return
		}
		if got := token.String(); got != strings.ToUpper(strings.TrimSpace(s)) {
			t.Fatalf("%q came back as %q", s, got)
		}
	})
}
