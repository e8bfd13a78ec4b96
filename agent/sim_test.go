package agent

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"stellar.io/stellar/events"
	"stellar.io/stellar/ipam"
)

// TestSimulation lets users, containerd and the kernel do what they like while
// hints are lost, doubled and late and calls fail, and checks the promises: some
// at every step (in the fakes), the others once a listing has put all right.
// STELLAR_SEED runs one seed, with its log.
func TestSimulation(t *testing.T) {
	if s := os.Getenv("STELLAR_SEED"); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		simulate(t, seed)
		return
	}
	for seed := range uint64(60) {
		if simulate(t, seed); t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

type simulation struct {
	*bed
	rng     *rand.Rand // of the test's goroutine
	orphans []*fakeProc
	crowded *fakeNS
}

func simulate(t *testing.T, seed uint64) {
	synctest.Test(t, func(t *testing.T) {
		s := &simulation{bed: newBed(t, "172.16.0.0/26"), rng: rand.New(rand.NewPCG(seed, 1))}
		s.k.sparePIDs = 8
		s.crowded = s.k.newNS()
		s.crowded.foreign["eth0"], s.crowded.gateway = true, true
		s.c.create(events.Key{Namespace: "other", ID: "witness"}, nil) // no listing is empty
		s.disturb(rand.New(rand.NewPCG(seed, 2)))
		s.k.lost = func(o ipam.Owner) {
			time.Sleep(time.Duration(o.Created%7) * time.Millisecond)
			s.c.mu.Lock()
			a, up := s.c.sink.(*Agent)
			s.c.mu.Unlock()
			if up {
				a.Lost(o, "its link has disappeared")
			}
		}
		s.start()
		s.list()
		for range 300 {
			s.step()
			s.wait(time.Duration(s.rng.IntN(30)) * time.Millisecond)
		}
		s.calm()
		for range 6 {
			s.list()
			s.wait(30 * time.Second)
		}
		s.check()
		s.k.mu.Lock()
		s.k.lost = nil
		s.k.mu.Unlock()
		s.halt()
		s.verify()
		s.c.mu.Lock()
		defer s.c.mu.Unlock()
	})
}

// disturb makes calls fail and hints get lost, doubled and late.
func (s *simulation) disturb(rng *rand.Rand) {
	luck := func(percent int) bool { return rng.IntN(100) < percent }
	errLuck := errors.New("out of luck")
	fail := func(string) error { // called with the fakes' locks free: they are few, so one lock serves all
		s.c.mu.Lock()
		defer s.c.mu.Unlock()
		if luck(3) {
			return errLuck
		}
		return nil
	}
	s.k.fail, s.l.fail = fail, fail
	s.c.fail = func(events.Key) error {
		switch {
		case luck(4):
			return events.ErrNotConnected
		case luck(1):
			return events.ErrNotFound
		}
		return nil
	}
	s.c.filter = func(h events.Hint) int {
		switch {
		case luck(25):
			return 0
		case luck(20):
			return 2
		case luck(20):
			wait := time.Duration(rng.IntN(40)) * time.Millisecond
			go func() {
				time.Sleep(wait)
				s.c.mu.Lock()
				sink := s.c.sink
				s.c.mu.Unlock()
				if sink != nil {
					sink.Hint(h)
				}
			}()
			return 0
		}
		return 1
	}
}

func (s *simulation) calm() {
	s.c.mu.Lock()
	s.c.fail, s.c.filter = nil, nil
	s.c.mu.Unlock()
	s.k.mu.Lock()
	s.k.fail = nil
	s.k.mu.Unlock()
	s.l.mu.Lock()
	s.l.fail = nil
	s.l.mu.Unlock()
}

func (s *simulation) labels() map[string]string {
	switch s.rng.IntN(10) {
	case 0, 1:
		return nil
	case 2:
		return with(labelMTU, "bad")
	case 3:
		return with(labelIP, fmt.Sprintf("172.16.0.%d", 40+s.rng.IntN(3)))
	case 4:
		return with(labelIfname, "net1")
	}
	return networked
}

// step does one thing to one container.
func (s *simulation) step() {
	k := events.Key{Namespace: []string{"default", "other"}[s.rng.IntN(2)], ID: fmt.Sprint("c", s.rng.IntN(6))}
	s.c.mu.Lock()
	x := s.c.all[k]
	s.c.mu.Unlock()
	n := s.rng.IntN(100)
	switch {
	case n < 2:
		s.halt()
		s.start()
		s.list()
	case n < 6:
		s.list()
	case n < 10 && len(s.orphans) > 0:
		i := s.rng.IntN(len(s.orphans))
		s.k.kill(s.orphans[i])
		s.orphans = append(s.orphans[:i], s.orphans[i+1:]...)
	case x == nil:
		s.create(k)
	case n < 20:
		s.c.update(x, s.labels())
	case x.Task == nil && n < 75:
		s.c.task(x)
	case x.Task == nil:
		s.c.remove(x)
	case x.Task.Status == events.TaskCreated && n < 80:
		s.c.run(x)
	case n < 84: // the record goes first
		s.orphans = append(s.orphans, x.proc)
		s.c.remove(x)
	case n < 88:
		s.k.kill(x.proc) // containerd sees it later, or never
	default:
		s.c.exit(x)
	}
}

func (s *simulation) create(k events.Key) {
	var opts []func(*fakeContainer)
	labels := s.labels()
	switch s.rng.IntN(6) {
	case 0:
		opts = append(opts, joining(s.crowded))
	case 1:
		s.c.mu.Lock()
		for _, other := range s.c.all {
			if other.proc != nil && other.ns == nil {
				s.k.mu.Lock()
				lives := s.k.procs[other.proc.pid] == other.proc
				if lives {
					other.proc.ns.fds++ // a pin: the path leads to it for good
					opts = append(opts, joining(other.proc.ns))
				}
				s.k.mu.Unlock()
				if lives {
					break
				}
			}
		}
		s.c.mu.Unlock()
	default:
		opts = append(opts, func(x *fakeContainer) { x.stable = labels[labelNetwork] == "true" && labels[labelMTU] == "" })
	}
	s.c.create(k, labels, opts...)
}

// check holds the world against the promises.
func (s *simulation) check() {
	shown := map[events.Key]Endpoint{}
	for _, e := range s.a.Endpoints() {
		shown[e.Key] = e
	}
	leases := s.l.All()
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	serving := map[*fakeNS][]*fakeLink{}
	for _, l := range s.k.links {
		serving[l.ns] = append(serving[l.ns], l)
		if a, ok := s.k.held(l.Owner); !ok || a != l.Addr {
			s.Errorf("link of %s has %s, its lease %s", l.Owner, l.Addr, a)
		}
		if l.ns.procs == 0 {
			s.Errorf("link of %s in a namespace without processes", l.Owner)
		}
	}
	taken := map[string]bool{}
	for _, h := range leases {
		taken[h.Addr.String()] = true
		x, l := s.c.all[keyOf(h.Owner)], s.k.links[h.Owner]
		switch {
		case x != nil && x.Created.UnixNano() == h.Owner.Created && x.Labels != nil:
		case l == nil:
			s.Errorf("lease of %s, which is no networked container", h.Owner)
		}
	}
	for key, x := range s.c.all {
		e := shown[key]
		who := ipam.Owner{Kind: ipam.OwnerContainer, Namespace: key.Namespace, ID: key.ID, Created: x.Created.UnixNano()}
		if given := s.l.given[who]; x.stable && len(given) > 1 {
			s.Errorf("%s had addresses %v", key, given)
		}
		live := x.proc != nil && s.k.procs[x.proc.pid] == x.proc
		var links []*fakeLink
		if live {
			links = serving[x.proc.ns]
		}
		if len(links) > 1 {
			s.Errorf("%s has %d links", key, len(links))
		}
		switch {
		case x.Labels == nil:
			if len(links) > 0 && keyOf(links[0].Owner) == key && links[0].Owner.Created == who.Created {
				s.Errorf("%s has a link and asks for none", key)
			}
			if e.State != "" {
				s.Errorf("%s is shown as %s", key, e.State)
			}
		case x.Labels[labelMTU] != "":
			if e.State != StateRejected && e.State != StateAttached {
				s.Errorf("%s is %q (%s)", key, e.State, e.Reason)
			}
		case e.State == StateRejected && taken[x.Labels[labelIP]]:
		case !live:
			// (A guest's exit that containerd does not see is not seen here either.)
			if e.State != StateBound && e.State != StatePending && !(e.State == StateShared && x.Task != nil) && !(e.State == StateAttached && s.k.links[e.Owner] != nil) {
				s.Errorf("%s without a task is %q (%s)", key, e.State, e.Reason)
			}
		case e.State != StateAttached && e.State != StateShared || len(links) != 1:
			s.Errorf("%s is %q (%s) with %d links", key, e.State, e.Reason, len(links))
		case links[0].Addr != e.Address || e.State == StateAttached && links[0].Owner != e.Owner:
			s.Errorf("%s is shown with %s as %s, it has %s as %s", key, e.Address, e.Owner, links[0].Addr, links[0].Owner)
		}
	}
}
