package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"stellar.io/stellar/api"
	"stellar.io/stellar/internal/failpoint"
	"stellar.io/stellar/internal/pki"
	"stellar.io/stellar/ipam"
)

const (
	// caKeyEvery is how often a server that votes looks whether it lacks the CA's key.
	caKeyEvery = time.Second
	// caKeyTimeout bounds one question for it.
	caKeyTimeout = 2 * time.Second
	// caKeyPatience is how long a removal waits for another voter to have it.
	caKeyPatience = 5 * time.Second
)

// keepCAKey fetches the CA's key once this node votes: it is handed over with
// promotion, so that whoever leads can sign.
func (n *Node) keepCAKey(ctx context.Context, p *parts) error {
	tick := time.NewTicker(caKeyEvery)
	defer tick.Stop()
	for {
		if _, err := p.tls.CA(); err == nil {
			return nil
		}
		if p.votes(n.id.ID) {
			if _, err := n.caKey(ctx, p); err != nil {
				n.log.Debug("the CA's key was not handed over yet", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (p *parts) votes(id ipam.NodeID) bool {
	for _, other := range p.store.Peers() {
		if other.ID == id {
			return other.Voter
		}
	}
	return false
}

// caKey returns the CA with its key; a voter that has none yet asks the other voters
// for it: who leads now may lack it as well.
func (n *Node) caKey(ctx context.Context, p *parts) (*pki.CA, error) {
	ca, err := p.tls.CA()
	if err == nil || p.port == nil {
		return ca, err
	}
	err = errors.New("no other node votes")
	for _, other := range p.store.Peers() {
		if other.ID == n.id.ID || !other.Voter {
			continue
		}
		var key []byte
		if key, err = p.askCAKey(ctx, other.ID, other.Address); err != nil {
			continue
		}
		if ca, err = pki.LoadCA(pki.EncodeCerts(p.tls.Roots()[0]), key); err == nil {
			if err := failpoint.Err(failpoint.CAKeyReceived); err != nil {
				return nil, err
			}
			return ca, p.tls.SaveCA(ca)
		}
	}
	return nil, fmt.Errorf("this node does not hold the CA's key, and got it from no other: %w", err)
}

func (p *parts) askCAKey(ctx context.Context, id ipam.NodeID, address string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, caKeyTimeout)
	defer cancel()
	return p.client(id, address).CAKey(ctx)
}

// keepsCAKey waits until a voter other than the one that is to go holds the CA's key,
// and refuses the removal when none does: nobody could ever join again. A node
// that does not vote is not told.
func (n *Node) keepsCAKey(ctx context.Context, p *parts, going ipam.NodeID) error {
	if p.port == nil || !p.votes(n.id.ID) || !p.votes(going) {
		return nil
	}
	if going != n.id.ID {
		_, err := n.caKey(ctx, p) // takes it from the other, if need be
		return lastKey(err)
	}
	ctx, cancel := context.WithTimeout(ctx, caKeyPatience)
	defer cancel()
	for {
		err := errors.New("no other node votes")
		for _, other := range p.store.Peers() {
			if other.ID == going || !other.Voter {
				continue
			}
			if _, err = p.askCAKey(ctx, other.ID, other.Address); err == nil {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return lastKey(err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func lastKey(err error) error {
	if err == nil {
		return nil
	}
	return api.Errorf(api.CodeConflict, "no other voter holds the CA's key yet, and without it nobody could join any more: %w", err).WithHint("try again")
}
