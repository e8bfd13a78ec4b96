package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"stellar.io/stellar/api"
)

// Values of -o.
const (
	formatTable = "table"
	formatWide  = "wide" // a table with more columns
	formatJSON  = "json"
	formatName  = "name" // names only, one a line, as other commands take them
)

// none stands for an empty cell, so that each line has all its columns.
const none = "-"

// column is one column of a table of T.
type column[T any] struct {
	head string
	wide bool // only with -o wide
	cell func(T) string
}

// listing says how a list of T is printed in every format.
type listing[T any] struct {
	kind    string // of the list in JSON
	columns []column[T]
	name    func(T) string
}

// print writes the items in the format of -o.
func (l listing[T]) print(a *app, w io.Writer, items []T) error {
	switch a.output {
	case formatJSON:
		if items == nil {
			items = []T{}
		}
		return printJSON(w, l.kind, struct {
			Items []T `json:"items"`
		}{items})
	case formatName:
		for _, it := range items {
			if _, err := fmt.Fprintln(w, printable(l.name(it))); err != nil {
				return err
			}
		}
		return nil
	}
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	row := func(cell func(column[T]) string) {
		var cells []string
		for _, c := range l.columns {
			if !c.wide || a.output == formatWide {
				cells = append(cells, cell(c))
			}
		}
		fmt.Fprintln(tw, strings.Join(cells, "\t"))
	}
	if !a.noHeaders {
		row(func(c column[T]) string { return c.head })
	}
	for _, it := range items {
		row(func(c column[T]) string { return orNone(printable(c.cell(it))) })
	}
	return tw.Flush()
}

// field is one line of a single object.
type field struct{ key, value string }

// printObject writes one object in the format of -o; v is its JSON form.
func printObject(a *app, w io.Writer, kind string, v any, name string, fields []field) error {
	switch a.output {
	case formatJSON:
		return printJSON(w, kind, v)
	case formatName:
		_, err := fmt.Fprintln(w, printable(name))
		return err
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, f := range fields {
		fmt.Fprintf(tw, "%s:\t%s\n", f.key, orNone(printable(f.value)))
	}
	return tw.Flush()
}

// envelope puts apiVersion and kind before the fields of v, which must be a
// struct.
func envelope(kind string, v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	fields := bytes.TrimSpace(buf.Bytes())[1:]
	head := fmt.Sprintf(`{"apiVersion":%q,"kind":%q`, api.Version, kind)
	if string(fields) != "}" {
		head += ","
	}
	return append([]byte(head), fields...), nil
}

func printJSON(w io.Writer, kind string, v any) error {
	data, err := envelope(kind, v)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := json.Indent(&out, data, "", "  "); err != nil {
		return err
	}
	out.WriteByte('\n')
	_, err = w.Write(out.Bytes())
	return err
}

// printable keeps text that others wrote (labels, names) from moving the cursor
// or breaking a line.
func printable(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		q := strconv.QuoteRuneToASCII(r)
		b.WriteString(q[1 : len(q)-1])
	}
	return b.String()
}

func orNone(s string) string {
	if s == "" {
		return none
	}
	return s
}

func addrCell(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func prefixCell(p netip.Prefix) string {
	if !p.IsValid() {
		return ""
	}
	return p.String()
}

func timeCell(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format(time.RFC3339)
}

// ageCell says how long ago t was, in the largest unit that fits: 5s, 3m, 2h, 4d.
func ageCell(now, t time.Time) string {
	if t.IsZero() {
		return ""
	}
	d := max(now.Sub(t), 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dd", d/(24*time.Hour))
}

// idCell shortens the 64 digits that nerdctl and others give their containers to
// the twelve that people know them by.
func idCell(id string) string {
	if len(id) == 64 && strings.Trim(id, "0123456789abcdef") == "" {
		return id[:12]
	}
	return id
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
