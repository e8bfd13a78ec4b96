package routes

import (
	"errors"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Cleanup removes every route that bears our mark from the namespace.
func Cleanup(namespace int) error {
	k, err := openKernel(namespace)
	if err != nil {
		return err
	}
	defer k.close()
	have, err := k.routes()
	if err != nil {
		return err
	}
	var del []action
	for _, r := range have {
		if ours(r) {
			del = append(del, action{Delete, r, routeOf(r)})
		}
	}
	errs, err := k.change(del)
	return errors.Join(append(errs, err)...)
}

// Use is a range that the host itself uses.
type Use struct {
	Prefix netip.Prefix
	Device string
}

// Overlaps returns what the host itself uses inside p, by its routes (each
// address has one): routes of other programs that overlap p, those over
// ignoreDevice left out. Routes shorter than /8, such as the default route,
// say nothing about use and are left out too.
func Overlaps(namespace int, p netip.Prefix, ignoreDevice string) ([]Use, error) {
	k, err := openKernel(namespace)
	if err != nil {
		return nil, err
	}
	defer k.close()
	have, err := k.routes()
	if err != nil {
		return nil, err
	}
	var out []Use
	for _, r := range have {
		if ours(r) || r.Dst.Bits() < 8 || !r.Dst.Overlaps(p) {
			continue
		}
		device := ""
		if r.Type != unix.RTN_UNREACHABLE {
			device = k.name(r.Index)
		}
		if device != ignoreDevice {
			out = append(out, Use{r.Dst, device})
		}
	}
	slices.SortFunc(out, func(a, b Use) int { return a.Prefix.Addr().Compare(b.Prefix.Addr()) })
	return slices.Compact(out), nil
}
