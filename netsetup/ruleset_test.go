package netsetup

import (
	"context"
	"testing"

	"github.com/google/nftables"
)

// TestDeletedMeanwhile: what somebody deletes in the moment in which it is written is
// missed at the next look, not taken for what was written.
func TestDeletedMeanwhile(t *testing.T) {
	t.Parallel()
	inModes(t, func(t *testing.T, mode func(*Config)) {
		t.Parallel()
		b := newBed(t, mode).ensure()
		one := b.attach("172.16.0.2")
		c, err := nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(b.n.guard.nsfd))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.CloseLasting() })
		guard := &nftables.Table{Name: filterTable, Family: b.n.guard.setFamily()}
		for _, tt := range []struct {
			name      string
			table     *nftables.Table
			meanwhile func()
			sync      func(context.Context) error
			right     func() error
		}{
			{"guard", guard, func() { c.DelTable(guard) }, b.n.syncGuard, func() error { return b.onlyElement(one.ep) }},
			{"filter", b.n.filter.table(), func() { c.FlushChain(&nftables.Chain{Name: chainWayOut, Table: b.n.filter.table()}) }, b.n.syncFilter,
				func() error { return b.hostSays("masquerade", "nft", "list", "table", "inet", filterTable) }},
		} {
			for round := range 15 {
				c.DelTable(tt.table)
				if err := c.Flush(); err != nil {
					t.Fatalf("%s, round %d: %v", tt.name, round, err)
				}
				done := make(chan struct{})
				go func() {
					defer close(done)
					for tt.meanwhile(); c.Flush() != nil; tt.meanwhile() { // until there is something
					}
				}()
				err := tt.sync(t.Context()) // it may say that somebody interferes
				<-done
				if again := tt.sync(t.Context()); again != nil {
					t.Fatalf("%s, round %d: %v, then %v", tt.name, round, err, again)
				}
				if err := tt.right(); err != nil {
					t.Fatalf("%s, round %d: %v", tt.name, round, err)
				}
			}
		}
	})
}
