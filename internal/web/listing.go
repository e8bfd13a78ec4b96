package web

import (
	"cmp"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"stellar.io/stellar/api"
)

const (
	defaultLimit = 50
	maxLimit     = 500
)

// query is what a table of the page asks for.
type query struct {
	terms         []string // all of them, in lower case, must occur in a row
	state, node   string   // exactly; empty: any
	sort          string   // name of a column; empty: the first of the table
	descending    bool
	offset, limit int
}

func parseQuery(v url.Values) (query, error) {
	q := query{
		terms: strings.Fields(strings.ToLower(v.Get("q"))), state: v.Get("state"), node: v.Get("node"),
		sort: v.Get("sort"), descending: v.Get("order") == "desc", limit: defaultLimit,
	}
	for name, to := range map[string]*int{"offset": &q.offset, "limit": &q.limit} {
		s := v.Get(name)
		if s == "" {
			continue
		}
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 || n > 1<<30 {
			return q, api.Errorf(api.CodeInvalid, "%s %.20q is not a number", name, s)
		}
		*to = n
	}
	q.limit = min(max(q.limit, 1), maxLimit)
	return q, nil
}

// listing says how rows of T are searched and sorted.
type listing[T any] struct {
	text  func(T) []string // what a search looks into
	state func(T) string
	node  func(T) string
	less  map[string]func(a, b T) int // by name of a column
	first string                      // the column that decides in the end; it has to be in less
}

// page is a part of a table.
type page[T any] struct {
	Items   []T            `json:"items"`
	Offset  int            `json:"offset"`
	Matched int            `json:"matched"` // rows that the search has left
	Total   int            `json:"total"`
	States  map[string]int `json:"states"` // rows that match but for their state
}

// of returns the page of rows that q asks for. An offset past the end becomes that
// of the last page. rows are not changed.
func (l listing[T]) of(rows []T, q query) (page[T], error) {
	p := page[T]{Total: len(rows), States: map[string]int{}}
	by, ok := l.less[cmp.Or(q.sort, l.first)]
	if !ok {
		return p, api.Errorf(api.CodeInvalid, "no column %.40q to sort by", q.sort)
	}
	var matched []T
	for _, row := range rows {
		if q.node != "" && l.node(row) != q.node || !l.matches(row, q.terms) {
			continue
		}
		state := l.state(row)
		p.States[state]++
		if q.state == "" || state == q.state {
			matched = append(matched, row)
		}
	}
	slices.SortStableFunc(matched, func(a, b T) int {
		c := by(a, b)
		if q.descending {
			c = -c
		}
		return cmp.Or(c, l.less[l.first](a, b))
	})
	p.Matched = len(matched)
	p.Offset = q.offset
	if p.Offset >= p.Matched {
		p.Offset = max(0, (p.Matched-1)/q.limit*q.limit)
	}
	p.Items = append([]T{}, matched[p.Offset:min(p.Offset+q.limit, p.Matched)]...)
	return p, nil
}

func (l listing[T]) matches(row T, terms []string) bool {
	if len(terms) == 0 {
		return true
	}
	text := l.text(row)
	for _, term := range terms {
		if !slices.ContainsFunc(text, func(s string) bool { return containsFold(s, term) }) {
			return false
		}
	}
	return true
}

// containsFold is strings.Contains of s in lower case, without making that: rows are
// many, and names are ASCII but for rare ones.
func containsFold(s, lower string) bool {
	n := len(lower)
	for i := 0; i+n <= len(s); i++ {
		if strings.EqualFold(s[i:i+n], lower) {
			return true
		}
	}
	return false
}

// byText compares by a text of the row.
func byText[T any](f func(T) string) func(a, b T) int {
	return func(a, b T) int { return strings.Compare(f(a), f(b)) }
}

// byNumber compares by a number of the row.
func byNumber[T any, N cmp.Ordered](f func(T) N) func(a, b T) int {
	return func(a, b T) int { return cmp.Compare(f(a), f(b)) }
}
