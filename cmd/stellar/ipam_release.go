package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"github.com/spf13/cobra"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/client"
)

type ipamRelease struct {
	app        *app
	fromReport string
}

func (a *app) ipamReleaseCommand() *cobra.Command {
	c := &ipamRelease{app: a}
	cmd := &cobra.Command{
		Use: "release IP|BLOCK | --from-report F", Short: "End a reservation, a quarantine, or the lease of an owner that is gone",
		Long: "Ends a reservation of exactly this address or block, the lease of this address, or\n" +
			"the quarantine of this subnet: say that only when its last holder is dead. A lease\n" +
			"that an interface still carries is refused. With --from-report, releases the\n" +
			"leases that a report of `ipam check --report` calls releasable: the node that holds\n" +
			"each looks again, and one that has been taken up since stays.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 || (len(args) == 1) == (c.fromReport != "") {
				return errors.New("give one address or block, or --from-report F")
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&c.fromReport, "from-report", "", "release what this report calls releasable")
	return a.attach(cmd, c, waitTimeout)
}

// release is one thing let go.
type release struct {
	Target   string `json:"target"`
	Released string `json:"released"`
}

var releaseList = listing[release]{
	kind: "ReleaseList",
	name: func(r release) string { return r.Target },
	columns: []column[release]{
		{head: "TARGET", cell: func(r release) string { return r.Target }},
		{head: "RELEASED", cell: func(r release) string { return r.Released }},
	},
}

func (c *ipamRelease) Run(ctx context.Context, args []string, stdout, _ io.Writer) error {
	wanted, action, err := c.wanted(args)
	if err != nil {
		return err
	}
	cl, err := c.app.dial()
	if err != nil {
		return err
	}
	defer cl.Close()
	if len(wanted) == 0 {
		return releaseList.print(c.app, stdout, nil)
	}
	if err := c.app.confirm(action); err != nil {
		return err
	}
	done, err := releaseAll(ctx, cl, wanted)
	return errors.Join(err, releaseList.print(c.app, stdout, done))
}

// wanted says what is to be released and what to ask before.
func (c *ipamRelease) wanted(args []string) (wanted []api.Release, action string, err error) {
	if c.fromReport == "" {
		target, err := api.ParseTarget(args[0])
		if err != nil {
			return nil, "", err
		}
		return []api.Release{{Prefix: target}}, fmt.Sprintf("release %s", api.TargetText(target)), nil
	}
	r, err := readReport(c.fromReport)
	if err != nil {
		return nil, "", err
	}
	for _, p := range r.Problems {
		if !p.Releasable {
			continue
		}
		if !p.Address.IsValid() || p.Owner == nil {
			return nil, "", api.Errorf(api.CodeInvalid, "%s: a releasable problem has no address or no owner", c.fromReport)
		}
		wanted = append(wanted, api.Release{Prefix: netip.PrefixFrom(p.Address, p.Address.BitLen()), Owner: p.Owner})
	}
	return wanted, fmt.Sprintf("release %d leases that %s calls releasable", len(wanted), c.fromReport), nil
}

// releaseAll goes on past what is refused and returns both what was done and
// what was not.
func releaseAll(ctx context.Context, cl *client.Client, wanted []api.Release) ([]release, error) {
	var done []release
	var errs []error
	for _, w := range wanted {
		was, err := cl.Release(ctx, w)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", api.TargetText(w.Prefix), err))
			if ctx.Err() != nil {
				break // the others would meet the same
			}
			continue // another node's may be released
		}
		done = append(done, release{Target: api.TargetText(w.Prefix), Released: was})
	}
	return done, errors.Join(errs...)
}
