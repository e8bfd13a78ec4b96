package events

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"testing"

	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/timestamppb"
)

type labels = map[string]string

// put stores a blob in the fake's content store.
func (f *fake) put(mediaType string, v any) descriptor {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256(data))
	f.mu.Lock()
	f.blobs[digest] = data
	f.mu.Unlock()
	return descriptor{MediaType: mediaType, Digest: digest}
}

func (f *fake) drop(d descriptor) descriptor {
	f.mu.Lock()
	delete(f.blobs, d.Digest)
	f.mu.Unlock()
	return d
}

// image stores config and manifest for one platform.
func (f *fake) image(arch string, l labels) descriptor {
	config := f.put("application/vnd.oci.image.config.v1+json", map[string]any{
		"architecture": arch, "config": map[string]any{"Labels": l}, "rootfs": map[string]any{},
	})
	d := f.put(ociManifest, map[string]any{"config": config, "layers": []any{}})
	d.Platform = &platform{OS: "linux", Architecture: arch}
	return d
}

func (f *fake) index(entries ...descriptor) descriptor {
	return f.put(ociIndex, map[string]any{"manifests": entries})
}

func (f *fake) tag(name string, d descriptor) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.images[name] = &imagesapi.Image{Name: name, Target: &types.Descriptor{MediaType: d.MediaType, Digest: d.Digest}, UpdatedAt: timestamppb.Now()}
}

func TestImageLabels(t *testing.T) {
	here := runtime.GOARCH
	set := labels{"stellar.io/network": "true"}
	for _, tc := range []struct {
		name      string
		image     func(f *fake) descriptor
		container labels
		want      labels
		unknown   bool
	}{
		{name: "single manifest", image: func(f *fake) descriptor { return f.image(here, set) }, want: set},
		{name: "no labels", image: func(f *fake) descriptor { return f.image(here, nil) }},
		{name: "docker's types", image: func(f *fake) descriptor {
			m := f.image(here, set)
			m.MediaType = dockerManifest
			i := f.index(m)
			i.MediaType = dockerIndex
			return i
		}, want: set},
		{name: "the platform's own of several", image: func(f *fake) descriptor {
			return f.index(f.image("s390x", labels{"a": "1"}), f.image(here, labels{"a": "2"}))
		}, want: labels{"a": "2"}},
		{name: "nested index", image: func(f *fake) descriptor { return f.index(f.index(f.image(here, set))) }, want: set},
		{name: "others were not pulled", image: func(f *fake) descriptor {
			return f.index(f.drop(f.image("s390x", labels{"a": "1"})), f.drop(f.index(f.image("arm", nil))), f.image(here, set))
		}, want: set},
		{name: "attestation beside it", image: func(f *fake) descriptor {
			odd := f.image(here, labels{"a": "1"})
			odd.Platform = &platform{OS: "unknown", Architecture: "unknown"}
			return f.index(f.image(here, set), odd, descriptor{MediaType: "application/vnd.other"})
		}, want: set},
		{
			// Which of two is run is containerd's choice: either may have brought the label.
			name: "a second manifest that fits", image: func(f *fake) descriptor {
				return f.index(f.image(here, nil), f.image(here, set))
			}, container: set, want: set,
		},
		{
			name: "brought by another platform's config", image: func(f *fake) descriptor {
				return f.index(f.image("s390x", set), f.image(here, labels{"stellar.io/network": "none"}))
			}, container: set, want: set,
		},
		{
			// The config looks like a manifest that points to a harmless config.
			name: "config in disguise", image: func(f *fake) descriptor {
				harmless := f.put("application/vnd.oci.image.config.v1+json", map[string]any{"rootfs": 1})
				config := f.put("x", map[string]any{
					"manifests": []any{harmless},
					"config":    map[string]any{"mediaType": "x", "digest": harmless.Digest, "Labels": set}, "rootfs": map[string]any{},
				})
				return f.put(ociManifest, map[string]any{"config": config})
			}, want: set,
		},
		{name: "manifest not here", image: func(f *fake) descriptor { return f.drop(f.image(here, set)) }, unknown: true},
		{name: "only another platform", image: func(f *fake) descriptor { return f.index(f.image("s390x", set)) }, unknown: true},
		{name: "garbage", image: func(f *fake) descriptor { return f.put(ociManifest, "x") }, unknown: true},
		{name: "unknown type", image: func(f *fake) descriptor { return f.put("application/vnd.other", map[string]any{}) }, unknown: true},
		{name: "too deep", image: func(f *fake) descriptor {
			return f.index(f.index(f.index(f.index(f.image(here, set)))))
		}, unknown: true},
		{name: "too many", image: func(f *fake) descriptor {
			m := f.image(here, set)
			all := make([]descriptor, maxManifests+1)
			for i := range all {
				all[i] = m
			}
			return f.index(all...)
		}, unknown: true},
		{name: "too large", image: func(f *fake) descriptor {
			return f.image(here, labels{"a": strings.Repeat("x", maxBlob)})
		}, unknown: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFake(t)
			f.start(t)
			f.tag("img", tc.image(f))
			key := Key{"default", "a"}
			f.create(key, 1)
			f.mu.Lock()
			f.containers[key].Image, f.containers[key].Labels = "img", tc.container
			f.mu.Unlock()
			c, r := watch(t, quick(f))
			r.waitSynced(t, 1)
			for range 2 { // from the store, then from the cache
				ctr, err := c.Look(t.Context(), key)
				if err != nil || !ctr.HasImage || ctr.ImageKnown == tc.unknown {
					t.Fatalf("Look: known %v, %v", ctr.ImageKnown, err)
				}
				if diff := cmp.Diff(tc.want, ctr.ImageLabels); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
}

func TestImageCache(t *testing.T) {
	f := newFake(t)
	f.start(t)
	f.tag("img", f.image(runtime.GOARCH, labels{"a": "1"}))
	key := Key{"default", "a"}
	f.create(key, 1)
	f.mu.Lock()
	f.containers[key].Image = "img"
	f.mu.Unlock()
	c, r := watch(t, quick(f))
	r.waitSynced(t, 1)
	look := func(want string, known bool) {
		t.Helper()
		ctr, err := c.Look(t.Context(), key)
		if err != nil || ctr.ImageKnown != known || ctr.ImageLabels["a"] != want {
			t.Fatalf("Look: %v %v, %v", ctr.ImageKnown, ctr.ImageLabels, err)
		}
	}
	look("1", true)
	reads := f.blobReads.Load()
	look("1", true)
	if f.blobReads.Load() != reads {
		t.Error("the second look read blobs")
	}
	f.tag("img", f.image(runtime.GOARCH, labels{"a": "2"}))
	look("2", true) // a moved tag is another image
	f.mu.Lock()
	delete(f.images, "img")
	f.mu.Unlock()
	look("", false)
}

func TestImageCacheBounds(t *testing.T) {
	t.Parallel()
	var c imageCache
	key := func(i int) imageKey { return imageKey{digest: fmt.Sprint(i)} }
	for i := range 3 * maxCachedImages {
		c.put(key(i), nil, 1)
		c.put(key(i), nil, 1)
	}
	if len(c.entries) != maxCachedImages || c.size != maxCachedImages {
		t.Errorf("%d entries of %d bytes", len(c.entries), c.size)
	}
	for i := range 10 {
		c.put(key(-1-i), nil, maxCachedBytes/4)
	}
	if c.size > maxCachedBytes || len(c.entries) != len(c.order) {
		t.Errorf("%d entries of %d bytes", len(c.entries), c.size)
	}
}
