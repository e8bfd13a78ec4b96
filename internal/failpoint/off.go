//go:build !failpoints

package failpoint

// Enabled says whether this program has failpoints.
const Enabled = false

// Hit is a failpoint in a step that cannot fail.
func Hit(Name) {}

// Err is a failpoint in a step that can fail.
func Err(Name) error { return nil }
