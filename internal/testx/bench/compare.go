package bench

import (
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// noise is how much the median of a row may differ between two runs of the same program
// in percent: other work on a machine, its clock and its disk move that much. What
// benchstat calls significant within a run is often less.
const noise = 10

// Benchstat writes the samples as benchstat reads them. Rows of one figure are left out:
// one sample tells nothing of its noise.
func (r Report) Benchstat(w io.Writer) error {
	for _, s := range r.Sections {
		for i, name := range s.Names() {
			for _, v := range s.Rows[i].Samples {
				if _, err := fmt.Fprintf(w, "Benchmark%s 1 %g %s\n", mangle(name), v, unit(s.Rows[i].Unit)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// mangle makes a name that a benchmark may have.
func mangle(name string) string {
	return strings.Map(func(c rune) rune {
		if c < 128 && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9') {
			return c
		}
		return '_'
	}, name) + "_" // no number at the end, which would be taken for that of the processors
}

func unit(u string) string {
	switch u {
	case "":
		return "count"
	case "/s":
		return "per-s"
	}
	return strings.ReplaceAll(u, " ", "-")
}

// Change is a row that differs from what it was, by benchstat's judgement.
type Change struct {
	Name    string
	Row     Row
	Was     float64 // the median
	Percent float64
	Worse   bool // in the direction that is not wanted, and by more than a run's noise
}

// Changes reads benchstat's CSV of two reports, the second of which is r.
func (r Report) Changes(table io.Reader) ([]Change, error) {
	in := csv.NewReader(table)
	in.FieldsPerRecord = -1
	lines, err := in.ReadAll()
	if err != nil {
		return nil, fmt.Errorf("benchstat's table: %w", err)
	}
	verdicts := map[string][]string{}
	for _, f := range lines {
		if len(f) >= 6 && f[5] != "vs base" && f[5] != "" && f[5] != "~" {
			verdicts[f[0]] = f
		}
	}
	var out []Change
	for _, s := range r.Sections {
		for i, name := range s.Names() {
			f := verdicts[mangle(name)]
			if f == nil {
				continue
			}
			was, err1 := strconv.ParseFloat(f[1], 64)
			percent, err2 := strconv.ParseFloat(strings.TrimSuffix(f[5], "%"), 64)
			if err1 != nil || err2 != nil {
				continue // no number, as for a median that was 0
			}
			c := Change{Name: name, Row: s.Rows[i], Was: was, Percent: percent}
			switch c.Row.Better {
			case Less:
				c.Worse = percent > noise
			case More:
				c.Worse = percent < -noise
			}
			out = append(out, c)
		}
	}
	return out, nil
}
