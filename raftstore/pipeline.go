package raftstore

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// AppendEntriesPipeline implements raft.Transport.
func (t *transport) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	inner, err := t.NetworkTransport.AppendEntriesPipeline(id, target)
	if err != nil {
		t.contacts.failed(id, err)
		return nil, err
	}
	p := &pipeline{
		AppendPipeline: inner, t: t, id: id, out: make(chan raft.AppendFuture),
		broken: make(chan raft.AppendFuture, 1), stop: make(chan struct{}),
	}
	t.start(p.relay)
	return p, nil
}

// pipeline is the library's, whose answers are noted. It reports a broken connection
// as an answer that says no, not as an error: the library ends the pipeline on both,
// but on an error it reads, to log it, what a change of the peer's address writes.
type pipeline struct {
	raft.AppendPipeline
	t      *transport
	id     raft.ServerID
	out    chan raft.AppendFuture
	broken chan raft.AppendFuture // one is enough to end the pipeline
	stop   chan struct{}
	once   sync.Once
}

// AppendEntries implements raft.AppendPipeline.
func (p *pipeline) AppendEntries(req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	start := time.Now()
	err := p.t.maySend(req)
	if err == nil {
		var f raft.AppendFuture
		if f, err = p.AppendPipeline.AppendEntries(req, resp); err == nil {
			return f, nil
		}
	}
	f := &notAppended{start: start, req: req, err: err}
	select {
	case p.broken <- f:
	default:
	}
	return f, nil
}

// notAppended is the answer to what was not sent.
type notAppended struct {
	start time.Time
	req   *raft.AppendEntriesRequest
	resp  raft.AppendEntriesResponse
	err   error
}

// Error implements raft.Future.
func (f *notAppended) Error() error { return f.err }

// Start implements raft.AppendFuture.
func (f *notAppended) Start() time.Time { return f.start }

// Request implements raft.AppendFuture.
func (f *notAppended) Request() *raft.AppendEntriesRequest { return f.req }

// Response implements raft.AppendFuture.
func (f *notAppended) Response() *raft.AppendEntriesResponse { return &f.resp }

// Consumer implements raft.AppendPipeline.
func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.out }

// Close implements raft.AppendPipeline.
func (p *pipeline) Close() error {
	p.once.Do(func() { close(p.stop) })
	return p.AppendPipeline.Close()
}

// relay hands the answers on until the pipeline is closed.
func (p *pipeline) relay() {
	in := p.AppendPipeline.Consumer()
	for {
		var f raft.AppendFuture
		select {
		case f = <-in:
		case f = <-p.broken:
		case <-p.stop:
			return
		}
		p.t.record(p.id, f.Request(), f.Response(), 0, f.Start(), f.Error())
		select {
		case p.out <- f:
		case <-p.stop:
			return
		}
	}
}
