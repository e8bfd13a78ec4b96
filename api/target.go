package api

import (
	"net/netip"
	"path/filepath"
	"strings"
)

// ParseTarget reads an address ("172.16.0.9") or a block ("172.17.0.0/16"). An
// address is a block of its own. The error is CodeInvalid.
func ParseTarget(s string) (netip.Prefix, error) {
	if a, err := ParseAddress(s); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, Errorf(CodeInvalid, "%q is neither an IP address nor a block like 172.17.0.0/16", s)
	}
	if p != p.Masked() {
		return netip.Prefix{}, Errorf(CodeInvalid, "%s is not the start of its block, which is %s", s, p.Masked())
	}
	return p, nil
}

// ParseAddress reads one IP address without a zone. The error is CodeInvalid.
func ParseAddress(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, Errorf(CodeInvalid, "%q is not an IP address", s)
	}
	return a.Unmap(), nil
}

// TargetText writes a block as ParseTarget reads it, one address without its length.
func TargetText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// DefaultAddress is where an agent serves its API unless it is told otherwise.
const DefaultAddress = "unix:///run/stellar/stellar.sock"

// maxSocketPath is the kernel's sun_path without the closing zero.
const maxSocketPath = 107

// SocketPath returns the path in an address like unix:///run/stellar/stellar.sock;
// a bare absolute path is taken, too. The error is CodeInvalid.
func SocketPath(address string) (string, error) {
	path := strings.TrimPrefix(address, "unix://")
	if !filepath.IsAbs(path) {
		return "", Errorf(CodeInvalid, "address %q is not of the form unix:///path/to/socket", address)
	}
	if len(path) > maxSocketPath {
		return "", Errorf(CodeInvalid, "address %.40q… is longer than the %d bytes that a socket's path can have", address, maxSocketPath)
	}
	return path, nil
}
