package server

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// peer is the process at the other end of a connection, as the kernel recorded
// it when that process connected.
type peer struct {
	uid     int
	pid     int
	allowed bool
}

// nobody is a peer of which the kernel says nothing.
var nobody = peer{uid: -1}

func (p peer) String() string { return fmt.Sprintf("uid %d pid %d", p.uid, p.pid) }

type peerConn struct {
	*net.UnixConn
	peer peer
}

type peerKey struct{}

// withPeer puts the peer of c into the context of its requests.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	if pc, ok := c.(*peerConn); ok {
		return context.WithValue(ctx, peerKey{}, pc.peer)
	}
	return ctx
}

// peerOf returns who sent the request of ctx; nobody when that is not known.
func peerOf(ctx context.Context) peer {
	if p, ok := ctx.Value(peerKey{}).(peer); ok {
		return p
	}
	return nobody
}

// readPeer asks the kernel who connected and judges it: uid 0, our own uid, and
// members of group gid (noGroup: none) may call.
func readPeer(c *net.UnixConn, gid int) peer {
	p := nobody
	raw, err := c.SyscallConn()
	if err != nil {
		return p
	}
	// Control fails only when the connection is closed; the peer is nobody then.
	_ = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil {
			return
		}
		p = peer{uid: int(cred.Uid), pid: int(cred.Pid)}
		p.allowed = cred.Uid == 0 || int(cred.Uid) == os.Geteuid() ||
			gid != noGroup && (int(cred.Gid) == gid || slices.Contains(peerGroups(int(fd)), uint32(gid)))
	})
	return p
}

// maxGroups is the kernel's NGROUPS_MAX.
const maxGroups = 65536

// peerGroups returns the supplementary groups of the peer (SO_PEERGROUPS, Linux
// 4.13), none when the kernel does not tell.
func peerGroups(fd int) []uint32 {
	for n := uint32(64); n <= maxGroups; n = maxGroups {
		groups := make([]uint32, n)
		size := n * 4
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		if errno == 0 {
			return groups[:size/4]
		}
		if errno != unix.ERANGE || n == maxGroups {
			return nil
		}
	}
	return nil
}
