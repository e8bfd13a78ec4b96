// Package bench holds what `make bench` has measured: the machine, the rows of each
// section, their samples and their bars, as a file and as tables.
package bench

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// Schema is the version of the file's form. A reader refuses another one.
const Schema = 1

// KeptSamples is how many samples of a row are kept, evenly spread over the run.
const KeptSamples = 40

// Report is one run, or several whose sections were put together.
type Report struct {
	Schema   int       `json:"schema"`
	Machine  Machine   `json:"machine"`
	Sections []Section `json:"sections"`
}

// Machine is what a run was measured on.
type Machine struct {
	CPU        string  `json:"cpu"`
	Cores      int     `json:"cores"`
	MemoryGiB  int     `json:"memoryGiB"`
	Kernel     string  `json:"kernel"`
	Filesystem string  `json:"filesystem"` // of the data directories
	FsyncMS    float64 `json:"fsyncMS"`    // median of appending 256 bytes and fsync
	Go         string  `json:"go"`
}

// Section is one part of the table.
type Section struct {
	Name    string    `json:"name"`
	Time    time.Time `json:"time"`
	Commit  string    `json:"commit"`
	Seconds float64   `json:"seconds"`
	Load    string    `json:"load"` // of the machine before and after
	Rows    []Row     `json:"rows"`
}

// Row is one line of the table: P50 and P99 in Unit, or one value in P50. A row whose
// What begins with spaces continues the last one that does not.
type Row struct {
	What    string    `json:"what"`
	N       int       `json:"n"`
	Unit    string    `json:"unit"`
	P50     float64   `json:"p50"`
	P99     *float64  `json:"p99,omitempty"`
	Better  string    `json:"better,omitempty"` // less, more, or empty: neither
	Bar     string    `json:"bar,omitempty"`
	Verdict string    `json:"verdict,omitempty"` // OK, Miss, Explained, or empty without a bar
	Why     string    `json:"why,omitempty"`     // of a miss that is explained
	Samples []float64 `json:"samples,omitempty"` // in the order of their measurement
}

// The verdicts.
const (
	OK        = "ok"
	Miss      = "MISS"      // fails the run
	Explained = "explained" // a bar that is missed for a reason that is known
)

// Which direction is better.
const (
	Less = "less"
	More = "more"
)

// Thin keeps at most KeptSamples of the samples, with four significant digits.
func Thin(samples []float64) []float64 {
	n := min(len(samples), KeptSamples)
	out := make([]float64, n)
	for i := range out {
		_, _ = fmt.Sscanf(fmt.Sprintf("%.4g", samples[i*len(samples)/n]), "%g", &out[i])
	}
	return out
}

// Names returns the full names of a section's rows, in their order. They are unique in
// a section, and stay the same from run to run.
func (s Section) Names() []string {
	names := make([]string, len(s.Rows))
	seen := map[string]int{}
	parent := ""
	for i, r := range s.Rows {
		what := strings.TrimSpace(r.What)
		if what == r.What {
			parent = what
		} else {
			what = parent + ": " + what
		}
		seen[what]++
		if n := seen[what]; n > 1 {
			what = fmt.Sprintf("%s (%d)", what, n)
		}
		names[i] = s.Name + ": " + what
	}
	return names
}

// Figure writes a value with the digits that mean something.
func Figure(v float64, unit string) string {
	digits := 2
	switch {
	case v == float64(int64(v)):
		digits = 0
	case unit == "ms" && v < 10:
		digits = 3
	case v >= 100:
		digits = 0
	}
	s := fmt.Sprintf("%.*f", digits, v)
	switch unit {
	case "", "×", "%":
		return s + unit
	}
	return s + " " + unit
}

// Read reads a file that Write wrote.
func Read(path string) (Report, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Report{}, err
	}
	var r Report
	if err := json.Unmarshal(data, &r); err != nil {
		return Report{}, fmt.Errorf("%s: %w", path, err)
	}
	if r.Schema != Schema {
		return Report{}, fmt.Errorf("%s: schema %d, this program knows %d", path, r.Schema, Schema)
	}
	return r, nil
}

// Write writes the report, a row with its samples on one line.
func (r Report) Write(path string) error {
	r.Schema = Schema
	var out strings.Builder
	machine, err := json.Marshal(r.Machine)
	if err != nil {
		return err
	}
	fmt.Fprintf(&out, "{\"schema\": %d, \"machine\": %s, \"sections\": [\n", r.Schema, machine)
	for i, s := range r.Sections {
		rows := s.Rows
		s.Rows = nil
		head, err := json.Marshal(s)
		if err != nil {
			return err
		}
		text, _ := strings.CutSuffix(string(head), "null}")
		fmt.Fprintf(&out, "  %s[\n", text)
		for k, row := range rows {
			line, err := json.Marshal(row)
			if err != nil {
				return err
			}
			fmt.Fprintf(&out, "    %s%s\n", line, comma(k, len(rows)))
		}
		fmt.Fprintf(&out, "  ]}%s\n", comma(i, len(r.Sections)))
	}
	out.WriteString("]}\n")
	return os.WriteFile(path, []byte(out.String()), 0o644)
}

func comma(i, n int) string {
	if i == n-1 {
		return ""
	}
	return ","
}

// Merge returns old with the sections of r in the place of those of the same name, and
// r's machine. Sections of another machine do not stay.
func (r Report) Merge(old Report) Report {
	out := Report{Schema: Schema, Machine: r.Machine}
	if old.Machine.Same(r.Machine) {
		out.Sections = slices.Clone(old.Sections)
	}
	for _, s := range r.Sections {
		i := slices.IndexFunc(out.Sections, func(o Section) bool { return o.Name == s.Name })
		if i < 0 {
			out.Sections = append(out.Sections, s)
		} else {
			out.Sections[i] = s
		}
	}
	return out
}

// Same reports whether figures of the two machines can be compared.
func (m Machine) Same(o Machine) bool {
	return m.CPU == o.CPU && m.Cores == o.Cores && m.Filesystem == o.Filesystem
}

func (m Machine) String() string {
	return fmt.Sprintf("%s, %d cores, %d GiB, Linux %s, %s with %s for an append and fsync, %s",
		m.CPU, m.Cores, m.MemoryGiB, m.Kernel, m.Filesystem, Figure(m.FsyncMS, "ms"), m.Go)
}
