package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestSecretStaysSecret(t *testing.T) {
	t.Parallel()
	const text = "STELLAR1-TOPSECRET"
	spec := JoinSpec{Address: "a:1", Token: text}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "spec", spec, "token", spec.Token)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "spec", spec, "token", spec.Token)
	j, err := json.Marshal(NewToken{Secret: text})
	if err != nil {
		t.Fatal(err)
	}
	for _, got := range []string{
		log.String(), string(j), fmt.Sprint(spec), fmt.Sprintf("%v %+v %#v %s %q %x %d", spec, spec, spec, spec.Token, spec.Token, spec.Token, spec.Token),
		Errorf(CodeInvalid, "join %v with %s: %q", spec, spec.Token, spec.Token).Error(), spec.Token.String(), fmt.Sprint(&spec, []Secret{text}),
	} {
		if strings.Contains(got, "TOPSECRET") || strings.Contains(got, fmt.Sprintf("%x", "TOPSECRET")) {
			t.Errorf("given away: %s", got)
		}
	}
	if spec.Token.Reveal() != text {
		t.Error("Reveal does not")
	}
}
