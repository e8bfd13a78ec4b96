package raftstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// checkBolt reads the pages of a bbolt file that are in use, before bbolt does.
// When bbolt opens a file it walks all of them in a goroutine of its own, and a
// damaged one is a panic or a fault there that nobody can recover from: the whole
// agent would die at each start. It returns ErrCorrupt, or ErrLocked when another
// process has the file open.
func checkBolt(path string, wait time.Duration) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() // and with it the lock
	if err := lockShared(f, wait); err != nil {
		return err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := checkPages(data); err != nil {
		return fmt.Errorf("%s: %w: %w", path, ErrCorrupt, err)
	}
	return nil
}

// lockShared waits for bbolt's own lock on the file.
func lockShared(f *os.File, wait time.Duration) error {
	for end := time.Now().Add(wait); ; time.Sleep(20 * time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			return os.NewSyscallError("flock", err)
		case time.Now().After(end):
			return fmt.Errorf("%s: %w", f.Name(), ErrLocked)
		}
	}
}

// The form of a bbolt file, version 2, in the byte order of the machine: pages of
// one size. Each begins with id (8), flags (2), count (2), overflow (4). Pages 0
// and 1 are metas: magic (4), version (4), page size (4), flags (4), root page (8),
// sequence (8), free list (8), end of the pages in use (8), transaction (8), FNV-1a
// of these (8). Elements follow the head of a branch: position (4), key size (4),
// page (8); and of a leaf: flags (4), position (4), key size (4), value size (4).
// Positions count from the element. A leaf element with flag 1 is a bucket: its value
// begins with the bucket's root page (8), 0 for a small one that is stored inline.
const (
	boltMagic   = 0xED0CDAED
	boltVersion = 2
	boltHead    = 16
	boltElem    = 16
	boltBranch  = 1
	boltLeaf    = 2
	boltMeta    = 64 // bytes of a meta with its checksum
	boltDepth   = 64 // no tree is deeper
)

type boltMetaPage struct {
	pageSize uint32
	root     uint64
	end      uint64
	tx       uint64
}

// boltPages is a file being checked.
type boltPages struct {
	data []byte
	meta boltMetaPage
	seen map[uint64]bool // pages that something refers to
}

func checkPages(data []byte) error {
	m0, ok0 := readMeta(data)
	size := m0.pageSize
	if !ok0 {
		size = uint32(os.Getpagesize())
	}
	if uint64(len(data)) < 2*uint64(size) {
		return errors.New("file is too short")
	}
	m1, ok1 := readMeta(data[size:])
	switch {
	case !ok0 && !ok1:
		return errors.New("both meta pages are damaged")
	case !ok0 || ok1 && m1.tx > m0.tx:
		m0 = m1
	}
	if m0.pageSize < 1024 || m0.pageSize&(m0.pageSize-1) != 0 || m0.end > uint64(len(data))/uint64(m0.pageSize) {
		return errors.New("meta page does not fit the file")
	}
	p := &boltPages{data: data, meta: m0, seen: map[uint64]bool{0: true, 1: true}}
	if err := p.tree(m0.root, nil, nil, 0); err != nil {
		return err
	}
	return p.names()
}

// names checks that the file has the buckets of raft-boltdb and that the stable values
// have their names: one that has another would be missing and made anew, without a word.
func (p *boltPages) names() error {
	root := p.data[p.meta.root*uint64(p.meta.pageSize):]
	keys, values, err := elements(root, true, int(binary.NativeEndian.Uint16(root[10:])))
	if err != nil {
		return err
	}
	if len(keys) != 2 || string(keys[0]) != "conf" || string(keys[1]) != "logs" {
		return fmt.Errorf("%d buckets, not conf and logs", len(keys))
	}
	for i := range keys {
		if binary.NativeEndian.Uint32(root[boltHead+i*boltElem:]) != 1 {
			return fmt.Errorf("%s is no bucket", keys[i])
		}
	}
	conf := values[0][16:]
	if page := binary.NativeEndian.Uint64(values[0]); page != 0 {
		conf = p.data[page*uint64(p.meta.pageSize):]
		if binary.NativeEndian.Uint16(conf[8:]) != boltLeaf {
			return errors.New("bucket conf is larger than it can be")
		}
	}
	if keys, _, err = elements(conf, true, int(binary.NativeEndian.Uint16(conf[10:]))); err != nil {
		return err
	}
	for i, k := range keys {
		if s := string(k); s != keyCurrentTerm && s != keyLastVoteTerm && s != keyLastVoteCand {
			return fmt.Errorf("unknown stable value %q", k)
		}
		if binary.NativeEndian.Uint32(conf[boltHead+i*boltElem:]) != 0 {
			return fmt.Errorf("stable value %s is no value", k)
		}
	}
	return nil
}

