package packaging

import (
	"archive/tar"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"path"
	"strings"
	"testing"
	"time"

	"stellar.io/stellar/internal/nsx"
	"stellar.io/stellar/internal/testx"
)

// served is the page of the image that stands for nginx.
const served = "a web server's page\n"

// registry lets the bed find a Docker Hub at its own address, with a certificate
// that it trusts and one image: docker.io/library/nginx:alpine, which is busybox
// with a web server.
func (b *bed) registry() {
	b.t.Helper()
	const name = "registry-1.docker.io"
	cert, root := certificate(b.t, name)
	appendTo(b.t, b.path("/etc/ssl/certs/ca-certificates.crt"), root)
	appendTo(b.t, b.path("/etc/hosts"), []byte("127.0.0.1 "+name+"\n"))
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", b.pid))
	if err != nil {
		b.t.Fatal(err)
	}
	defer ns.Close()
	var l net.Listener
	if err := nsx.Do(int(ns.Fd()), func() (err error) { l, err = net.Listen("tcp4", "127.0.0.1:443"); return err }); err != nil {
		b.t.Fatal(err)
	}
	server := &http.Server{
		Handler: repository(b.t), TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}},
		ErrorLog: log.New(io.Discard, "", 0),
	}
	done := make(chan error, 1)
	go func() { done <- server.ServeTLS(l, "", "") }()
	b.t.Cleanup(func() {
		server.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			b.t.Errorf("registry: %v", err)
		}
	})
}

// repository answers as the distribution API does for one image, to any name.
func repository(t *testing.T) http.Handler {
	t.Helper()
	img, err := testx.Busybox()
	if err != nil {
		t.Fatal(err)
	}
	img.Name, img.Args = "docker.io/library/nginx:alpine", []string{"httpd", "-f", "-h", "/www"}
	img.Files = append(img.Files, testx.File{Path: "www/index.html", Mode: 0o644, Data: []byte(served)})
	var text bytes.Buffer
	if err := img.WriteTar(&text); err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for r := tar.NewReader(&text); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[path.Base(h.Name)], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
	var index struct {
		Manifests []struct{ MediaType, Digest string }
	}
	if err := json.Unmarshal(files["index.json"], &index); err != nil || len(index.Manifests) != 1 {
		t.Fatalf("index of the image: %v %s", err, files["index.json"])
	}
	manifest := index.Manifests[0]
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ref, kind := path.Base(r.URL.Path), "application/octet-stream"
		if strings.Contains(r.URL.Path, "/manifests/") {
			kind = manifest.MediaType
			if ref == "alpine" {
				ref = manifest.Digest
			}
		}
		data, ok := files[strings.TrimPrefix(ref, "sha256:")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", kind)
		w.Header().Set("Docker-Content-Digest", ref)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	})
}

// certificate makes one for the name that signs itself.
func certificate(t *testing.T, name string) (cert tls.Certificate, root []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func appendTo(t *testing.T, file string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(path.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}
