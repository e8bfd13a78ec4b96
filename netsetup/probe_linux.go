package netsetup

import (
	"github.com/google/nftables"

	"stellar.io/stellar/internal/nsx"
	"stellar.io/stellar/ipam"
)

// ProbeBridgeFilter tries whether the kernel takes the rules without which no endpoint
// comes up in bridge mode, those of nftables' bridge family. It does so in a network
// namespace of its own, which is gone when it returns; nothing else is touched. Refused
// is the kernel's answer, nil where it takes them; err says that it could not be asked.
func ProbeBridgeFilter() (refused, err error) {
	return probe(nftables.TableFamilyBridge)
}

func probe(family nftables.TableFamily) (refused, err error) {
	ns, err := nsx.New()
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	c, err := nftables.New(nftables.WithNetNSFd(int(ns.Fd())))
	if err != nil {
		return nil, err
	}
	r := rules{guard: newGuard(int(ns.Fd()), Config{Mode: ipam.ModeBridge, Bridge: DefaultBridge}, false), c: c}
	r.t = c.AddTable(&nftables.Table{Name: filterTable, Family: family})
	if err := r.bridgeTable(nil); err != nil {
		return nil, err
	}
	return c.Flush(), nil
}