func readMeta(page []byte) (m boltMetaPage, ok bool) {
	if len(page) < boltHead+boltMeta {
		return m, false
	}
	b, ne := page[boltHead:], binary.NativeEndian
	h := fnv.New64a()
	h.Write(b[:boltMeta-8])
	if ne.Uint32(b) != boltMagic || ne.Uint32(b[4:]) != boltVersion || ne.Uint64(b[boltMeta-8:]) != h.Sum64() {
		return m, false
	}
	return boltMetaPage{pageSize: ne.Uint32(b[8:]), root: ne.Uint64(b[16:]), end: ne.Uint64(b[40:]), tx: ne.Uint64(b[48:])}, true
}

// page returns a page with its overflow, and refuses one that is referred to twice.
func (p *boltPages) page(id uint64) ([]byte, error) {
	size := uint64(p.meta.pageSize)
	if id < 2 || id >= p.meta.end {
		return nil, fmt.Errorf("page %d is out of bounds", id)
	}
	head := p.data[id*size:]
	overflow := uint64(binary.NativeEndian.Uint32(head[12:]))
	if binary.NativeEndian.Uint64(head) != id || overflow >= p.meta.end-id {
		return nil, fmt.Errorf("page %d has a damaged head", id)
	}
	for i := id; i <= id+overflow; i++ {
		if p.seen[i] {
			return nil, fmt.Errorf("page %d is referred to twice", i)
		}
		p.seen[i] = true
	}
	return head[:(overflow+1)*size], nil
}

// tree checks the pages below id: their keys lie in [low, high) and grow.
func (p *boltPages) tree(id uint64, low, high []byte, depth int) error {
	page, err := p.page(id)
	if err != nil {
		return err
	}
	flags, count := binary.NativeEndian.Uint16(page[8:]), int(binary.NativeEndian.Uint16(page[10:]))
	if flags != boltBranch && flags != boltLeaf || depth > boltDepth || flags == boltBranch && count == 0 {
		return fmt.Errorf("page %d is of kind %#x with %d elements", id, flags, count)
	}
	keys, rest, err := elements(page, flags == boltLeaf, count)
	if err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	for i, k := range keys {
		if i == 0 && low != nil && bytes.Compare(low, k) > 0 || i > 0 && bytes.Compare(keys[i-1], k) >= 0 ||
			high != nil && bytes.Compare(k, high) >= 0 {
			return fmt.Errorf("page %d: key %d is out of order", id, i)
		}
		if flags == boltBranch {
			next := high
			if i+1 < count {
				next = keys[i+1]
			}
			err = p.tree(binary.NativeEndian.Uint64(page[boltHead+i*boltElem+8:]), k, next, depth+1)
		} else if binary.NativeEndian.Uint32(page[boltHead+i*boltElem:])&1 != 0 {
			err = p.bucket(rest[i], depth+1)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// bucket checks the tree of a bucket from its value.
func (p *boltPages) bucket(value []byte, depth int) error {
	if len(value) < 16 {
		return errors.New("bucket without a head")
	}
	if root := binary.NativeEndian.Uint64(value); root != 0 {
		return p.tree(root, nil, nil, depth)
	}
	inline := value[16:]
	if len(inline) < boltHead || binary.NativeEndian.Uint16(inline[8:]) != boltLeaf {
		return errors.New("inline bucket without a leaf")
	}
	keys, _, err := elements(inline, true, int(binary.NativeEndian.Uint16(inline[10:])))
	for i := 1; i < len(keys) && err == nil; i++ {
		if bytes.Compare(keys[i-1], keys[i]) >= 0 {
			err = errors.New("inline bucket is out of order")
		}
	}
	return err
}

// elements returns the keys of a page, and the values of a leaf. bbolt puts keys and
// values behind the heads of the elements without a gap, so a page whose count has
// changed does not fit.
func elements(page []byte, leaf bool, count int) (keys, values [][]byte, err error) {
	if boltHead+count*boltElem > len(page) {
		return nil, nil, fmt.Errorf("%d elements do not fit", count)
	}
	if count == 0 && bytes.ContainsFunc(page[boltHead:min(len(page), 4*boltHead)], func(r rune) bool { return r != 0 }) {
		return nil, nil, errors.New("an empty page that is not")
	}
	end := uint64(boltHead + count*boltElem)
	for i := range count {
		at := boltHead + i*boltElem
		e, ne := page[at:], binary.NativeEndian
		pos, ksize, vsize := uint64(ne.Uint32(e)), uint64(ne.Uint32(e[4:])), uint64(0)
		if leaf {
			pos, ksize, vsize = uint64(ne.Uint32(e[4:])), uint64(ne.Uint32(e[8:])), uint64(ne.Uint32(e[12:]))
		}
		if pos+ksize+vsize > uint64(len(e)) || ksize == 0 || uint64(at)+pos != end {
			return nil, nil, fmt.Errorf("element %d does not fit", i)
		}
		end += ksize + vsize
		keys = append(keys, e[pos:pos+ksize])
		values = append(values, e[pos+ksize:pos+ksize+vsize])
	}
	return keys, values, nil
}
