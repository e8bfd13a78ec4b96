package testx

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
)

func TestImageTar(t *testing.T) {
	t.Parallel()
	img := Image{
		Name: "example.org/a:b", Labels: map[string]string{"k": "v"}, Args: []string{"x"},
		Files:  []File{{Path: "a/b/c", Mode: 0o755, Data: []byte("hello")}, {Path: "a/l", Link: "b/c"}, {Path: "a", Mode: os.ModeDir | 0o755}},
		Others: []Variant{{Architecture: "s390x"}},
	}
	var first, second bytes.Buffer
	for _, w := range []*bytes.Buffer{&first, &second} {
		if err := img.WriteTar(w); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("two builds differ")
	}
	files := untar(t, &first)
	read := func(digest string, into any) {
		t.Helper()
		data, ok := files["blobs/sha256/"+strings.TrimPrefix(digest, "sha256:")]
		if !ok {
			t.Fatalf("no blob %s", digest)
		}
		if err := json.Unmarshal([]byte(data), into); err != nil {
			t.Fatal(err)
		}
	}
	var top, inner struct{ Manifests []descriptor }
	if err := json.Unmarshal([]byte(files["index.json"]), &top); err != nil || len(top.Manifests) != 1 {
		t.Fatalf("index.json: %v, %v", top, err)
	}
	if name := top.Manifests[0].Annotations["io.containerd.image.name"]; name != img.Name {
		t.Errorf("name %q", name)
	}
	read(top.Manifests[0].Digest, &inner)
	if len(inner.Manifests) != 2 || inner.Manifests[1].Platform.Architecture != "s390x" {
		t.Fatalf("inner index: %+v", inner)
	}
	var manifest struct {
		Config descriptor
		Layers []descriptor
	}
	read(inner.Manifests[0].Digest, &manifest)
	var config struct {
		Config struct{ Labels map[string]string }
	}
	read(manifest.Config.Digest, &config)
	if config.Config.Labels["k"] != "v" {
		t.Errorf("labels %v", config.Config.Labels)
	}
	layer := untar(t, strings.NewReader(files["blobs/sha256/"+strings.TrimPrefix(manifest.Layers[0].Digest, "sha256:")]))
	if layer["a/b/c"] != "hello" || layer["a/l"] != "-> b/c" || len(layer) != 4 {
		t.Errorf("layer %v", layer)
	}
}

func untar(t *testing.T, r io.Reader) map[string]string {
	t.Helper()
	files := make(map[string]string)
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		if _, twice := files[h.Name]; twice {
			t.Errorf("%s is there twice", h.Name)
		}
		files[h.Name] = string(data)
		if h.Typeflag == tar.TypeSymlink {
			files[h.Name] = "-> " + h.Linkname
		}
	}
}
