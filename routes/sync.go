package routes

import "context"

// Op is what a Change does.
type Op string

const (
	Add Op = "add"
	// Replace changes a route in one step: the old one is in use until the new one is.
	Replace Op = "replace"
	Delete  Op = "delete"
)

// Change is one change of the kernel's table.
type Change struct {
	Op Op
	Route
}

type ask struct {
	dryRun bool
	reply  chan answer // capacity 1
}

type answer struct {
	changes []Change
	err     error
}

func answerOf(changes []Change, err error) answer { return answer{changes, err} }

// Sync looks at everything anew and returns the changes that it made or, with
// dryRun, would make, in order. A non-nil error says which of them failed; they
// will be tried again. Sync needs a Manager that runs, and waits for it until
// ctx ends.
func (m *Manager) Sync(ctx context.Context, dryRun bool) ([]Change, error) {
	a := ask{dryRun, make(chan answer, 1)}
	select {
	case m.asks <- a:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case got := <-a.reply:
		return got.changes, got.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
