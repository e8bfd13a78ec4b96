package netsetup

import (
	"testing"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"stellar.io/stellar/internal/testx"
)

// TestProbeBridgeFilter: this kernel takes the rules, those of a family that it lacks
// are refused, and the host that asks has the same rules as before.
func TestProbeBridgeFilter(t *testing.T) {
	host := testx.NewNetNS(t)
	host.Run(t, "nft", "add", "table", "bridge", "theirs")
	before := host.Run(t, "nft", "list", "ruleset")
	if err := host.Do(func() error {
		if refused, err := ProbeBridgeFilter(); refused != nil || err != nil {
			t.Errorf("refused: %v, error: %v", refused, err)
		}
		if refused, err := probe(nftables.TableFamily(unix.NFPROTO_DECNET)); refused == nil || err != nil {
			t.Errorf("a family that no kernel has any more: refused: %v, error: %v", refused, err)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if after := host.Run(t, "nft", "list", "ruleset"); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}
