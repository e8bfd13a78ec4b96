package netsetup

import "errors"

// moment is a point in the kernel's history of nftables rules.
type moment struct {
	generation uint32 // raised by each transaction of anybody
	commits    uint32 // how many of these were the guard's, on elements alone
}

// readBackTries bounds how often rules are written anew because somebody else
// changed some in the same moment.
const readBackTries = 5

var errBusyRules = errors.New("another program changes nftables rules all the time (nft monitor shows which)")

// readBack runs write, one transaction, and read, which learns what it has led to:
// rules are recognised by handles that the kernel gives. If somebody else changed
// rules before they were read, both are done again: what that one left must not be
// taken for what was written. It returns the moment that was read.
func readBack(now func() (moment, error), write, read func() error) (moment, error) {
	for range readBackTries {
		before, err := now()
		if err != nil {
			return moment{}, err
		}
		if err := write(); err != nil {
			return moment{}, err
		}
		if err := read(); err != nil {
			return moment{}, err
		}
		after, err := now()
		if err != nil {
			return moment{}, err
		}
		if after.generation-before.generation == 1+after.commits-before.commits {
			return after, nil
		}
	}
	return moment{}, errBusyRules
}
