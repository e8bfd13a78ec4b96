package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"stellar.io/stellar/api"
)

func (a *app) connectivityCommand() *cobra.Command {
	return group("connectivity", "Try the paths between containers and hosts",
		"Tries with packets what the nodes say of themselves.", a.connectivityTestCommand())
}

type connectivityTest struct {
	app *app
	own bool
	n   int
	out string
}

// testTimeout is how long a test may take unless --timeout says otherwise.
const testTimeout = 5 * time.Minute

func (a *app) connectivityTestCommand() *cobra.Command {
	c := &connectivityTest{app: a}
	cmd := &cobra.Command{
		Use: "test", Short: "Try every path between the nodes' containers and hosts", Args: cobra.NoArgs,
		Long: "Has each node try with echo requests: container to container within the node and\n" +
			"between the nodes, host to container, container to host, the path's MTU, all in both\n" +
			"directions, and the way out. Used are containers that run; a node with fewer than two\n" +
			"makes throw-away endpoints, in network namespaces of their own and with addresses of\n" +
			"its subnet, and removes them at the end, after ctrl-C, and when the node that tests is\n" +
			"gone. Exit code 5 when anything failed or a node took no part; 5m unless --timeout\n" +
			"says otherwise.",
	}
	f := cmd.Flags()
	f.BoolVar(&c.own, "own", false, "use throw-away endpoints only")
	f.IntVar(&c.n, "sample", 0, "only so many pairs of nodes, taken at random (default all)")
	f.StringVar(&c.out, "out", "", "try the way out with this address (default each node's default gateway)")
	return a.attach(cmd, c, noTimeout) // the agent ends it in time, and cleans up
}

func (c *connectivityTest) Run(ctx context.Context, _ []string, stdout, stderr io.Writer) error {
	limit := cmp.Or(c.app.timeout, testTimeout)
	// The agent, which can say what is missing, ends it before this side gives up.
	t := api.ConnectivityTest{Own: c.own, Sample: c.n, Limit: max(limit/2, limit-time.Second)}
	if c.out != "" {
		var err error
		if t.Out, err = api.ParseAddress(c.out); err != nil {
			return err
		}
	}
	if err := t.Validate(); err != nil {
		return err
	}
	cl, err := c.app.dial()
	if err != nil {
		return err
	}
	defer cl.Close()
	p := progressLine{w: stderr, screen: isTerminal(stderr), now: time.Now}
	p.begun = p.now()
	r, err := cl.TestConnectivity(ctx, t, p.show)
	p.clear()
	if err != nil {
		return err
	}
	if err := printConnectivity(c.app, stdout, r); err != nil {
		return err
	}
	return connectivityVerdict(r)
}

// connectivityVerdict is the error that the command ends with.
func connectivityVerdict(r api.ConnectivityReport) error {
	var absent []string
	for _, n := range r.Nodes {
		if n.Error != "" && len(n.Endpoints) == 0 {
			absent = append(absent, n.Node)
		}
	}
	failed := r.Count(api.TestFail)
	switch {
	case failed > 0 && len(absent) > 0:
		return api.Errorf(api.CodeUnhealthy, "%d of %d paths failed, and no part took: %s", failed, len(r.Results), strings.Join(absent, ", "))
	case failed > 0:
		return api.Errorf(api.CodeUnhealthy, "%d of %d paths failed", failed, len(r.Results)).WithHint("`stellar status` and `stellar route ls --drift` on the nodes of a failed path")
	case len(absent) > 0:
		return api.Errorf(api.CodeUnhealthy, "nodes that took no part: %s", strings.Join(absent, ", ")).WithHint("`stellar node ls` shows which nodes answer")
	case r.Count(api.TestOK) == 0:
		return api.Errorf(api.CodeUnhealthy, "nothing could be tried")
	}
	return nil
}

// connectivityPair is a line of the table: all that was tried from one node to another.
type connectivityPair struct {
	from, to string
	results  []api.ConnectivityResult
}

// pairsOf groups results by their nodes, each node's own first.
func pairsOf(results []api.ConnectivityResult) []connectivityPair {
	var out []connectivityPair
	for _, r := range results {
		i := slices.IndexFunc(out, func(p connectivityPair) bool { return p.from == r.From && p.to == r.To })
		if i < 0 {
			i, out = len(out), append(out, connectivityPair{from: r.From, to: r.To})
		}
		out[i].results = append(out[i].results, r)
	}
	slices.SortStableFunc(out, func(a, b connectivityPair) int {
		within := func(p connectivityPair) int {
			if p.from == p.to {
				return 0
			}
			return 1
		}
		return cmp.Or(cmp.Compare(within(a), within(b)), cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to))
	})
	return out
}

// cell judges the results of one test: FAIL before SKIP before OK; "" when it was not
// to be tried.
func (p connectivityPair) cell(test string) (state string) {
	rank := []string{"", api.TestOK, api.TestSkip, api.TestFail}
	for _, r := range p.results {
		if r.Test == test && slices.Index(rank, r.State) > slices.Index(rank, state) {
			state = r.State
		}
	}
	return state
}

