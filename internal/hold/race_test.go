//go:build race

package hold

// raceEnabled: times are not those of the program as it is shipped.
const raceEnabled = true
