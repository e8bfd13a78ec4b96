package integration

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"stellar.io/stellar/internal/pki"
	"stellar.io/stellar/internal/testx"
)

// report makes a bug report on the node's host and unpacks it.
func (n *node) report(name string, flags ...string) map[string]string {
	n.t.Helper()
	path := filepath.Join(n.dir, name+".tar.gz")
	args := append([]string{"-a", "unix://" + filepath.Join(n.dir, "run", "stellar.sock"), "bugreport", "-O", path, "--data-dir", filepath.Join(n.dir, "data")}, flags...)
	said := n.host.Run(n.t, binary, args...)
	if !strings.Contains(said, path) || !strings.Contains(said, "host/routes.txt") {
		n.t.Errorf("bugreport says\n%s", said)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		n.t.Fatalf("%s: %v (%v)", path, info, err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		n.t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		n.t.Fatal(err)
	}
	out := map[string]string{}
	for t := tar.NewReader(z); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			n.t.Fatal(err)
		}
		_, file, _ := strings.Cut(h.Name, "/")
		text, err := io.ReadAll(t)
		if err != nil || h.Mode != 0o600 || !strings.HasPrefix(h.Name, "stellar-bugreport-") {
			n.t.Fatalf("%s: mode %o, %v", h.Name, h.Mode, err)
		}
		out[file] = string(text)
	}
}

// secrets are what no report may have, each as raw bytes.
type secrets map[string][]byte

// key adds a private key's file: its DER, and the number alone.
func (s secrets) key(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	if block == nil {
		t.Fatalf("%s is no PEM", path)
	}
	name := filepath.Base(path)
	s[name] = block.Bytes
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		if key, err = x509.ParseECPrivateKey(block.Bytes); err != nil {
			t.Fatal(err)
		}
	}
	switch key := key.(type) {
	case *ecdsa.PrivateKey:
		number, err := key.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		s[name+", its number"] = number
	case ed25519.PrivateKey:
		s[name+", its seed"] = key.Seed()
	default:
		t.Fatalf("%s is a %T", path, key)
	}
}

// forms are the texts by which bytes could be in a file: as they are, in hexadecimal,
// and in base64 at each of the three places that they can begin at.
func forms(secret []byte) []string {
	out := []string{string(secret), hex.EncodeToString(secret), strings.ToUpper(hex.EncodeToString(secret))}
	for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for shift := range 3 {
			text := enc.EncodeToString(append(make([]byte, shift), secret...))
			cut := []int{0, 2, 3}[shift]
			if core := text[cut : len(text)-2]; len(core) >= 8 {
				out = append(out, core)
			}
		}
	}
	return out
}

// in names the secrets that files have, also across line ends and quoted ones.
func (s secrets) in(files map[string]string) (found []string) {
	joined := strings.NewReplacer("\n", "", `\n`, "", " ", "", "\t", "")
	for file, text := range files {
		dense := joined.Replace(text)
		for name, secret := range s {
			if slices.ContainsFunc(forms(secret), func(form string) bool { return strings.Contains(text, form) || strings.Contains(dense, form) }) {
				found = append(found, file+" has the "+name)
			}
		}
	}
	return found
}

