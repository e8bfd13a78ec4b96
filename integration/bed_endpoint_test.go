package integration

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"

	"stellar.io/stellar/internal/testx"
	"stellar.io/stellar/internal/testx/faults"
)

// endpoint is what `endpoint ls -o json` says of one container.
type endpoint struct {
	Namespace, Container, Network, Address, MAC, Node, Ifname, HostIfname, State, Ready, Source, Reason string
}

func (n *node) endpoints() map[string]endpoint {
	n.t.Helper()
	es, err := n.list()
	if err != nil {
		n.t.Fatalf("%v\n%s", err, n.tail())
	}
	return es
}

// list fails while the node is starting.
func (n *node) list() (map[string]endpoint, error) {
	n.t.Helper()
	text, err := n.run("endpoint", "ls", "-o", "json")
	if err != nil {
		return nil, err
	}
	var list struct {
		Kind  string
		Items []endpoint
	}
	if err := json.Unmarshal([]byte(text), &list); err != nil || list.Kind != "EndpointList" {
		n.t.Fatalf("endpoint ls -o json: kind %q, %v", list.Kind, err)
	}
	out := map[string]endpoint{}
	for _, e := range list.Items {
		out[e.Namespace+"/"+e.Container] = e
	}
	return out, nil
}

// await waits until the container's endpoint is in the state, and returns it.
// State "" means: not listed.
func (n *node) await(id, state string) endpoint {
	n.t.Helper()
	return n.awaitFor(15*time.Second, id, state)
}

// awaitLong is await for what comes with the next listing of containerd.
func (n *node) awaitLong(id, state string) endpoint {
	n.t.Helper()
	return n.awaitFor(time.Minute, id, state)
}

func (n *node) awaitFor(limit time.Duration, id, state string) endpoint {
	n.t.Helper()
	if !strings.Contains(id, "/") {
		id = "default/" + id
	}
	var e endpoint
	n.eventually(limit, id+" is "+state, func() error {
		es, err := n.list()
		if err != nil {
			return err
		}
		e = es[id]
		if e.State != state {
			return fmt.Errorf("%+v", e)
		}
		return nil
	})
	return e
}

// networked are the labels that ask for a network, with more of them by pairs.
func networked(more ...string) map[string]string {
	labels := map[string]string{"stellar.io/network": "true"}
	for i := 0; i+1 < len(more); i += 2 {
		labels["stellar.io/"+more[i]] = more[i+1]
	}
	return labels
}

// start runs a labelled busybox that sleeps, and waits for its endpoint.
func (n *node) start(id string, more ...string) endpoint {
	n.t.Helper()
	n.runContainer(testx.Run{ID: id, Labels: networked(more...)})
	return n.await(id, "attached")
}

// checked waits until `ipam check` finds nothing: what a journal has released is
// replicated a moment later.
func (n *node) checked() {
	n.t.Helper()
	n.eventually(quiet, "ipam check finds nothing", n.problems)
}

// foundProblems is what `ipam check` ends with when it has found some.
var foundProblems = regexp.MustCompile(`[1-9]\d* problems in`)

// problems is what `ipam check` finds, or why it could not look.
func (n *node) problems() error {
	out, err := n.run("ipam", "check")
	switch {
	case err == nil:
		return nil
	case foundProblems.MatchString(err.Error()):
		return faults.Violation("%w\n%s", err, out)
	}
	return fmt.Errorf("%w\n%s", err, out)
}
