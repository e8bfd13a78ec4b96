package nlx

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// Set names an nftables set. Its messages go through Commit.
type Set struct {
	Family byte // unix.NFPROTO_BRIDGE, …
	Table  string
	Name   string
}

// elementsPerMessage keeps the list of elements of one message below 64 KiB, the
// longest attribute.
const elementsPerMessage = 500

// Add returns the requests that add elements; those that the set has are left.
func (s Set) Add(keys ...[]byte) []*Message {
	return s.elements(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, keys)
}

// Delete returns the requests that delete elements; one that the set has not is
// unix.ENOENT.
func (s Set) Delete(keys ...[]byte) []*Message {
	return s.elements(unix.NFT_MSG_DELSETELEM, 0, keys)
}

func (s Set) elements(typ, flags uint16, keys [][]byte) (msgs []*Message) {
	for start := 0; start < len(keys); start += elementsPerMessage {
		m := NewMessage(unix.NFNL_SUBSYS_NFTABLES<<8|typ, flags).Raw([]byte{s.Family, unix.NFNETLINK_V0, 0, 0})
		m.String(unix.NFTA_SET_ELEM_LIST_TABLE, s.Table)
		m.String(unix.NFTA_SET_ELEM_LIST_SET, s.Name)
		m.Nest(unix.NLA_F_NESTED|unix.NFTA_SET_ELEM_LIST_ELEMENTS, func() {
			for _, key := range keys[start:min(start+elementsPerMessage, len(keys))] {
				m.Nest(unix.NLA_F_NESTED|unix.NFTA_LIST_ELEM, func() {
					m.Nest(unix.NLA_F_NESTED|unix.NFTA_SET_ELEM_KEY, func() { m.Bytes(unix.NFTA_DATA_VALUE, key) })
				})
			}
		})
		msgs = append(msgs, m)
	}
	return msgs
}

// batchEdge is the message that opens or closes a transaction. It asks for no
// answer: kernels before 6.10 have none.
func batchEdge(typ uint16) *Message {
	m := NewMessage(typ, 0).Raw([]byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES})
	binary.NativeEndian.PutUint16(m.b[6:], unix.NLM_F_REQUEST)
	return m
}

// Commit makes nftables changes in one transaction and one system call: all of
// them take effect, or none and the first refusal is returned. The socket's
// protocol is NETLINK_NETFILTER. After ErrTimeout what took effect is unknown.
func (c *Conn) Commit(msgs ...*Message) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	batch := make([]*Message, 0, len(msgs)+2)
	batch = append(batch, batchEdge(unix.NFNL_MSG_BATCH_BEGIN))
	batch = append(batch, msgs...)
	batch = append(batch, batchEdge(unix.NFNL_MSG_BATCH_END))
	first := c.seq + 1
	c.seq += uint32(len(batch))
	if err := c.send(batch, first, 0); err != nil {
		return err
	}
	var refused error
	for open := len(msgs); open > 0; {
		err := c.receive(func(h header, body []byte) {
			i := h.seq - first
			if i >= uint32(len(batch)) || h.typ != unix.NLMSG_ERROR {
				return
			}
			if e := decodeError(h, body); e != nil && refused == nil {
				refused = e
			}
			open--
			if i == 0 || i == uint32(len(batch)-1) {
				open = 0 // about the transaction as a whole
			}
		})
		if err != nil {
			return errors.Join(err, refused)
		}
	}
	return refused
}
