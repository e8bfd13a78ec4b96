package server

import (
	"fmt"
	"strings"

	"stellar.io/stellar/api"
)

// resolveEndpoint finds the one endpoint that the caller means: an exact
// container id first, else the beginning of a long one. Only an id of 64 digits
// can be shortened: where people chose the names, web is not web2. More than one
// match is a conflict that names them.
func resolveEndpoint(all []api.Endpoint, ref api.EndpointRef) (api.Endpoint, error) {
	if ref.Container == "" {
		return api.Endpoint{}, api.Errorf(api.CodeInvalid, "no container named")
	}
	var exact, begins []api.Endpoint
	for _, e := range all {
		if ref.Namespace != "" && e.Namespace != ref.Namespace || ref.Ifname != "" && e.Ifname != ref.Ifname {
			continue
		}
		switch {
		case e.Container == ref.Container:
			exact = append(exact, e)
		case longID(e.Container) && strings.HasPrefix(e.Container, ref.Container):
			begins = append(begins, e)
		}
	}
	found := exact
	if len(found) == 0 {
		found = begins
	}
	switch len(found) {
	case 0:
		return api.Endpoint{}, api.Errorf(api.CodeNotFound, "no endpoint %s on this node", quoted(ref.String())).
			WithHint(hintEndpoint + "; a container without the label stellar.io/network has none")
	case 1:
		return found[0], nil
	}
	return api.Endpoint{}, api.Errorf(api.CodeConflict, "%s means %d endpoints: %s", quoted(ref.String()), len(found), names(found)).
		WithHint("give NAMESPACE/CONTAINER in full")
}

// longID reports whether an id was made by a machine, as nerdctl's are.
func longID(id string) bool {
	return len(id) == 64 && strings.Trim(id, "0123456789abcdef") == ""
}

// resolveNode finds a node by its name, its id or the beginning of its id. Of
// several with one name it is the one that was not removed.
func resolveNode(all []api.Node, name string) (api.Node, error) {
	return resolve(all, name, func(n api.Node) (string, string, bool) { return n.Name, n.ID, n.Status != api.NodeRemoved })
}

// resolvePeer finds a server of Raft in the same way.
func resolvePeer(all []api.RaftPeer, name string) (api.RaftPeer, error) {
	return resolve(all, name, func(p api.RaftPeer) (string, string, bool) { return p.Node, p.ID, true })
}

// minIDPrefix is how much of an id stands for it: what `stellar node ls` and the
// logs show. Less could be meant as a name, of a node that is no more, say.
const minIDPrefix = 8

// resolve takes an exact id before a living name before any name before the
// beginning of an id.
func resolve[T any](all []T, want string, of func(T) (name, id string, living bool)) (T, error) {
	var zero T
	if want == "" {
		return zero, api.Errorf(api.CodeInvalid, "no node named")
	}
	var named, gone, begins []T
	for _, n := range all {
		switch name, id, living := of(n); {
		case id == want:
			return n, nil
		case name == want && living:
			named = append(named, n)
		case name == want:
			gone = append(gone, n)
		case len(want) >= minIDPrefix && strings.HasPrefix(id, want):
			begins = append(begins, n)
		}
	}
	found := begins
	if len(gone) > 0 {
		found = gone
	}
	if len(named) > 0 {
		found = named
	}
	switch len(found) {
	case 0:
		return zero, api.Errorf(api.CodeNotFound, "no node %s", quoted(want)).WithHint("`stellar node ls` shows the nodes")
	case 1:
		return found[0], nil
	}
	return zero, api.Errorf(api.CodeConflict, "%s means %d nodes", quoted(want), len(found)).
		WithHint("give the id in full, or the name")
}

// names lists a few endpoints for people.
func names(es []api.Endpoint) string {
	const most = 5
	var out []string
	for i, e := range es {
		if i == most {
			out = append(out, "…")
			break
		}
		out = append(out, e.Ref().String())
	}
	return strings.Join(out, ", ")
}

// quoted keeps what the caller typed from being long or from moving the cursor.
func quoted(s string) string {
	const most = 80
	if len(s) > most {
		s = s[:most] + "…"
	}
	return fmt.Sprintf("%q", s)
}
