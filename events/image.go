package events

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// What an image is made of is read from the descriptors' media types alone, as
// containerd does it. The contents are the image's to choose: a config may well
// look like a manifest that points to a more harmless config.
const (
	ociIndex       = "application/vnd.oci.image.index.v1+json"
	ociManifest    = "application/vnd.oci.image.manifest.v1+json"
	dockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
)

const (
	maxBlob       = 4 << 20 // of an index, manifest or config; registries take no larger manifest
	maxIndexDepth = 3       // of indexes inside indexes
	maxManifests  = 256     // in one image
)

// errImageTooBig is returned when an image passes one of the limits above.
var errImageTooBig = errors.New("image index is too deep or too large")

// descriptor is the part of an OCI descriptor that matters here.
type descriptor struct {
	MediaType string    `json:"mediaType"`
	Digest    string    `json:"digest"`
	Platform  *platform `json:"platform"`
}

type platform struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
}

// fits is 0 for what does not run on linux/arch and grows with the fit. What
// names no platform may be anything.
func (p *platform) fits(arch string) int {
	switch {
	case p == nil:
		return 1
	case p.OS != "linux" && p.OS != "":
		return 0
	}
	have := p.Architecture
	switch have {
	case "x86_64", "x86-64":
		have = "amd64"
	case "aarch64":
		have = "arm64"
	case "i386", "i686":
		have = "386"
	}
	switch {
	case have == arch:
		return 3
	case arch == "amd64" && have == "386", arch == "arm64" && have == "arm":
		return 2
	}
	return 0
}

// labelSets are the labels of every image config that an image may mean, the
// best fit for this platform first. An index can hold several that fit, and a
// client can ask for another platform, so which one made a container is not
// known; see merge.
type labelSets []map[string]string

// merge returns the first set with each value that a container's label shares with
// any of the sets. Whoever takes a container label for the user's own because the
// image has no identical one is then right whichever config was used.
func (s labelSets) merge(container map[string]string) map[string]string {
	if len(s) == 1 {
		return s[0]
	}
	merged := make(map[string]string)
	for i, set := range s {
		for k, v := range set {
			if have, ok := container[k]; i == 0 || (ok && have == v) {
				merged[k] = v
			}
		}
	}
	return merged
}

// imageLabels returns the labels that ctr's image brings. ok is false when they
// cannot be had now.
func (c *Client) imageLabels(ctx context.Context, ctr *Container) (labels map[string]string, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.CallTimeout)
	defer cancel()
	sets, err := c.readImage(ctx, ctr.Namespace, ctr.Image)
	if err != nil {
		c.log.Debug("image config could not be read", "container", ctr.Key.String(), "image", ctr.Image, "error", err)
		return nil, false
	}
	return sets.merge(ctr.Labels), true
}

func (c *Client) readImage(ctx context.Context, ns, name string) (labelSets, error) {
	resp, err := c.images.Get(ctx, &imagesapi.GetImageRequest{Name: name})
	if err != nil {
		return nil, err
	}
	target := resp.GetImage().GetTarget()
	key := imageKey{ns, name, target.GetDigest(), resp.GetImage().GetUpdatedAt().AsTime().UnixNano()}
	if sets, ok := c.configs.get(key); ok {
		return sets, nil
	}
	sets, size, err := c.readConfigs(ctx, descriptor{MediaType: target.GetMediaType(), Digest: target.GetDigest()})
	if err != nil {
		return nil, err
	}
	c.configs.put(key, sets, size)
	return sets, nil
}

// readConfigs reads every config below root that is in the content store. It
// fails unless one of them fits this platform.
func (c *Client) readConfigs(ctx context.Context, root descriptor) (sets labelSets, size int, err error) {
	manifests, err := c.manifests(ctx, root, maxIndexDepth)
	if err != nil {
		return nil, 0, err
	}
	// Stable: among equals the index's own order counts.
	slices.SortStableFunc(manifests, func(a, b descriptor) int {
		return -cmp.Compare(a.Platform.fits(runtime.GOARCH), b.Platform.fits(runtime.GOARCH))
	})
	fits := false
	for _, m := range manifests {
		labels, n, err := c.readManifest(ctx, m)
		if status.Code(err) == codes.NotFound {
			continue // pulled for other platforms only
		}
		if err != nil {
			return nil, 0, err
		}
		fits = fits || m.Platform.fits(runtime.GOARCH) > 0
		sets, size = append(sets, labels), size+n
	}
	if !fits {
		return nil, 0, fmt.Errorf("image %s: no config for linux/%s", root.Digest, runtime.GOARCH)
	}
	return sets, size, nil
}

// manifests returns the manifests below d, a manifest or an index.
func (c *Client) manifests(ctx context.Context, d descriptor, depth int) ([]descriptor, error) {
	switch d.MediaType {
	case ociManifest, dockerManifest:
		return []descriptor{d}, nil
	case ociIndex, dockerIndex:
	default:
		return nil, nil // containerd runs nothing else
	}
	if depth == 0 {
		return nil, errImageTooBig
	}
	var index struct {
		Manifests []descriptor `json:"manifests"`
	}
	if _, err := c.readJSON(ctx, d.Digest, &index); err != nil {
		if depth < maxIndexDepth && status.Code(err) == codes.NotFound {
			return nil, nil // a nested index that was not pulled
		}
		return nil, err
	}
	var all []descriptor
	for _, entry := range index.Manifests {
		below, err := c.manifests(ctx, entry, depth-1)
		if err != nil {
			return nil, err
		}
		if all = append(all, below...); len(all) > maxManifests {
			return nil, errImageTooBig
		}
	}
	return all, nil
}

// readManifest returns the labels of the manifest's config.
func (c *Client) readManifest(ctx context.Context, d descriptor) (map[string]string, int, error) {
	var manifest struct {
		Config descriptor `json:"config"`
	}
	if _, err := c.readJSON(ctx, d.Digest, &manifest); err != nil {
		return nil, 0, err
	}
	var image struct {
		Config struct {
			Labels map[string]string `json:"Labels"`
		} `json:"config"`
	}
	size, err := c.readJSON(ctx, manifest.Config.Digest, &image)
	if err != nil {
		return nil, 0, err
	}
	return image.Config.Labels, size, nil
}

// readJSON decodes one blob and returns its size.
func (c *Client) readJSON(ctx context.Context, digest string, into any) (int, error) {
	ctx, cancel := context.WithCancel(ctx) // ends the stream on an early return
	defer cancel()
	stream, err := c.content.Read(ctx, &contentapi.ReadContentRequest{Digest: digest})
	if err != nil {
		return 0, err
	}
	var data []byte
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, fmt.Errorf("blob %s: %w", digest, err)
		}
		if data = append(data, part.GetData()...); len(data) > maxBlob {
			return 0, fmt.Errorf("blob %s: %w", digest, errImageTooBig)
		}
	}
	if err := json.Unmarshal(data, into); err != nil {
		return 0, fmt.Errorf("blob %s: %w", digest, err)
	}
	return len(data), nil
}
