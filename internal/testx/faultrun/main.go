// Command faultrun runs the fault suite, the tests TestFault… of all packages, and
// prints what they measured as one table.
//
//	faultrun                every test once: `make test-faults`
//	faultrun -shard 1/16    a part of the long figures: `make test-faults-long SHARD=1/16`
//
// The long run is made of units, each a test with a seed or in its long form. A
// finished unit is noted under .cache/faults for the commit it ran on and not run
// again; a shard begins no unit that may outlast its hour and says what is left.
package main

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"stellar.io/stellar/internal/testx/faults"
)

func main() {
	shard := flag.String("shard", "", "`I/N`: run the I-th of N parts of the long figures")
	list := flag.Bool("list", false, "list the units and run nothing")
	atOnce := flag.Int("at-once", 2, "run `N` tests at a time")
	flag.Parse()
	if *atOnce < 1 {
		fmt.Fprintln(os.Stderr, "faultrun: -at-once must be 1 or more")
		os.Exit(2)
	}
	if err := run(*shard, *atOnce, *list); err != nil {
		fmt.Fprintln(os.Stderr, "faultrun:", err)
		os.Exit(1)
	}
}

func run(shard string, atOnce int, list bool) error {
	tests, err := find(".")
	if err != nil {
		return err
	}
	if len(tests) == 0 {
		return fmt.Errorf("no test is called TestFault…: run it in the checkout's root")
	}
	units := short(tests)
	l := &ledger{}
	if shard != "" {
		if units, err = part(long(tests), shard); err != nil {
			return err
		}
		if l, err = openLedger(filepath.Join(".cache", "faults", os.Getenv(faults.EnvMode))); err != nil {
			return err
		}
	}
	if list {
		for _, u := range units {
			fmt.Println(u)
		}
		return nil
	}
	return runAll(units, l, atOnce, os.Stdout)
}

// test is one of the suite.
type test struct {
	pkg  string // "./integration"
	name string
}

var testFunc = regexp.MustCompile(`(?m)^func (TestFault[A-Za-z0-9_]*)\(`)

// find lists the suite's tests, by package and name.
func find(root string) (tests []test, err error) {
	err = filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "bin" || d.Name() == "testdata"):
			return filepath.SkipDir
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(path)
		dir, _ := filepath.Rel(root, filepath.Dir(path))
		for _, m := range testFunc.FindAllSubmatch(text, -1) {
			tests = append(tests, test{"./" + filepath.ToSlash(dir), string(m[1])})
		}
		return err
	})
	slices.SortFunc(tests, func(a, b test) int { return strings.Compare(a.pkg+" "+a.name, b.pkg+" "+b.name) })
	return tests, err
}

// unit is a run of one test.
type unit struct {
	test
	seed uint64 // 0: the test's own
	long bool
}

func (u unit) String() string {
	s := u.pkg + " " + u.name
	if u.seed != 0 {
		s += fmt.Sprintf(" seed %d", u.seed)
	}
	if u.long {
		s += " long"
	}
	return s
}

func (u unit) env() (env []string) {
	if u.seed != 0 {
		env = append(env, fmt.Sprintf("%s=%d", faults.EnvSeed, u.seed))
	}
	if u.long {
		env = append(env, faults.EnvLong+"=1")
	}
	return env
}

func short(tests []test) (units []unit) {
	for _, t := range tests {
		units = append(units, unit{test: t})
	}
	return units
}

// round says how often a test runs for the long figures, each time with another seed.
type round struct {
	runs  int
	long  bool
	takes time.Duration // at most, beside another; 0: usual
}

// How long a unit may take when its round does not say it.
const (
	usual     = 6 * time.Minute
	usualLong = 20 * time.Minute
)

// rounds has the tests that run more than once, or otherwise than in their long form.
var rounds = map[string]round{
	"TestFaultKillThree":       {runs: 50}, // 20 kills each
	"TestFaultKillFive":        {runs: 50},
	"TestFaultFollowersKilled": {runs: 20}, // 20 kills each
	"TestFaultFollowersApart":  {runs: 20},
	"TestFaultPartitions":      {runs: 50, takes: 8 * time.Minute}, // each class twice
	"TestFaultSlowLinks":       {runs: 50},
	"TestFaultPauses":          {runs: 20}, // 10 pauses each
	"TestFaultRestarts":        {runs: 13}, // 4 of each
	"TestFaultContainerdAway":  {runs: 50, long: true, takes: 8 * time.Minute},
	"TestFaultClockJumps":      {runs: 20},
	"TestFaultEvents":          {runs: 10, takes: 10 * time.Minute},
	"TestFaultDiskTrouble":     {runs: 20},
	"TestFaultDiskHang":        {runs: 20},
	"TestFaultPowerLoss":       {runs: 20},
	"TestFaultCrashNode":       {runs: 50, takes: 10 * time.Minute},
	"TestFaultCrashFirstDay":   {runs: 50},
	"TestFaultCrashForward":    {runs: 50},
	"TestFaultCrashJoin":       {runs: 50},
	"TestFaultDelays":          {runs: 50},
	"TestFaultErrors":          {runs: 50},
	"TestFaultHistoryChecker":  {runs: 1}, // judges the judge
	"TestFaultRegisterChecker": {runs: 1},
	"TestFaultRaft":            {runs: 100, long: true, takes: usual},
	"TestFaultBackupRestore":   {runs: 20},
}

// takes is how long the unit may take at most.
func (u unit) takes() time.Duration {
	switch r := rounds[u.name]; {
	case r.takes > 0:
		return r.takes
	case u.long:
		return usualLong
	}
	return usual
}

func long(tests []test) (units []unit) {
	for _, t := range tests {
		r, ok := rounds[t.name]
		if !ok {
			units = append(units, unit{test: t, long: true})
		}
		for i := range r.runs {
			units = append(units, unit{test: t, seed: uint64(i + 1), long: r.long})
		}
	}
	return units
}

// part returns the i-th of n parts of units, for "i/n", those that take long first.
func part(units []unit, shard string) ([]unit, error) {
	var i, n int
	if _, err := fmt.Sscanf(shard, "%d/%d", &i, &n); err != nil || i < 1 || i > n || fmt.Sprintf("%d/%d", i, n) != shard {
		return nil, fmt.Errorf("shard %q is not I/N with 1 ≤ I ≤ N", shard)
	}
	var out []unit
	for k, u := range units {
		if k%n == i-1 {
			out = append(out, u)
		}
	}
	slices.SortStableFunc(out, func(a, b unit) int { return cmp.Compare(b.takes(), a.takes()) })
	return out, nil
}