// rtt is that of container to container.
func (p connectivityPair) rtt() string {
	for _, r := range p.results {
		if r.Test == api.TestContainers && r.State == api.TestOK {
			return milliseconds(time.Duration(r.RTT)) + " ms"
		}
	}
	return ""
}

func (p connectivityPair) mtu() string {
	state := p.cell(api.TestPathMTU)
	for _, r := range p.results {
		if r.Test == api.TestPathMTU && r.MTU > 0 {
			return fmt.Sprintf("%s %d", state, r.MTU)
		}
	}
	return state
}

var connectivityList = listing[connectivityPair]{
	name: func(p connectivityPair) string { return p.from + "/" + p.to },
	columns: []column[connectivityPair]{
		{head: "FROM", cell: func(p connectivityPair) string { return p.from }},
		{head: "TO", cell: func(p connectivityPair) string { return p.to }},
		{head: "CONTAINERS", cell: func(p connectivityPair) string { return p.cell(api.TestContainers) }},
		{head: "HOST-TO-CONTAINER", cell: func(p connectivityPair) string { return p.cell(api.TestHostToContainer) }},
		{head: "CONTAINER-TO-HOST", cell: func(p connectivityPair) string { return p.cell(api.TestContainerToHost) }},
		{head: "PATH-MTU", cell: connectivityPair.mtu},
		{head: "WAY-OUT", cell: func(p connectivityPair) string { return p.cell(api.TestWayOut) }},
		{head: "RTT", wide: true, cell: connectivityPair.rtt},
	},
}

// failedPaths has what failed or could not be tried.
var failedPaths = listing[api.ConnectivityResult]{
	name: func(r api.ConnectivityResult) string { return r.From + "/" + r.To },
	columns: []column[api.ConnectivityResult]{
		{head: "STATE", cell: func(r api.ConnectivityResult) string { return r.State }},
		{head: "TEST", cell: func(r api.ConnectivityResult) string { return r.Test }},
		{head: "FROM", cell: func(r api.ConnectivityResult) string { return r.From }},
		{head: "SOURCE", cell: func(r api.ConnectivityResult) string { return r.Source }},
		{head: "TO", cell: func(r api.ConnectivityResult) string { return r.To }},
		{head: "TARGET", cell: func(r api.ConnectivityResult) string { return r.Target }},
		{head: "REASON", cell: func(r api.ConnectivityResult) string { return r.Reason }},
	},
}

func printConnectivity(a *app, w io.Writer, r api.ConnectivityReport) error {
	if a.output == formatJSON {
		r.Nodes, r.Results = append([]api.ConnectivityNode{}, r.Nodes...), append([]api.ConnectivityResult{}, r.Results...)
		for i := range r.Nodes {
			r.Nodes[i].Endpoints = append([]api.ConnectivityEndpoint{}, r.Nodes[i].Endpoints...)
		}
		return printJSON(w, "ConnectivityReport", r)
	}
	rows := pairsOf(r.Results)
	if a.output == formatName { // of what failed
		rows = slices.DeleteFunc(rows, func(p connectivityPair) bool {
			return !slices.ContainsFunc(p.results, func(r api.ConnectivityResult) bool { return r.State == api.TestFail })
		})
		return connectivityList.print(a, w, rows)
	}
	if err := connectivityList.print(a, w, rows); err != nil {
		return err
	}
	bad := slices.DeleteFunc(slices.Clone(r.Results), func(r api.ConnectivityResult) bool { return r.State == api.TestOK })
	slices.SortStableFunc(bad, func(a, b api.ConnectivityResult) int { return cmp.Compare(a.State, b.State) })
	if len(bad) > 0 {
		fmt.Fprintln(w)
		if err := failedPaths.print(a, w, bad); err != nil {
			return err
		}
	}
	if a.noHeaders {
		return nil
	}
	sample := ""
	if r.Pairs < r.AllPairs {
		sample = fmt.Sprintf(" (%d of %d pairs)", r.Pairs, r.AllPairs)
	}
	_, err := fmt.Fprintf(w, "\n%d paths between %d nodes%s: %d OK, %d failed, %d not tried\n",
		len(r.Results), len(r.Nodes), sample, r.Count(api.TestOK), r.Count(api.TestFail), r.Count(api.TestSkip))
	return err
}

// progressAfter is how long a command may be silent.
const progressAfter = 2 * time.Second

// progressLine says on stderr how far something is: one line that is written over on
// a terminal, one every two seconds elsewhere.
type progressLine struct {
	w      io.Writer
	screen bool
	now    func() time.Time
	begun  time.Time
	last   time.Time
	shown  bool
}

func (p *progressLine) show(g api.ConnectivityProgress) {
	now := p.now()
	if now.Sub(p.begun) < progressAfter || !p.screen && now.Sub(p.last) < progressAfter {
		return
	}
	p.last, p.shown = now, true
	text := fmt.Sprintf("stellar: %s: %d of %d", g.Phase, g.Done, g.Total)
	if g.Failed > 0 {
		text += fmt.Sprintf(", %d failed", g.Failed)
	}
	if p.screen {
		fmt.Fprintf(p.w, "\r%s\x1b[K", text)
		return
	}
	fmt.Fprintln(p.w, text)
}

// clear makes room for what comes next.
func (p *progressLine) clear() {
	if p.screen && p.shown {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
