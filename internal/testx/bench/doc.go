package bench

import (
	"fmt"
	"strings"
)

// Markdown is the section as a table of docs/performance.md.
func (s Section) Markdown() string {
	var out strings.Builder
	fmt.Fprintf(&out, "| %s | n | median | p99 | bar |\n|---|---|---|---|---|\n", s.Name)
	for _, r := range s.Rows {
		what, p99, bar := r.What, "", r.Bar
		if strings.HasPrefix(what, " ") {
			what = "… " + strings.TrimSpace(what)
		}
		if r.P99 != nil && r.N > 1 {
			p99 = Figure(*r.P99, r.Unit)
		}
		switch r.Verdict {
		case Miss:
			bar += ": **missed**"
		case Explained:
			bar += ": missed, " + r.Why
		}
		fmt.Fprintf(&out, "| %s | %d | %s | %s | %s |\n", cell(what), r.N, Figure(r.P50, r.Unit), p99, cell(bar))
	}
	fmt.Fprintf(&out, "\n%s, commit %s; load of the machine over 1, 5 and 15 minutes: %s.\n", s.Time.Format("2006-01-02"), s.Commit, s.Load)
	return out.String()
}

func cell(s string) string { return strings.ReplaceAll(s, "|", "\\|") }

// Document replaces in a page what stands between the lines "<!-- bench NAME -->" and
// "<!-- end -->" by the section of that name, and "<!-- bench machine -->" by the machine.
// A section that the page does not show is an error; of one that the report does not have
// it says so.
func (r Report) Document(page string) (string, error) {
	texts := map[string]string{"machine": r.Machine.String() + ".\n"}
	for _, s := range r.Sections {
		texts[s.Name] = s.Markdown()
	}
	var out strings.Builder
	for {
		head, rest, ok := strings.Cut(page, "<!-- bench ")
		out.WriteString(head)
		if !ok {
			break
		}
		name, rest, ok1 := strings.Cut(rest, " -->\n")
		_, tail, ok2 := strings.Cut(rest, "<!-- end -->")
		if !ok1 || !ok2 {
			return "", fmt.Errorf("no end of the table %q", name)
		}
		text, measured := texts[name]
		if !measured {
			text = fmt.Sprintf("No figures are kept: `make bench SECTION=%s`.\n", name)
		}
		delete(texts, name)
		fmt.Fprintf(&out, "<!-- bench %s -->\n\n%s\n<!-- end -->", name, text)
		page = tail
	}
	for name := range texts {
		return "", fmt.Errorf("the page does not show %q", name)
	}
	return out.String(), nil
}
