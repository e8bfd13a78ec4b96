package agent

import (
	"sync"
	"testing"
	"time"
)

func TestEventLog(t *testing.T) {
	t.Parallel()
	l := newEventLog()
	if list, next, _ := l.since(0); len(list) != 0 || next != 0 {
		t.Errorf("an empty log has %d events, next %d", len(list), next)
	}
	_, next, more := l.since(7)
	select {
	case <-more:
		t.Error("more before anything was added")
	default:
	}
	if next != 0 {
		t.Errorf("next %d", next)
	}
	for range historySize + 10 {
		l.add(Event{Type: "x"})
	}
	select {
	case <-more:
	default:
		t.Error("who waits was not woken")
	}
	list, next, _ := l.since(0)
	if len(list) != historySize || list[0].Seq != 10 || list[len(list)-1].Seq != next-1 || next != historySize+10 {
		t.Errorf("%d events from %d, next %d", len(list), list[0].Seq, next)
	}
	for i, e := range list[1:] {
		if e.Seq != list[i].Seq+1 {
			t.Fatalf("event %d comes after %d", e.Seq, list[i].Seq)
		}
	}
	if list, _, _ := l.since(next - 3); len(list) != 3 {
		t.Errorf("%d events, want the last 3", len(list))
	}
	if list, again, _ := l.since(next + 100); len(list) != 0 || again != next {
		t.Errorf("from the future: %d events, next %d", len(list), again)
	}
}

func TestEventLogReadersMissNothing(t *testing.T) {
	t.Parallel()
	const n = 500 // fits the history: nobody may miss one
	l := newEventLog()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			var next uint64
			for got := 0; got < n; {
				list, to, more := l.since(next)
				for i, e := range list {
					if e.Seq != next+uint64(i) {
						t.Errorf("got %d, want %d", e.Seq, next+uint64(i))
						return
					}
				}
				if got, next = got+len(list), to; got < n {
					select {
					case <-more:
					case <-time.After(10 * time.Second):
						t.Errorf("not woken after %d events", got)
						return
					}
				}
			}
		})
	}
	for i := range n {
		l.add(Event{Message: "x"})
		if i%50 == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	wg.Wait()
}
