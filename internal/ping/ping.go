package ping

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"time"
)

// Options of Run. Target is an IPv4 address.
type Options struct {
	Target   netip.Addr
	Count    int           // requests; 0: until ctx ends
	Interval time.Duration // between two requests
	Wait     time.Duration // for the reply to each
	Size     int           // payload of a request, in bytes
}

// Result is what came of one request.
type Result struct {
	Seq   int        // from 1
	From  netip.Addr // who answered; zero: nobody
	Bytes int        // of the answer, ICMP's header included
	TTL   int
	RTT   time.Duration
	// Problem says why there is no reply: what a router or the kernel said, or that
	// nothing came in time. Empty: it is the reply.
	Problem string
	// MTU is what a router said of a link that was too small; 0: nothing.
	MTU int
}

// OK reports whether the reply came.
func (r Result) OK() bool { return r.Problem == "" }

// NoAnswer is the problem of a request that nothing came back for.
const NoAnswer = "no answer"

// nap bounds how long the end of ctx goes unnoticed.
const nap = 100 * time.Millisecond

// Run sends requests and calls each with what came of every one, in the order in
// which that was known. It returns nil when all are accounted for or ctx has ended;
// a request whose time was not over then is not told of. The error of each ends it.
func (s *Socket) Run(ctx context.Context, o Options, each func(Result) error) error {
	r := run{socket: s, options: o, waiting: map[uint16]request{}}
	next := time.Now()
	for ctx.Err() == nil {
		now := time.Now()
		more := o.Count == 0 || r.sent < o.Count
		if more && !now.Before(next) {
			if err := r.send(now, each); err != nil {
				return err
			}
			next = next.Add(o.Interval)
			if next.Before(now) { // the clock's owner was asleep
				next = now.Add(o.Interval)
			}
			continue
		}
		if err := r.expire(now, each); err != nil {
			return err
		}
		if !more && len(r.waiting) == 0 {
			return nil
		}
		deadline := now.Add(nap)
		if more && next.Before(deadline) {
			deadline = next
		}
		if err := r.receive(deadline, each); err != nil {
			return err
		}
	}
	return nil
}

// run is one Run at work.
type run struct {
	socket  *Socket
	options Options
	sent    int
	waiting map[uint16]request // requests without an answer, by their number on the wire
}

type request struct {
	seq int
	at  time.Time
}

func (r *run) send(now time.Time, each func(Result) error) error {
	r.sent++
	wire := uint16(r.sent)
	if err := r.socket.send(r.options.Target, wire, r.options.Size); err != nil {
		return each(Result{Seq: r.sent, Problem: sendProblem(err)})
	}
	r.waiting[wire] = request{r.sent, now}
	return nil
}

// expire tells of the requests whose time is over, the oldest first.
func (r *run) expire(now time.Time, each func(Result) error) error {
	for {
		oldest, found := uint16(0), false
		for wire, q := range r.waiting {
			if now.Sub(q.at) >= r.options.Wait && (!found || q.seq < r.waiting[oldest].seq) {
				oldest, found = wire, true
			}
		}
		if !found {
			return nil
		}
		seq := r.waiting[oldest].seq
		delete(r.waiting, oldest)
		if err := each(Result{Seq: seq, Problem: NoAnswer}); err != nil {
			return err
		}
	}
}

func (r *run) receive(deadline time.Time, each func(Result) error) error {
	for _, q := range r.waiting {
		if end := q.at.Add(r.options.Wait); end.Before(deadline) {
			deadline = end
		}
	}
	a, at, err := r.socket.receive(r.options.Target, deadline)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	if err != nil {
		return err
	}
	q, ok := r.waiting[a.seq]
	if !ok {
		return nil // a second answer, or one that came too late
	}
	delete(r.waiting, a.seq)
	return each(Result{Seq: q.seq, From: a.from, Bytes: a.bytes, TTL: a.ttl, RTT: at.Sub(q.at), Problem: a.problem, MTU: a.mtu})
}
