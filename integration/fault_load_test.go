package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"stellar.io/stellar/api"
	"stellar.io/stellar/internal/testx"
)

const (
	faultClients = 8
	callTimeout  = 5 * time.Second
	// A client holds this many addresses at most, and rests between calls.
	maxHeld = 3
	maxRest = 60 * time.Millisecond
)

func mustAddr(s string) netip.Addr { return netip.MustParseAddr(s) }

// load has clients attach and detach on random nodes until the test ends it.
func (b *faultBed) load() {
	ctx, cancel := context.WithCancel(b.t.Context())
	var wg sync.WaitGroup
	for i := range faultClients {
		wg.Go(func() { b.client(ctx, i, rand.New(rand.NewPCG(b.seed, uint64(1000+i)))) })
	}
	b.stopLoad = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
	})
	b.t.Cleanup(b.stopLoad)
}

// client is one client: an owner is new for each address, but a call without an
// answer is repeated or taken back under the same name.
func (b *faultBed) client(ctx context.Context, id int, rng *rand.Rand) {
	var held []*holding
	defer func() {
		for _, h := range held {
			b.held.Store(h.owner, h)
		}
	}()
	for made := 0; ctx.Err() == nil; {
		var err error
		if len(held) < maxHeld && rng.IntN(100) < 55 {
			made++
			h := &holding{on: b.nodes[rng.IntN(len(b.nodes))], owner: fmt.Sprintf("load-%d-%d", id, made)}
			if rng.IntN(100) < 40 {
				select {
				case h.pod = <-b.pods[h.on]:
				default: // all are in use: an address alone
				}
			}
			held = append(held, h)
			err = b.add(id, h)
		} else if len(held) > 0 {
			i := rng.IntN(len(held))
			h := held[i]
			if !h.resolved && rng.IntN(2) == 0 {
				err = b.add(id, h)
			} else if err = b.del(id, h); err == nil {
				held = append(held[:i], held[i+1:]...)
			}
		}
		rest := maxRest
		if err != nil {
			rest *= 5 // its node is down
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(rng.Int64N(int64(rest)))):
		}
	}
}

func (h *holding) attachment() api.Attachment {
	a := api.Attachment{Network: "load", ContainerID: h.owner, Ifname: "eth0", IPAMOnly: h.pod == nil}
	if h.pod != nil {
		a.NetNS = h.pod.Path
	}
	return a
}

// add asks for the holding's address and notes the call in the history.
func (b *faultBed) add(client int, h *holding) error {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	o := operation{client: client, node: h.on.name, owner: h.owner, kind: opAdd, call: b.hist.now()}
	r, err := b.api[h.on].AddAttachment(ctx, api.AttachmentSpec{Attachment: h.attachment()})
	if o.ret = b.hist.now(); err == nil {
		o.acked, o.addr = true, r.Address.Addr().String()
		h.addr = o.addr
	}
	h.resolved = err == nil
	b.hist.record(o)
	return err
}

// del gives the holding back and notes the call.
func (b *faultBed) del(client int, h *holding) error {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	o := operation{client: client, node: h.on.name, owner: h.owner, kind: opDel, call: b.hist.now()}
	_, err := b.api[h.on].DelAttachment(ctx, h.attachment())
	o.ret, o.acked = b.hist.now(), err == nil
	h.resolved = err == nil
	b.hist.record(o)
	if err == nil {
		b.free(h.on, h.pod)
	}
	return err
}

func (b *faultBed) free(n *node, pod *testx.NetNS) {
	if pod != nil {
		b.pods[n] <- pod
	}
}
