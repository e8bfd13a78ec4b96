package peer

import (
	"io"
	"net"
	"testing"
	"testing/synctest"
)

// TestTurns: with one turn, a second handshake goes on only when the first waits for its
// other side or is over; and one that waits holds nobody up.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := make(turns, 1)
		type side struct {
			*turn
			other net.Conn
			read  bool
		}
		open := func() *side {
			a, b := net.Pipe()
			t.Cleanup(func() { a.Close(); b.Close() })
			return &side{turn: &turn{Conn: a, turns: all}, other: b}
		}
		hear := func(s *side) {
			s.read = false
			go func() {
				if _, err := io.ReadFull(s.turn, make([]byte, 1)); err == nil {
					s.read = true
				}
			}()
		}
		say := func(s *side) {
			go s.other.Write([]byte{1})
			synctest.Wait()
		}
		want := func(when string, s *side, read bool) {
			t.Helper()
			if s.read != read {
				t.Fatalf("%s: read: %t, want %t", when, s.read, read)
			}
		}
		silent, first, second := open(), open(), open()
		hear(silent)
		hear(first)
		hear(second)
		say(first)
		want("while others say nothing", first, true)
		say(second)
		want("while the first computes", second, false)
		hear(first)
		synctest.Wait()
		want("when the first waits", second, true)
		want("which has nothing to read", first, false)
		say(first)
		want("while the second computes", first, false)
		second.end()
		synctest.Wait()
		want("when the second is over", first, true)
		hear(second)
		say(second)
		want("after its handshake", second, true)
		first.end()
		say(silent)
		want("that was silent", silent, true)
	})
}
