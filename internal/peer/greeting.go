package peer

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"unicode"
)

// greeting is what each side says first. On the wire: length of the rest (2
// bytes, big endian), verdict (1), generation (8), reason (UTF-8).
type greeting struct {
	verdict    uint8 // a client's is 0
	generation uint64
	reason     string
}

const (
	greetingFixed = 1 + 8
	maxReason     = 512
)

func (g greeting) encode() []byte {
	reason := g.reason
	if len(reason) > maxReason {
		reason = strings.ToValidUTF8(reason[:maxReason], "")
	}
	b := binary.BigEndian.AppendUint16(nil, uint16(greetingFixed+len(reason)))
	b = append(b, g.verdict)
	b = binary.BigEndian.AppendUint64(b, g.generation)
	return append(b, reason...)
}

// readGreeting reads exactly one greeting and nothing of what follows it. The
// reason comes back fit for a terminal and a log.
func readGreeting(r io.Reader) (greeting, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return greeting{}, err
	}
	size := int(binary.BigEndian.Uint16(head[:]))
	if size < greetingFixed || size > greetingFixed+maxReason {
		return greeting{}, fmt.Errorf("%w: greeting of %d bytes", ErrProtocol, size)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return greeting{}, err
	}
	return greeting{body[0], binary.BigEndian.Uint64(body[1:]), printable(string(body[greetingFixed:]))}, nil
}

func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
}
