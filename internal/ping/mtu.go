package ping

import (
	"context"
	"net/netip"
	"time"
)

// MTUOptions of PathMTU.
type MTUOptions struct {
	Target   netip.Addr
	Expected int           // bytes of an IP packet that the links should carry
	Tries    int           // requests of each size
	Interval time.Duration // between two of them
	Wait     time.Duration // for the reply to each
}

// minMTU is what every link carries (RFC 791).
const minMTU = 68

// PathMTU returns the largest packet, up to o.Expected bytes, that gets to the target
// and back; 0: not even small ones do. The socket does not fragment (Open). When ctx
// ends, it returns what is known to pass by then.
func (s *Socket) PathMTU(ctx context.Context, o MTUOptions) (int, error) {
	return search(ctx, o.Expected, func(size int) (passes bool, told int, err error) {
		err = s.Run(ctx, Options{
			Target: o.Target, Count: o.Tries, Interval: o.Interval, Wait: o.Wait, Size: size - Overhead,
		}, func(r Result) error {
			passes, told = passes || r.OK(), max(told, r.MTU)
			return nil
		})
		return passes, told, err
	})
}

// search finds the largest size up to expected that passes: the expected one first,
// then what a router has told, then halves.
func search(ctx context.Context, expected int, try func(size int) (passes bool, told int, err error)) (int, error) {
	good, bad, claimed := 0, expected+1, 0
	for next := expected; bad-good > 1 && ctx.Err() == nil; {
		passes, told, err := try(next)
		if err != nil {
			return good, err
		}
		switch {
		case passes && next == claimed:
			return next, nil // and the router that said so refuses more
		case passes:
			good = next
		default:
			bad = next
		}
		switch {
		case told > good && told < bad:
			next, claimed = told, told
		case good == 0 && bad <= minMTU:
			return 0, nil
		case good == 0:
			next = minMTU
		default:
			next = (good + bad) / 2
		}
	}
	return good, nil
}
