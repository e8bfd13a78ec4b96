package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"stellar.io/stellar/api"
)

type endpointAttach struct {
	app *app
	refFlags
	ip, mac, ifname, hostname string
	mtu                       int
}

func (a *app) endpointAttachCommand() *cobra.Command {
	c := &endpointAttach{app: a}
	cmd := &cobra.Command{
		Use: "attach CONTAINER", Short: "Give a running container a network by hand",
		Long: "CONTAINER is a container id, the first digits of a long one, or NAMESPACE/ID. It\n" +
			"needs no label; what is not said here is taken from its labels, if it has any, and\n" +
			"from the node. The network stays until `stellar endpoint detach`, or until the\n" +
			"container is deleted.",
		Args: cobra.ExactArgs(1),
	}
	c.add(cmd)
	f := cmd.Flags()
	f.StringVar(&c.ip, "ip", "", "this address of the node's subnet (default: any)")
	f.StringVar(&c.mac, "mac", "", "this MAC address (default: made from the address)")
	f.StringVar(&c.ifname, "ifname", "", "name of the interface (default eth0, or stellar0 beside another network)")
	f.StringVar(&c.hostname, "hostname", "", "host name to record and show")
	f.IntVar(&c.mtu, "mtu", 0, "MTU in bytes (default: the node's)")
	return a.attach(cmd, c, waitTimeout)
}

func (c *endpointAttach) Run(ctx context.Context, args []string, stdout, _ io.Writer) error {
	r, err := c.request(args[0])
	if err != nil {
		return err
	}
	cl, err := c.app.dial()
	if err != nil {
		return err
	}
	defer cl.Close()
	e, err := cl.Attach(ctx, r)
	if err != nil {
		return err
	}
	return endpointList(time.Now(), c.app.output == formatWide).print(c.app, stdout, []api.Endpoint{e})
}

// request reads the flags; the agent judges what they ask for.
func (c *endpointAttach) request(container string) (r api.AttachRequest, err error) {
	r = api.AttachRequest{Ref: c.ref(container), MAC: c.mac, Hostname: c.hostname, MTU: c.mtu}
	r.Ref.Ifname = c.ifname
	if c.ip != "" {
		if r.Address, err = api.ParseAddress(c.ip); err != nil {
			return r, err
		}
	}
	if hw, err := net.ParseMAC(c.mac); c.mac != "" && (err != nil || len(hw) != 6) {
		return r, api.Errorf(api.CodeInvalid, "%q is not a MAC address", c.mac)
	}
	const most = 65535
	if c.mtu < 0 || c.mtu > most {
		return r, api.Errorf(api.CodeInvalid, "--mtu %d is not between 0 and %d", c.mtu, most)
	}
	return r, nil
}

type endpointDetach struct {
	app *app
	refFlags
	ifname string
}

func (a *app) endpointDetachCommand() *cobra.Command {
	c := &endpointDetach{app: a}
	cmd := &cobra.Command{
		Use: "detach CONTAINER…", Short: "Take the network of containers away",
		Long: "Removes the interface, and prints what it was. Connections through it end.\n" +
			"CONTAINER is a container id, the first digits of a long one, or NAMESPACE/ID.",
		Args: cobra.MinimumNArgs(1), ValidArgsFunction: a.completeEndpoints,
	}
	c.add(cmd)
	cmd.Flags().StringVar(&c.ifname, "ifname", "", "the interface, where a container has several endpoints")
	return a.attach(cmd, c, waitTimeout)
}

// Run goes on past a container that fails, prints what the others had and
// returns what failed.
func (c *endpointDetach) Run(ctx context.Context, args []string, stdout, _ io.Writer) error {
	cl, err := c.app.dial()
	if err != nil {
		return err
	}
	defer cl.Close()
	if err := c.app.confirm(fmt.Sprintf("take the network away from %s", printable(strings.Join(args, ", ")))); err != nil {
		return err
	}
	var done []api.Endpoint
	var errs []error
	for _, arg := range args {
		ref := c.ref(arg)
		ref.Ifname = c.ifname
		e, err := cl.Detach(ctx, ref)
		if err != nil {
			errs = append(errs, err)
			if code := api.CodeOf(err); code == api.CodeUnreachable || code == api.CodeTimeout {
				break // the others would meet the same
			}
			continue
		}
		done = append(done, e)
	}
	list := endpointList(time.Now(), c.app.output == formatWide)
	return errors.Join(append(errs, list.print(c.app, stdout, done))...)
}
