package raftstore

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"

	"stellar.io/stellar/ipam"
)

// inbound is the stream as the follower reads it.
type inbound struct {
	f      *follower
	conn   net.Conn
	from   candidate
	head   [frameHead]byte
	since  time.Time // when there was no leader first; zero: there is one
	settle time.Time // when to look for the server of choice
	led    bool
}

func (in *inbound) lacksLeader(now time.Time) time.Duration {
	if in.since.IsZero() {
		return 0
	}
	return now.Sub(in.since)
}

// frame reads and executes one frame.
func (in *inbound) frame() error {
	kind, b, err := in.read()
	if err != nil {
		return err
	}
	f := in.f
	switch kind {
	case frameStanding:
		st, err := decodeStanding(b)
		if err != nil {
			return err
		}
		f.mu.Lock()
		first := f.server != in.from.id
		f.standing, f.server, f.serverAddr, f.heard = st, in.from.id, in.from.address, time.Now()
		f.mu.Unlock()
		if first {
			f.s.cfg.Logger.Info("following a server", "server", in.from.id.Short(), "index", f.s.fsm.index())
		}
		switch {
		case st.leader != "":
			in.since, in.led = time.Time{}, true
		case in.since.IsZero():
			in.since = time.Now()
		}
	case frameBeat:
		if len(b) != 12 {
			return fmt.Errorf("%w: beat", errFrame)
		}
		f.mu.Lock()
		f.heard, f.serverAt = time.Now(), binary.BigEndian.Uint64(b)
		f.ago = time.Duration(binary.BigEndian.Uint32(b[8:])) * time.Millisecond
		f.mu.Unlock()
	case frameEntries:
		return in.entries(b)
	case frameSnapshot:
		if len(b) != 8 {
			return fmt.Errorf("%w: snapshot", errFrame)
		}
		return in.snapshot(binary.BigEndian.Uint64(b))
	case frameRefused:
		return fmt.Errorf("refused: %q", b)
	default:
		return fmt.Errorf("%w: type %d", errFrame, kind)
	}
	return nil
}

// read reads one frame. A server that says nothing for followSilence has gone.
func (in *inbound) read() (kind byte, body []byte, err error) {
	if err := in.conn.SetReadDeadline(time.Now().Add(followSilence)); err != nil {
		return 0, nil, err
	}
	kind, n, err := readFrameHead(in.conn, &in.head)
	if err != nil {
		return 0, nil, err
	}
	body = make([]byte, n) // the state may keep parts of it
	_, err = io.ReadFull(in.conn, body)
	return kind, body, err
}

// entries applies what a frame holds.
func (in *inbound) entries(b []byte) error {
	f := in.f
	for len(b) > 0 {
		l, prev, rest, ok := cutRecord(b)
		if !ok {
			return fmt.Errorf("%w: entry", errFrame)
		}
		if at := f.s.fsm.index(); at != prev {
			f.mu.Lock()
			f.strayed = true
			f.mu.Unlock()
			return fmt.Errorf("%w: entry %d comes after %d, this node is at %d: it asks for a snapshot", ErrPassed, l.Index, prev, at)
		}
		if a := f.s.fsm.Apply(&l).(applied); a.err != nil {
			return a.err
		}
		b = rest
	}
	f.mu.Lock()
	f.heard = time.Now()
	f.serverAt = max(f.serverAt, f.s.fsm.index())
	f.mu.Unlock()
	return nil
}

// snapshot puts the server's state in the place of this node's.
func (in *inbound) snapshot(size uint64) error {
	if size > maxBackup {
		return fmt.Errorf("%w: snapshot of %d bytes", errFrame, size)
	}
	f := in.f
	st, info, err := readBackup(&chunks{in: in, left: size})
	if err != nil {
		return fmt.Errorf("snapshot of the server: %w", err)
	}
	now, _ := st.Cluster()
	f.s.View(func(old *ipam.State) {
		c, ok := old.Cluster()
		switch {
		case !ok:
		case c.ID != now.ID:
			err = fmt.Errorf("%w: %s, this is %s", ErrOtherCluster, now.ID, c.ID)
		case !follows(now, c.Generation, c.Life):
			err = fmt.Errorf("%w: generation %d, this is %d", ErrOtherCluster, now.Generation, c.Generation)
		case now.Generation == c.Generation && st.Index() < old.Index():
			err = fmt.Errorf("%w: the server is at %d, this is at %d", ErrPassed, st.Index(), old.Index())
		}
	})
	if err != nil {
		return err
	}
	f.s.fsm.replace(st)
	f.wide.Store(true)
	f.mu.Lock()
	f.strayed, f.heard = false, time.Now()
	f.snapshots++
	f.serverAt = max(f.serverAt, st.Index())
	f.mu.Unlock()
	f.s.cfg.Logger.Info("the server's state was taken over", "server", in.from.id.Short(), "index", info.Index)
	return nil
}

// chunks reads a snapshot that comes in frames.
type chunks struct {
	in   *inbound
	left uint64
	part []byte
}

// Read implements io.Reader.
func (c *chunks) Read(b []byte) (int, error) {
	for len(c.part) == 0 {
		if c.left == 0 {
			return 0, io.EOF
		}
		kind, part, err := c.in.read()
		switch {
		case err != nil:
			return 0, err
		case kind != frameChunk || uint64(len(part)) > c.left:
			return 0, fmt.Errorf("%w: in a snapshot", errFrame)
		}
		c.part = part
		c.left -= uint64(len(part))
	}
	n := copy(b, c.part)
	c.part = c.part[n:]
	return n, nil
}
