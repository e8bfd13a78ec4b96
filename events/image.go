package events

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
)

// maxBlob bounds an index, a manifest and a config: containerd and registries
// take manifests up to 4 MiB.
const maxBlob = 4 << 20

// maxIndexDepth bounds indexes inside indexes.
const maxIndexDepth = 4

// descriptor is the part of an OCI descriptor that matters here.
type descriptor struct {
	MediaType string    `json:"mediaType"`
	Digest    string    `json:"digest"`
	Size      int64     `json:"size"`
	Platform  *platform `json:"platform"`
}

// blob is an index, a manifest or an image config: what it is shows in which
// fields it has. Docker's and OCI's formats agree on them.
type blob struct {
	Manifests []descriptor `json:"manifests"`
	Config    *struct {
		descriptor
		// Labels is set when the blob is an image config.
		Labels map[string]string `json:"Labels"`
	} `json:"config"`
	RootFS *json.RawMessage `json:"rootfs"`
}

// imageLabels returns the labels in the config of the image that name points
// to now, for this platform. ok is false when they cannot be had.
func (c *Client) imageLabels(ctx context.Context, ns, name string) (labels map[string]string, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.CallTimeout)
	defer cancel()
	labels, err := c.readImage(ctx, name)
	if err != nil {
		c.log.Debug("image config could not be read", "namespace", ns, "image", name, "error", err)
		return nil, false
	}
	return labels, true
}

func (c *Client) readImage(ctx context.Context, name string) (map[string]string, error) {
	resp, err := c.images.Get(ctx, &imagesapi.GetImageRequest{Name: name})
	if err != nil {
		return nil, err
	}
	target := resp.GetImage().GetTarget().GetDigest()
	if labels, ok := c.configs.get(target); ok {
		return labels, nil
	}
	labels, size, err := c.readConfig(ctx, target, maxIndexDepth)
	if err != nil {
		return nil, err
	}
	c.configs.put(target, labels, size)
	return labels, nil
}

// readConfig follows digest to an image config: index → manifest → config.
func (c *Client) readConfig(ctx context.Context, digest string, depth int) (map[string]string, int, error) {
	data, err := c.readBlob(ctx, digest)
	if err != nil {
		return nil, 0, err
	}
	var b blob
	if err := json.Unmarshal(data, &b); err != nil {
		return nil, 0, fmt.Errorf("blob %s: %w", digest, err)
	}
	switch {
	case depth == 0:
		return nil, 0, fmt.Errorf("blob %s: nested too deeply", digest)
	case len(b.Manifests) > 0:
		next, ok := pickPlatform(b.Manifests, runtime.GOARCH)
		if !ok {
			return nil, 0, fmt.Errorf("index %s: nothing for linux/%s", digest, runtime.GOARCH)
		}
		return c.readConfig(ctx, next.Digest, depth-1)
	case b.Config != nil && b.Config.Digest != "":
		return c.readConfig(ctx, b.Config.Digest, depth-1)
	case b.RootFS != nil:
		if b.Config == nil {
			return nil, 0, nil
		}
		return b.Config.Labels, len(data), nil
	}
	return nil, 0, fmt.Errorf("blob %s: neither index, manifest nor image config", digest)
}

func (c *Client) readBlob(ctx context.Context, digest string) ([]byte, error) {
	ctx, cancel := context.WithCancel(ctx) // ends the stream on an early return
	defer cancel()
	stream, err := c.content.Read(ctx, &contentapi.ReadContentRequest{Digest: digest})
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", digest, err)
	}
	var data []byte
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return data, nil
		}
		if err != nil {
			return nil, fmt.Errorf("blob %s: %w", digest, err)
		}
		if data = append(data, part.GetData()...); len(data) > maxBlob {
			return nil, fmt.Errorf("blob %s: larger than %d bytes", digest, maxBlob)
		}
	}
}

// imageCache keeps the labels of image configs by the digest that an image
// points to. What a digest means never changes, so entries are only dropped for
// space, the oldest first.
type imageCache struct {
	mu     sync.Mutex // guards what follows
	labels map[string]cachedLabels
	order  []string
	size   int
}

type cachedLabels struct {
	labels map[string]string
	size   int
}

const (
	maxCachedImages = 1024
	maxCachedBytes  = 8 << 20
)

func (c *imageCache) get(digest string) (map[string]string, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.labels[digest]
	return e.labels, ok
}

func (c *imageCache) put(digest string, labels map[string]string, size int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.labels[digest]; ok {
		return
	}
	if c.labels == nil {
		c.labels = make(map[string]cachedLabels)
	}
	c.labels[digest] = cachedLabels{labels, size}
	c.order = append(c.order, digest)
	c.size += size
	for len(c.order) > maxCachedImages || (c.size > maxCachedBytes && len(c.order) > 1) {
		c.size -= c.labels[c.order[0]].size
		delete(c.labels, c.order[0])
		c.order = c.order[1:]
	}
}
