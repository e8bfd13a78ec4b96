package events

import "sync"

// imageKey names what an image was at one time. The update time is part of it:
// a pull for another platform adds configs under the same digest.
type imageKey struct {
	namespace, name, digest string
	updated                 int64
}

// imageCache keeps label sets of images. Its entries stay true for ever and are
// only dropped for space, the oldest first. Size is that of the configs as stored.
type imageCache struct {
	mu      sync.Mutex // guards what follows
	entries map[imageKey]imageEntry
	order   []imageKey
	size    int
}

type imageEntry struct {
	sets labelSets
	size int
}

const (
	maxCachedImages = 1024
	maxCachedBytes  = 8 << 20
)

func (c *imageCache) get(key imageKey) (labelSets, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[key]
	return e.sets, ok
}

func (c *imageCache) put(key imageKey, sets labelSets, size int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.entries[key]; ok {
		return
	}
	if c.entries == nil {
		c.entries = make(map[imageKey]imageEntry)
	}
	c.entries[key] = imageEntry{sets, size}
	c.order = append(c.order, key)
	c.size += size
	for len(c.order) > maxCachedImages || c.size > maxCachedBytes {
		c.size -= c.entries[c.order[0]].size
		delete(c.entries, c.order[0])
		c.order = c.order[1:]
	}
}
