package raftstore

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/raft"

	"stellar.io/stellar/ipam"
)

// The stream from a server to a follower. The follower says once where it is; from
// then on only the server speaks, in frames of a type (1), a length (4) and a body,
// with an entry of the log as it is stored (its data, and its checksum and tag). The
// connection is TLS, which keeps the bytes as they are.
//
//	hello     magic (8) node (16) tags (8) cluster (32) generation (8) life (4) index (8)
//	standing  term (8), leader (16, zeros: none), and each member of Raft:
//	          id (16) voter (1) length of the address (2) address; first and when it changes
//	beat      the server's last index (8) milliseconds since it had a word of the leader (4)
//	entries   one or more commands (record)
//	snapshot  its size (8); chunks follow until that has come
//	chunk     bytes of a snapshot file (backup.go)
//	refused   why, as text
const (
	followMagic = "STLRFLW1"
	helloSize   = 8 + 16 + 8 + 32 + 8 + 4 + 8
	frameHead   = 5

	frameStanding = 'S'
	frameBeat     = 'B'
	frameEntries  = 'E'
	frameSnapshot = 'N'
	frameChunk    = 'C'
	frameRefused  = 'R'

	// maxEntries is how many bytes of entries one frame has, unless one alone has more.
	maxEntries = 64 << 10
	// maxFrame bounds what a follower takes: an envelope has less.
	maxFrame  = 64 << 20
	chunkSize = 64 << 10
)

// errFrame is returned for what is not a frame of this protocol.
var errFrame = errors.New("malformed frame")

// hello is where a follower is.
type hello struct {
	node       ipam.NodeID
	tags       [8]byte // that its proposals begin with
	cluster    string  // "": it has no state
	generation uint64
	life       uint32
	index      uint64
}

func (h hello) encode() ([]byte, error) {
	id, err := hex.DecodeString(string(h.node))
	if err != nil || len(id) != 16 {
		return nil, fmt.Errorf("%w: node id %q", ErrRequest, h.node)
	}
	b := append(make([]byte, 0, helloSize), followMagic...)
	b = append(append(b, id...), h.tags[:]...)
	b = append(b, (h.cluster + string(make([]byte, 32)))[:32]...)
	b = binary.BigEndian.AppendUint64(b, h.generation)
	b = binary.BigEndian.AppendUint32(b, h.life)
	return binary.BigEndian.AppendUint64(b, h.index), nil
}

func readHello(r io.Reader) (h hello, err error) {
	b := make([]byte, helloSize)
	if _, err := io.ReadFull(r, b); err != nil {
		return h, err
	}
	if string(b[:8]) != followMagic {
		return h, fmt.Errorf("%w: no greeting", errFrame)
	}
	h.node = ipam.NodeID(hex.EncodeToString(b[8:24]))
	copy(h.tags[:], b[24:])
	if b[32] != 0 {
		h.cluster = string(b[32:64])
	}
	h.generation, h.life, h.index = binary.BigEndian.Uint64(b[64:]), binary.BigEndian.Uint32(b[72:]), binary.BigEndian.Uint64(b[76:])
	return h, nil
}

// beginFrame appends a frame's head to b; endFrame fills its length in.
func beginFrame(b []byte, kind byte) []byte { return append(b, kind, 0, 0, 0, 0) }

func endFrame(b []byte, at int) []byte {
	binary.BigEndian.PutUint32(b[at+1:], uint32(len(b)-at-frameHead))
	return b
}

// readFrameHead reads the type and the length of the next frame.
func readFrameHead(r io.Reader, b *[frameHead]byte) (kind byte, size int, err error) {
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return 0, 0, err
	}
	n := binary.BigEndian.Uint32(b[1:])
	if n > maxFrame {
		return 0, 0, fmt.Errorf("%w: %d bytes", errFrame, n)
	}
	return b[0], int(n), nil
}

// standing is what a server knows of Raft.
type standing struct {
	term    uint64
	leader  raft.ServerID // "": none that it hears of
	members []raft.Server
}

// address returns where the leader is reached.
func (s *standing) address() string {
	m, _ := findServer(s.members, s.leader)
	return string(m.Address)
}

func appendID(b []byte, id raft.ServerID) []byte {
	raw, err := hex.DecodeString(string(id))
	if err != nil || len(raw) != 16 {
		raw = make([]byte, 16)
	}
	return append(b, raw...)
}

func (s *standing) encode() []byte {
	b := beginFrame(nil, frameStanding)
	b = appendID(binary.BigEndian.AppendUint64(b, s.term), s.leader)
	for _, m := range s.members {
		b = appendID(b, m.ID)
		voter := byte(0)
		if m.Suffrage == raft.Voter {
			voter = 1
		}
		b = binary.BigEndian.AppendUint16(append(b, voter), uint16(len(m.Address)))
		b = append(b, m.Address...)
	}
	return endFrame(b, 0)
}

func decodeStanding(b []byte) (*standing, error) {
	if len(b) < 24 {
		return nil, fmt.Errorf("%w: standing", errFrame)
	}
	s := &standing{term: binary.BigEndian.Uint64(b)}
	if [16]byte(b[8:]) != [16]byte{} {
		s.leader = raft.ServerID(hex.EncodeToString(b[8:24]))
	}
	for b = b[24:]; len(b) > 0; {
		if len(b) < 19 || len(b) < 19+int(binary.BigEndian.Uint16(b[17:])) {
			return nil, fmt.Errorf("%w: standing", errFrame)
		}
		m := raft.Server{ID: raft.ServerID(hex.EncodeToString(b[:16])), Suffrage: raft.Nonvoter}
		if b[16] == 1 {
			m.Suffrage = raft.Voter
		}
		end := 19 + int(binary.BigEndian.Uint16(b[17:]))
		m.Address = raft.ServerAddress(b[19:end])
		s.members, b = append(s.members, m), b[end:]
	}
	return s, nil
}

func (s *standing) equal(o *standing) bool {
	if o == nil || s.term != o.term || s.leader != o.leader || len(s.members) != len(o.members) {
		return false
	}
	for i := range s.members {
		if s.members[i] != o.members[i] {
			return false
		}
	}
	return true
}
