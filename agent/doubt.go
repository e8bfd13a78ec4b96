package agent

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"stellar.io/stellar/events"
	"stellar.io/stellar/internal/atomicfile"
)

// doubt says whether the absence of a record may be that of all records: a
// containerd that has lost its data directory knows nobody, and is not believed
// at once, nor is one that has not sent a listing since it was connected to. The
// zero doubt is none.
type doubt struct {
	server string    // the newest listing's, or the one kept
	kept   string    // the one that a next agent will know
	loaded bool      // kept is what an earlier agent has kept
	other  time.Time // when it was another one than before
	empty  bool      // the newest listing has no container
	// unheard: containerd is another one, perhaps, than the one that sent the newest listing.
	unheard bool
}

// remember takes in the server that an earlier agent has kept, "" for none. A listing
// may have come already.
func (d *doubt) remember(id string, now time.Time) {
	d.kept, d.loaded = id, true
	switch {
	case id == "":
	case d.server == "":
		d.server = id
	case d.server != id:
		d.other = now
	}
}

func (d *doubt) hear(l events.Listing, now time.Time) {
	if d.server != "" && l.ServerID != d.server {
		d.other = now
	}
	d.server, d.empty, d.unheard = l.ServerID, len(l.Containers) == 0, false
}

// keep returns the server that a next agent should know, once that one is not in
// doubt any more: an agent that starts meanwhile has the same doubt.
func (d *doubt) keep(now time.Time) (id string, due bool) {
	if !d.loaded || d.server == d.kept || !d.other.IsZero() && now.Sub(d.other) < doubtPause {
		return "", false
	}
	d.kept = d.server
	return d.server, true
}

// pause is how long a record must be absent before that proves something.
func (d *doubt) pause(now time.Time) time.Duration {
	if d.empty || d.unheard || !d.other.IsZero() && now.Sub(d.other) < doubtPause {
		return doubtPause
	}
	return absentPause
}

// serverFile is the name of the file that knows the containerd of before.
const serverFile = "containerd"

// loadServer returns the containerd that an earlier agent has listened to, "" for
// none.
func (s *requests) loadServer() (string, error) {
	if s.dir == "" {
		return "", nil
	}
	data, err := os.ReadFile(filepath.Join(s.dir, serverFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(data), err
}

// keepServer lets a next agent know the containerd that is listened to. It does not
// block; without it that agent only has less doubt.
func (s *requests) keepServer(id string, failed func(error)) {
	if s.dir == "" {
		return
	}
	go func() {
		if err := atomicfile.Write(filepath.Join(s.dir, serverFile), []byte(id), 0o600); err != nil {
			failed(err)
		}
	}()
}
