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

// resolveNode finds a node by its name, its id or the beginning of its id.
func resolveNode(all []api.Node, name string) (api.Node, error) {
	if name == "" {
		return api.Node{}, api.Errorf(api.CodeInvalid, "no node named")
	}
	var found []api.Node
	for _, n := range all {
		if n.Name == name || n.ID == name {
			return n, nil
		}
		if strings.HasPrefix(n.ID, name) {
			found = append(found, n)
		}
	}
	switch len(found) {
	case 0:
		return api.Node{}, api.Errorf(api.CodeNotFound, "no node %s", quoted(name)).WithHint("`stellar node ls` shows the nodes")
	case 1:
		return found[0], nil
	}
	return api.Node{}, api.Errorf(api.CodeConflict, "%s is the beginning of %d node ids", quoted(name), len(found)).
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
