// Package wire turns the plain values of package api into the messages of
// stellar/v1 and back. A value that went to the wire comes back the same; text
// that is no address comes back as the zero address, which means "none".
package wire

import (
	"net/netip"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
)

// text makes what others wrote (labels, kernel names) fit for a message: one
// byte that is not UTF-8 would make the whole list unsendable.
func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func prefixText(p netip.Prefix) string {
	if !p.IsValid() {
		return ""
	}
	return p.String()
}

func addr(s string) netip.Addr {
	a, _ := netip.ParseAddr(s)
	return a
}

func prefix(s string) netip.Prefix {
	p, _ := netip.ParsePrefix(s)
	return p
}

// stamp keeps the zero time as an absent message; the wire has no other way.
func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func moment(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

// Each converts a list.
func Each[A, B any](in []A, f func(A) B) []B {
	out := make([]B, len(in))
	for i, v := range in {
		out[i] = f(v)
	}
	return out
}
