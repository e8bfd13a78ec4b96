package web

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"stellar.io/stellar/api"
)

const (
	// maxStreams bounds how many pages may follow events at once.
	maxStreams = 32
	// maxHistory is how many remembered events a page gets at first, and how many
	// may wait for a slow one; older ones are counted and left out.
	maxHistory = 500
	// gather is for how long events are collected before a page is told: a flood
	// costs one write per moment, not one per event.
	gather = 200 * time.Millisecond
	// heartbeat tells a page that the agent is still there, and what time it is.
	heartbeat = 10 * time.Second
)

// mailbox collects events for one page.
type mailbox struct {
	mu     sync.Mutex // guards what follows
	list   []api.Event
	missed int
	filled chan struct{} // has an element while there is something
}

func (m *mailbox) put(e api.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.list) == maxHistory {
		m.list = append(m.list[:0], m.list[1:]...)
		m.missed++
	}
	m.list = append(m.list, e)
	select {
	case m.filled <- struct{}{}:
	default:
	}
}

func (m *mailbox) take() (list []api.Event, missed int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	list, missed = m.list, m.missed
	m.list, m.missed = nil, 0
	return list, missed
}

// events streams what happens as server-sent events until the page goes or run ends:
// "events" with {items, missed}, "clock" with {now}, "problem" with an error after
// which the page should come again. ?since=TIME leaves out what is older.
func (s *Server) events(run context.Context, w http.ResponseWriter, r *http.Request) {
	select {
	case s.streams <- struct{}{}:
		defer func() { <-s.streams }()
	default:
		refuse(w, http.StatusServiceUnavailable, api.Errorf(api.CodeExhausted, "%d pages are open already", maxStreams).WithHint("close one"))
		return
	}
	var since time.Time
	if v := r.URL.Query().Get("since"); v != "" {
		t, err := time.Parse(time.RFC3339Nano, v)
		if err != nil {
			answer(w, r, nil, api.Errorf(api.CodeInvalid, "since %.40q is not a time", v))
			return
		}
		since = t
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(run, cancel)()

	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	out := stream{w: w, control: http.NewResponseController(w)}
	// The server's limit for reading a request is not one for what lasts.
	_ = out.control.SetReadDeadline(time.Time{})
	if out.send("clock", clock{time.Now().UTC()}) != nil {
		return
	}
	box := &mailbox{filled: make(chan struct{}, 1)}
	ended := make(chan error, 1)
	go func() {
		ended <- s.src.Events(ctx, api.EventQuery{Follow: true, Since: since, Tail: maxHistory}, func(e api.Event) error {
			box.put(e)
			return ctx.Err()
		})
	}()
	err := out.relay(ctx, box, ended)
	cancel()
	if err == nil {
		err = <-ended
	}
	if err != nil && r.Context().Err() == nil && run.Err() == nil {
		_ = out.send("problem", problemOf(err)) // whoever is there to read it
	}
}

// clock is the time by which ages are counted: the browser's clock may differ.
type clock struct {
	Now time.Time `json:"now"`
}

// stream writes server-sent events.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

// relay writes what comes until ctx ends, the page goes or the source has ended with
// an error, which it returns.
func (o stream) relay(ctx context.Context, box *mailbox, ended chan error) error {
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-ended:
			ended <- nil // it is waited for once more
			return err
		case <-beat.C:
			if o.send("clock", clock{time.Now().UTC()}) != nil {
				return nil
			}
		case <-box.filled:
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(gather):
			}
			if o.deliver(box) != nil {
				return nil
			}
		}
	}
}

// deliver writes what the box has.
func (o stream) deliver(box *mailbox) error {
	list, missed := box.take()
	if len(list) == 0 {
		return nil // it was delivered with the last
	}
	return o.send("events", struct {
		Items  []api.Event `json:"items"`
		Missed int         `json:"missed"`
	}{list, missed})
}

// writeTimeout ends a stream whose reader does not read.
const writeTimeout = 30 * time.Second

func (o stream) send(event string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", event, err)
	}
	var b bytes.Buffer
	b.WriteString("event: " + event + "\ndata: ")
	b.Write(data) // JSON has no line breaks
	b.WriteString("\n\n")
	_ = o.control.SetWriteDeadline(time.Now().Add(writeTimeout)) // without it the page would only be slower
	if _, err := b.WriteTo(o.w); err != nil {
		return err
	}
	return o.control.Flush()
}
