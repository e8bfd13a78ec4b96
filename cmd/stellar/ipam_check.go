package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

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
		{head: "OWNER", cell: func(p api.IpamProblem) string { return ownerCell(p.Owner) }},
		{head: "RELEASABLE", cell: func(p api.IpamProblem) string { return yesNo(p.Releasable) }},
		{head: "MESSAGE", cell: func(p api.IpamProblem) string { return p.Message }},
	},
}

type ipamCheck struct {
	app    *app
	report string
}

func (a *app) ipamCheckCommand() *cobra.Command {
	c := &ipamCheck{app: a}
	cmd := &cobra.Command{
		Use: "check", Short: "Compare leases with what really runs", Args: cobra.NoArgs,
		Long: "Compares the leases of this node with its journal, the kernel and containerd and\n" +
			"changes nothing. Exit code 5 when something disagrees.",
	}
	cmd.Flags().StringVar(&c.report, "report", "", "also write what was found to this file, for `ipam release --from-report`")
	return a.attach(cmd, c, waitTimeout)
}

func (c *ipamCheck) Run(ctx context.Context, _ []string, stdout, _ io.Writer) error {
	cl, err := c.app.dial()
	if err != nil {
		return err
	}
	defer cl.Close()
	r, err := cl.CheckIpam(ctx)
	if err != nil {
		return err
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
	if err != nil || len(r.Problems) == 0 {
		return err
	}
	found := api.Errorf(api.CodeUnhealthy, "%d problems in %d leases", len(r.Problems), r.Checked)
	if releasable(r) > 0 && c.report == "" {
		return found.WithHint("`stellar ipam check --report F`, then `stellar ipam release --from-report F` releases leaked leases")
	}
	return found
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
