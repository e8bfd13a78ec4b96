package testx

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"strings"
	"time"
)

// Image is a container image to build. It is made without a registry and is the
// same, byte for byte, for the same fields.
type Image struct {
	// Name is the full reference, such as docker.io/stellar/busybox:test.
	Name   string
	Labels map[string]string
	Files  []File
	Args   []string // the program that runs unless told otherwise
	// Others are further manifests of the same files in the image's index, for
	// example for another architecture or a second one for the same. With none
	// the image has no inner index.
	Others []Variant
}

// Variant is a further manifest of an image.
type Variant struct {
	Architecture string // GOARCH
	Labels       map[string]string
}

// File is one file of an image: a directory if Mode says so, a symbolic link if
// Link is set, else Data. Parent directories are made.
type File struct {
	Path string
	Mode os.FileMode
	Data []byte
	Link string
}

const (
	mediaIndex    = "application/vnd.oci.image.index.v1+json"
	mediaManifest = "application/vnd.oci.image.manifest.v1+json"
	mediaConfig   = "application/vnd.oci.image.config.v1+json"
	mediaLayer    = "application/vnd.oci.image.layer.v1.tar"
)

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Platform    *ociPlatform      `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type ociPlatform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

// layout collects the files of an OCI image layout.
type layout struct {
	tar *tar.Writer
	err error
	had map[string]bool
}

// WriteTar writes the image as an OCI layout in a tar, as `ctr images import` takes it.
func (i Image) WriteTar(w io.Writer) error {
	l := &layout{tar: tar.NewWriter(w), had: make(map[string]bool)}
	layer, err := i.layer()
	if err != nil {
		return err
	}
	root := i.manifest(l, layer, Variant{runtime.GOARCH, i.Labels})
	if len(i.Others) > 0 {
		manifests := []descriptor{root}
		for _, v := range i.Others {
			manifests = append(manifests, i.manifest(l, layer, v))
		}
		root = l.json(mediaIndex, index(manifests...))
	}
	root.Annotations = map[string]string{"io.containerd.image.name": i.Name, "org.opencontainers.image.ref.name": tagOf(i.Name)}
	l.file("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	data, err := json.Marshal(index(root))
	if err != nil {
		return err
	}
	l.file("index.json", data)
	if l.err != nil {
		return l.err
	}
	return l.tar.Close()
}

func index(manifests ...descriptor) map[string]any {
	return map[string]any{"schemaVersion": 2, "mediaType": mediaIndex, "manifests": manifests}
}

func tagOf(name string) string { return name[strings.LastIndex(name, ":")+1:] }

// manifest adds layer, config and manifest of one variant.
func (i Image) manifest(l *layout, layer []byte, v Variant) descriptor {
	layerDesc := l.blob(mediaLayer, layer)
	config := l.json(mediaConfig, map[string]any{
		"architecture": v.Architecture,
		"os":           "linux",
		"config":       map[string]any{"Labels": v.Labels, "Cmd": i.Args, "Env": []string{"PATH=/bin:/sbin:/usr/bin:/usr/sbin"}},
		"rootfs":       map[string]any{"type": "layers", "diff_ids": []string{layerDesc.Digest}},
	})
	d := l.json(mediaManifest, map[string]any{
		"schemaVersion": 2, "mediaType": mediaManifest, "config": config, "layers": []descriptor{layerDesc},
	})
	d.Platform = &ociPlatform{Architecture: v.Architecture, OS: "linux"}
	return d
}

func (l *layout) json(mediaType string, v any) descriptor {
	data, err := json.Marshal(v)
	if err != nil && l.err == nil {
		l.err = err
	}
	return l.blob(mediaType, data)
}

func (l *layout) blob(mediaType string, data []byte) descriptor {
	sum := fmt.Sprintf("%x", sha256.Sum256(data))
	if !l.had[sum] {
		l.had[sum] = true
		l.file("blobs/sha256/"+sum, data)
	}
	return descriptor{MediaType: mediaType, Digest: "sha256:" + sum, Size: len(data)}
}

func (l *layout) file(name string, data []byte) {
	if l.err != nil {
		return
	}
	if l.err = l.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data)), ModTime: epoch}); l.err == nil {
		_, l.err = l.tar.Write(data)
	}
}

// epoch is the time of every file, so that images are reproducible.
var epoch = time.Unix(1_700_000_000, 0).UTC()

// layer makes the one layer of the image.
func (i Image) layer() ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	made := map[string]bool{".": true, "/": true}
	for _, f := range i.Files {
		if err := addParents(w, made, path.Dir(f.Path)); err != nil {
			return nil, err
		}
		h := &tar.Header{Typeflag: tar.TypeReg, Name: f.Path, Mode: int64(f.Mode.Perm()), Size: int64(len(f.Data)), ModTime: epoch}
		switch {
		case f.Mode.IsDir():
			if made[f.Path] {
				continue
			}
			made[f.Path] = true
			h.Typeflag, h.Name = tar.TypeDir, f.Path+"/"
		case f.Link != "":
			h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, f.Link, 0o777
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.Data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func addParents(w *tar.Writer, made map[string]bool, dir string) error {
	if made[dir] {
		return nil
	}
	if err := addParents(w, made, path.Dir(dir)); err != nil {
		return err
	}
	made[dir] = true
	return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, ModTime: epoch})
}

// Import loads the image into a containerd namespace.
func (c *Containerd) Import(namespace string, img Image) error {
	f, err := os.CreateTemp(c.Dir, "image-*.tar")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := img.WriteTar(f); err != nil {
		return fmt.Errorf("image %s: %w", img.Name, err)
	}
	if _, err := c.Ctr("-n", namespace, "images", "import", f.Name()); err != nil {
		return fmt.Errorf("image %s: %w", img.Name, err)
	}
	return nil
}