// TestBugreportHasNoSecrets: keys, tokens, hashes of tokens and what containers have
// in their environments is nowhere in a report, in no form, with an agent and without;
// and the report is worth something.
func TestBugreportHasNoSecrets(t *testing.T) {
	planted := secrets{
		"environment": []byte("hunter2-of-the-environment"), "label": []byte("hunter2-of-a-label"),
		"annotation": []byte("hunter2-of-an-annotation"), "comment": []byte("hunter2-of-a-comment"), "key": []byte("hunter2-of-a-key"),
	}
	config := writeConfig(t, "# password hunter2-of-a-comment\n[log]\nlevel = \"debug\"")
	n := startNode(t, nodeOptions{flags: []string{"--config", config}})
	token := n.token()
	parsed, err := pki.ParseToken(token)
	if err != nil {
		t.Fatal(err)
	}
	secret, hash := parsed.Secret.Bytes(), parsed.SecretHash()
	planted["token"], planted["token's secret"], planted["token's hash"] = []byte(token), secret[:], hash[:]
	tls := filepath.Join(n.dir, "data", "tls")
	planted.key(t, filepath.Join(tls, "ca.key"))
	planted.key(t, filepath.Join(tls, "node.key"))

	labels := networked()
	labels["com.example.password"] = "hunter2-of-a-label"
	n.runContainer(testx.Run{
		ID: "web", Labels: labels, Annotations: map[string]string{"com.example.key": "hunter2-of-an-annotation"},
		Flags: []string{"--env", "DB_PASSWORD=hunter2-of-the-environment"},
	})
	web := n.await("web", "attached")
	// Somebody has pasted the token into the wrong place, and it is quoted back.
	n.runContainer(testx.Run{ID: "pasted", Labels: networked("ip", token[:60])})
	pasted := n.await("pasted", "rejected")
	planted["token's beginning"] = []byte(token[:60])
	if !strings.Contains(pasted.Reason, token[:30]) {
		t.Fatalf("the rejection does not quote the label any more: %s", pasted.Reason)
	}

	files := n.report("alive", "--config", config)
	for _, found := range planted.in(files) {
		t.Error(found)
	}
	for file, part := range map[string]string{
		"agent/log.txt": `msg="node is up"`, "agent/goroutines.txt": "main.main", "agent/metrics.txt": "stellar_build_info{",
		"agent/config.toml": "commit-wait", "agent/facts.json": `"containerdVersion": "`, "agent/leases.json": web.Address,
		"commands/status.json": `"kind": "Status"`, "commands/events.json": "web", "commands/endpoint-ls.json": "[redacted]",
		"commands/node-ls.json": `"kind": "NodeList"`, "commands/route-ls.json": "172.16.0.0/22", "commands/raft-peers.json": "voter",
		"commands/raft-stats.json": `"term"`, "commands/ipam-ls.json": "172.16.0.0/22", "commands/version.json": `"agent"`,
		"host/links.txt": web.HostIfname, "host/routes.txt": "172.16.0.0/12", "host/filter.txt": "table inet stellar",
		"host/sysctl.txt": "net/ipv4/conf/stellar0/forwarding = 1", "host/config.toml": `log.level = "debug"`, "host/files.txt": "node.key",
		"host/machine.txt": "Linux version", "host/containerd.txt": "containerd", "README.txt": "left\nout",
	} {
		if !strings.Contains(files[file], part) {
			t.Errorf("%s lacks %q:\n%.2000s", file, part, files[file])
		}
	}

	if err := n.stopAgent(syscall.SIGKILL); err == nil {
		t.Error("a killed agent ended well")
	}
	if err := os.WriteFile(config, []byte("# hunter2-of-a-comment\nmtu = 1400\njoin-key = \"hunter2-of-a-key\"\nmode = \""+token+"\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	dead := n.report("dead", "--config", config)
	for _, found := range planted.in(dead) {
		t.Error("without an agent: " + found)
	}
	for file, part := range map[string]string{
		"agent/ERROR.txt": "no agent at", "README.txt": "agent/ERROR.txt: no agent", "commands/status.json": "no agent at",
		"host/links.txt": web.HostIfname, "host/config.toml": "mtu = 1400", "host/files.txt": "node.key", "host/filter.txt": "table inet stellar",
	} {
		if !strings.Contains(dead[file], part) {
			t.Errorf("without an agent %s lacks %q:\n%.2000s", file, part, dead[file])
		}
	}
	// The search finds what it is to find.
	for name, secret := range planted {
		text := "a\n" + base64.StdEncoding.EncodeToString(append([]byte("?"), secret...))
		if found := (secrets{name: secret}).in(map[string]string{"x": text[:12] + "\n" + text[12:]}); len(found) != 1 {
			t.Errorf("%s in base64 is not found", name)
		}
	}
}
