package nlx

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// RulesetGeneration returns the number that the kernel raises with each change
// of any nftables rule in the namespace. The socket's protocol is
// NETLINK_NETFILTER. It costs a few microseconds, so it can be polled where a
// subscription would bring every change of every other table.
func (c *Conn) RulesetGeneration() (uint32, error) {
	m := NewMessage(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN, 0).Raw(make([]byte, 4))
	r, err := c.Do(m)
	if err == nil {
		err = r[0].Err
	}
	if err != nil {
		return 0, fmt.Errorf("nftables generation: %w", err)
	}
	for _, b := range r[0].Data {
		var gen uint32
		found := false
		attrs(b[min(4, len(b)):], func(typ uint16, v []byte) {
			if typ == unix.NFTA_GEN_ID && len(v) == 4 {
				gen, found = binary.BigEndian.Uint32(v), true
			}
		})
		if found {
			return gen, nil
		}
	}
	return 0, fmt.Errorf("nftables generation: no answer")
}
