// Package failpoint names the places at which a test can end the process, make a
// step fail or hold it up.
//
// Without the build tag `failpoints` it is nothing: Hit and Err are empty, are
// inlined, and leave neither code nor a name in the program (a test looks).
// With the tag, what happens at a failpoint is said by the environment
// (STELLAR_FAILPOINTS, see failctl.Parse) or, while the process runs, by a file that
// it shares with the test (STELLAR_FAILPOINTS_FILE, see package failctl). The file
// also counts how often each was reached; what was counted survives the process,
// whatever its end.
//
// A new failpoint is a constant and an entry in names.go, and one call: Hit where
// the step cannot fail, Err where it can. No name is used at two places. The crash
// suite in package integration then fails until it has a case for it.
package failpoint

// The environment of a program with failpoints.
const (
	// EnvArm arms failpoints from the start: "NAME=ACTION;NAME=ACTION".
	EnvArm = "STELLAR_FAILPOINTS"
	// EnvFile is the file that is shared with the test.
	EnvFile = "STELLAR_FAILPOINTS_FILE"
)
