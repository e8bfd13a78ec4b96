package redact

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
)

func TestText(t *testing.T) {
	t.Parallel()
	const secret = "hunter2hunter2"
	for name, text := range map[string]string{
		"token":            "join with STELLAR1-" + strings.Repeat("ABCDEFG2", 17) + " now",
		"token, lower":     "stellar1-hunter2hunter2",
		"toml":             `join-token = "hunter2hunter2"`,
		"toml, dotted":     `cluster.secret.value = 'hunter2hunter2' # x`,
		"toml, lines":      "password = \"\"\"\nhunter2hunter2\n\"\"\"",
		"toml, list":       "secrets = [\n \"hunter2hunter2\",\n]",
		"json":             `{"secretHash": "hunter2hunter2", "a": 1}`,
		"json, escaped":    `{"msg": "{\"token\": \"hunter2hunter2\"}"}`,
		"json, quote":      `{"token": "a\"hunter2hunter2"}`,
		"log":              `level=INFO msg=x token=hunter2hunter2 y=1`,
		"environment":      "DB_PASSWORD=hunter2hunter2",
		"header":           "Authorization: Bearer hunter2hunter2",
		"bearer":           "curl -H 'bearer hunter2hunter2'",
		"url":              "https://user:hunter2hunter2@host/path",
		"query":            "GET /?access_token=hunter2hunter2&x=1",
		"yaml":             "apiKey: hunter2hunter2",
		"pem, cut off":     "-----BEGIN EC PRIVATE KEY-----\nhunter2hunter2",
		"pem, in a string": `"-----BEGIN PRIVATE KEY-----\nhunter2hunter2\n-----END PRIVATE KEY-----\n"`,
	} {
		once := Text([]byte(text))
		if strings.Contains(strings.ToLower(string(once)), secret) || !bytes.Contains(once, []byte(Mark)) || bytes.Contains(once, []byte("ABCDEFG")) {
			t.Errorf("%s: %s", name, once)
		}
		if twice := Text(once); len(twice) > len(once)+2 {
			t.Errorf("%s: a second pass makes %q of %q", name, twice, once)
		}
	}
}

func TestKeysInEveryForm(t *testing.T) {
	t.Parallel()
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rs, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]any{"P-256": ec, "P-384": ec384, "Ed25519": ed, "RSA": rs} {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		tail := der[len(der)-24:]
		body := base64.StdEncoding.EncodeToString(der)
		var lines []string
		for rest := body; rest != ""; {
			n := min(64, len(rest))
			lines = append(lines, rest[:n])
			rest = rest[n:]
		}
		for form, text := range map[string]string{
			"PEM":             string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
			"base64":          body,
			"base64 in lines": strings.Join(lines, "\n"),
			"hex":             hex.EncodeToString(der),
			"HEX":             strings.ToUpper(hex.EncodeToString(der)),
			"quoted":          fmt.Sprintf("%q", strings.Join(lines, "\n")),
		} {
			got := string(Text([]byte("before " + text + "\nafter\n")))
			for _, part := range []string{lines[len(lines)/2], lines[len(lines)-1], hex.EncodeToString(tail)} {
				if len(part) > 8 && strings.Contains(strings.ToLower(got), strings.ToLower(part)) {
					t.Errorf("%s as %s: %s is left of it", name, form, part)
				}
			}
			if !strings.HasPrefix(got, "before ") || !strings.Contains(got, "after") && form != "base64" && form != "base64 in lines" {
				t.Errorf("%s as %s: more than the key is gone: %q", name, form, got)
			}
		}
	}
}

// What a report is for stays readable.
func TestOrdinaryTextStays(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`{"id": "00112233445566778899aabbccddeeff", "role": "server", "uses": 0}`,
		"172.16.4.0/22 via 192.0.2.2 dev eth0 proto 147",
		"stellar_raft_apply_duration_seconds_bucket{result=\"ok\",le=\"0.0001\"} 3",
		"goroutine 1 [select]:\nmain.main()\n\t/src/token.go:12 +0x1d",
		"level=INFO msg=\"node is up\" node=a subnet=172.16.0.0/22",
		"-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIQ\n-----END CERTIFICATE-----",
		"the token is not known", "ca 02:73:ac:10:00:02",
	} {
		if got := string(Text([]byte(text))); got != text {
			t.Errorf("%q became %q", text, got)
		}
	}
}
