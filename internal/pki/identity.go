package pki

import (
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/url"
	"strings"

	"stellar.io/stellar/ipam"
)

// Role is the most that a member may become.
type Role = ipam.Role

const (
	RoleServer = ipam.RoleServer // may become a Raft voter and hold the CA's key
	RoleNode   = ipam.RoleNode   // stays a follower
)

// Identity is who a certificate says its owner is. In the certificate it is the
// common name (Name) and URIs:
//
//	stellar://<cluster>/node/<node>
//	stellar://<cluster>/role/<server|node>
//	stellar://<cluster>/raft                 (Raft only)
type Identity struct {
	Cluster string      // 32 lower-case hexadecimal digits
	Node    ipam.NodeID // the node's incarnation
	Name    string      // the node's name, for people
	Role    Role
	Raft    bool // may speak the Raft protocol
}

// String is for logs and messages.
func (id Identity) String() string { return fmt.Sprintf("%s (%s)", id.Name, id.Node.Short()) }

// LogValue tells who it is without the cluster, which is the same everywhere.
func (id Identity) LogValue() slog.Value {
	return slog.GroupValue(slog.String("name", id.Name), slog.String("id", string(id.Node)))
}

// Validate names what keeps id out of a certificate.
func (id Identity) Validate() error {
	switch {
	case !validCluster(id.Cluster):
		return fmt.Errorf("%w: cluster id %q is not 32 hexadecimal digits", ErrNoIdentity, id.Cluster)
	case !id.Node.Valid():
		return fmt.Errorf("%w: node id %q is not 32 hexadecimal digits", ErrNoIdentity, id.Node)
	case !validName(id.Name):
		return fmt.Errorf("%w: node name %q", ErrNoIdentity, id.Name)
	case id.Role != RoleServer && id.Role != RoleNode:
		return fmt.Errorf("%w: role %s", ErrNoIdentity, id.Role)
	}
	return nil
}

// uris returns the identity as it stands in a certificate.
func (id Identity) uris() []*url.URL {
	all := []*url.URL{
		clusterURI(id.Cluster, "/node/"+string(id.Node)),
		clusterURI(id.Cluster, "/role/"+id.Role.String()),
	}
	if id.Raft {
		all = append(all, clusterURI(id.Cluster, "/raft"))
	}
	return all
}

const scheme = "stellar"

func clusterURI(cluster, path string) *url.URL {
	return &url.URL{Scheme: scheme, Host: cluster, Path: path}
}

// IdentityOf reads the identity from a certificate. It says nothing about who
// signed it: Store.Verify does. Capabilities that this version does not know are
// passed over, so that later ones can be added; anything else that is not
// exactly one identity of one cluster is ErrNoIdentity.
func IdentityOf(cert *x509.Certificate) (Identity, error) {
	id := Identity{Name: cert.Subject.CommonName}
	for _, u := range cert.URIs {
		if err := id.add(u); err != nil {
			return Identity{}, fmt.Errorf("%w: %w", ErrNoIdentity, err)
		}
	}
	if err := id.Validate(); err != nil {
		return Identity{}, err
	}
	return id, nil
}

// add takes over what one URI says.
func (id *Identity) add(u *url.URL) error {
	// Compared as a whole, so that nothing hides in escapes, users or queries.
	if u.Scheme != scheme || u.String() != clusterURI(u.Host, u.Path).String() {
		return fmt.Errorf("foreign URI %q", u)
	}
	if id.Cluster != "" && id.Cluster != u.Host {
		return fmt.Errorf("clusters %q and %q in one certificate", id.Cluster, u.Host)
	}
	id.Cluster = u.Host
	kind, value, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	switch kind {
	case "node":
		if id.Node != "" {
			return fmt.Errorf("more than one node")
		}
		id.Node = ipam.NodeID(value)
	case "role":
		role, ok := parseRole(value)
		if !ok || id.Role != 0 {
			return fmt.Errorf("role %q", value)
		}
		id.Role = role
	case "raft":
		if value != "" || u.Path != "/raft" || id.Raft {
			return fmt.Errorf("capability %q", u.Path)
		}
		id.Raft = true
	}
	return nil
}

func parseRole(s string) (Role, bool) {
	for _, r := range [...]Role{RoleServer, RoleNode} {
		if r.String() == s {
			return r, true
		}
	}
	return 0, false
}

// validCluster: a cluster id has the form of a node id.
func validCluster(s string) bool { return ipam.NodeID(s).Valid() }

// validName reports whether s can be a node's name: 1 to 64 letters, digits, '.',
// '-' and '_', the first one a letter or digit, as ipam has it. 64 is also what
// X.509 allows in a common name.
func validName(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for i, c := range []byte(s) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || c != '.' && c != '-' && c != '_') {
			return false
		}
	}
	return true
}
