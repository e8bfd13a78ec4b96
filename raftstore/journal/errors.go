package journal

import "errors"

var (
	// ErrCorrupt is returned when acknowledged data in the file is damaged. The
	// file is left as it is.
	ErrCorrupt = errors.New("journal is corrupt")
	// ErrForeign is returned when the journal belongs to another node or cluster.
	ErrForeign = errors.New("journal belongs to another node or cluster")
	// ErrVersion is returned when a newer version of Stellar wrote the journal.
	ErrVersion = errors.New("journal format is newer than this version")
	// ErrFailed is returned when a write or an fsync has failed, by that Append
	// and by all later ones until Compact has succeeded. The records of the first
	// may or may not be found by the next Open.
	ErrFailed = errors.New("journal cannot be written")
	// ErrInvalid is returned when a record cannot be written down.
	ErrInvalid = errors.New("invalid journal record")
	// ErrClosed is returned after Close. Nothing was written.
	ErrClosed = errors.New("journal is closed")
)
