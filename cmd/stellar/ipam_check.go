package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"stellar.io/stellar/api"
)

// reportKind is the kind of the file that `ipam check --report` writes and
// `ipam release --from-report` reads.
const reportKind = "IpamReport"

var problemList = listing[api.IpamProblem]{
	kind: reportKind,
	name: func(p api.IpamProblem) string { return addrCell(p.Address) },
	columns: []column[api.IpamProblem]{
		{head: "ADDRESS", cell: func(p api.IpamProblem) string { return addrCell(p.Address) }},
		{head: "PROBLEM", cell: func(p api.IpamProblem) string { return p.Kind }},
		{head: "NODE", cell: func(p api.IpamProblem) string { return p.Node }},
		{head: "OWNER", cell: func(p api.IpamProblem) string { return ownerCell(p.Owner) }},
		{head: "RELEASABLE", cell: func(p api.IpamProblem) string { return yesNo(p.Releasable) }},
		{head: "MESSAGE", cell: func(p api.IpamProblem) string { return p.Message }},
	},
}

type ipamCheck struct {
	app    *app
	report string
	self   bool
}

// checkSilence is after how long, and how often then, it is said that a check goes on.
const checkSilence = 2 * time.Second

func (a *app) ipamCheckCommand() *cobra.Command {
	c := &ipamCheck{app: a}
	cmd := &cobra.Command{
		Use: "check", Short: "Compare leases with what really runs", Args: cobra.NoArgs,
		Long: "Every node of the cluster compares its leases with its journal, the kernel and\n" +
			"containerd; nothing is changed. PROBLEM is leaked (its container is gone), doubled\n" +
			"(two interfaces or two nodes have the address), orphaned (an interface carries it,\n" +
			"nobody holds it), forgotten (replicated, and its holder does not know it), disputed\n" +
			"(journal and replicated state name two owners), unreplicated, unproven (containerd\n" +
			"cannot tell now) or inconsistent. Exit code 5 when something disagrees or a node\n" +
			"does not answer.",
	}
	cmd.Flags().BoolVar(&c.self, "this-node", false, "check this node alone")
	cmd.Flags().StringVar(&c.report, "report", "", "also write what was found to this `FILE`, for ipam release --from-report")
	return a.attach(cmd, c, waitTimeout)
}

func (c *ipamCheck) Run(ctx context.Context, _ []string, stdout, stderr io.Writer) error {
	cl, err := c.app.dial()
	if err != nil {
		return err
	}
	defer cl.Close()
	done := saying(stderr, checkSilence, "the nodes check their leases")
	r, err := cl.CheckIpam(ctx, c.self)
	done()
	if err != nil {
		return err
	}
	if r.Nodes == nil {
		r.Nodes = []api.IpamNodeCheck{}
	}
	if r.Problems == nil {
		r.Problems = []api.IpamProblem{}
	}
	if c.report != "" {
		if err := writeReport(c.report, r); err != nil {
			return err
		}
	}
	switch {
	case c.app.output == formatJSON:
		err = printJSON(stdout, reportKind, r)
	case len(r.Problems) > 0 || c.app.output == formatName:
		err = problemList.print(c.app, stdout, r.Problems)
	default:
		_, err = fmt.Fprintf(stdout, "%d leases checked, no problems\n", r.Checked)
	}
	silent := silentNodes(r)
	if err != nil || len(r.Problems) == 0 && len(silent) == 0 {
		return err
	}
	found := api.Errorf(api.CodeUnhealthy, "%d problems in %d leases", len(r.Problems), r.Checked)
	if len(silent) > 0 {
		found = api.Errorf(api.CodeUnhealthy, "%w; not checked: %s", found, strings.Join(silent, "; "))
	}
	if releasable(r) > 0 && c.report == "" {
		return found.WithHint("`stellar ipam check --report F`, then `stellar ipam release --from-report F` releases leaked leases")
	}
	return found
}

// silentNodes names the nodes that could not be checked, and why.
func silentNodes(r api.IpamReport) (out []string) {
	for _, n := range r.Nodes {
		if n.Error != "" {
			out = append(out, n.Node+" ("+n.Error+")")
		}
	}
	return out
}

// saying writes on stderr, each time so much more time has passed, that the work goes
// on, until the returned function is called.
func saying(stderr io.Writer, every time.Duration, what string) (done func()) {
	ended, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for began := time.Now(); ; {
			select {
			case <-ended:
				return
			case <-tick.C:
				fmt.Fprintf(stderr, "%s: %s\n", what, time.Since(began).Round(time.Second))
			}
		}
	}()
	return func() {
		close(ended)
		<-gone
	}
}

func releasable(r api.IpamReport) int {
	var n int
	for _, p := range r.Problems {
		if p.Releasable {
			n++
		}
	}
	return n
}

// writeReport replaces the file as a whole or not at all.
func writeReport(path string, r api.IpamReport) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".stellar-report-*")
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	err = printJSON(f, reportKind, r)
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// readReport reads what writeReport wrote.
func readReport(path string) (api.IpamReport, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return api.IpamReport{}, fmt.Errorf("read report: %w", err)
	}
	var r struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		api.IpamReport
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return api.IpamReport{}, api.Errorf(api.CodeInvalid, "%s is not a report: %w", path, err)
	}
	if r.APIVersion != api.Version || r.Kind != reportKind {
		return api.IpamReport{}, api.Errorf(api.CodeInvalid, "%s is not a report of `stellar ipam check --report`", path)
	}
	return r.IpamReport, nil
}
