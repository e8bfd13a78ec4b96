package ipam

import "fmt"

// Limits of the texts that enter the state, in bytes.
const (
	maxNamespace = 76  // containerd's limit for identifiers
	maxOwnerID   = 128 // containerd allows 76; CNI sets no limit
	maxInterface = 15  // Linux: IFNAMSIZ without the final zero
	maxHostname  = 253 // DNS
	maxName      = 64  // Linux: HOST_NAME_MAX
	maxText      = 255 // addresses, versions, reasons
)

// validate tells whether o may hold an address.
func (o Owner) validate() error {
	switch {
	case o.Kind < OwnerContainer || o.Kind > OwnerManual:
		return fmt.Errorf("%w: owner has no kind", ErrInvalid)
	case o.ID == "" || !plainText(o.ID, maxOwnerID):
		return fmt.Errorf("%w: owner's id", ErrInvalid)
	case !plainText(o.Namespace, maxNamespace):
		return fmt.Errorf("%w: owner's namespace", ErrInvalid)
	case o.Interface == "" || !plainText(o.Interface, maxInterface):
		return fmt.Errorf("%w: owner's interface name", ErrInvalid)
	}
	return nil
}

// plainText reports whether s has at most limit bytes, all of them visible ASCII.
func plainText(s string, limit int) bool {
	if len(s) > limit {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// plainLine is plainText with spaces allowed.
func plainLine(s string, limit int) bool {
	if len(s) > limit {
		return false
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// validNodeName reports whether s is a host name as Linux allows them: letters,
// digits, '.', '-' and '_', the first one a letter or digit.
func validNodeName(s string) bool {
	if s == "" || len(s) > maxName {
		return false
	}
	for i := range len(s) {
		c := s[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || c != '.' && c != '-' && c != '_') {
			return false
		}
	}
	return true
}

// known reports whether m is a mode of this version.
func (m Mode) known() bool { return m == ModeBridge || m == ModeRouted }

// known reports whether r is a role of this version.
func (r Role) known() bool { return r == RoleServer || r == RoleNode }
