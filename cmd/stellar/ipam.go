package main

import (
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"stellar.io/stellar/api"
)

func (a *app) ipamCommand() *cobra.Command {
	return group("ipam", "Subnets and addresses", "",
		a.ipamLsCommand(), a.ipamShowCommand(), a.ipamReserveCommand(), a.ipamReleaseCommand(), a.ipamCheckCommand())
}

var subnetList = listing[api.Subnet]{
	kind: "SubnetList",
	name: func(s api.Subnet) string { return prefixCell(s.Subnet) },
	columns: []column[api.Subnet]{
		{head: "SUBNET", cell: func(s api.Subnet) string { return prefixCell(s.Subnet) }},
		{head: "NODE", cell: func(s api.Subnet) string { return s.Node }},
		{head: "USED", cell: func(s api.Subnet) string { return strconv.Itoa(s.Used) }},
		{head: "FREE", cell: func(s api.Subnet) string { return strconv.Itoa(s.Free) }},
		{head: "COOLING", cell: func(s api.Subnet) string { return strconv.Itoa(s.Cooling) }},
		{head: "STATE", cell: func(s api.Subnet) string { return s.State }},
		{head: "NETWORK", wide: true, cell: func(s api.Subnet) string { return s.Network }},
		{head: "EPOCH", wide: true, cell: func(s api.Subnet) string { return s.Epoch }},
		{head: "RESERVED", wide: true, cell: func(s api.Subnet) string { return strconv.Itoa(s.Reserved) }},
	},
}

type ipamLs struct {
	app *app
	freshness
}

func (a *app) ipamLsCommand() *cobra.Command {
	c := &ipamLs{app: a}
	cmd := &cobra.Command{Use: "ls", Aliases: aliases("ls"), Short: "List subnets and their use", Args: cobra.NoArgs}
	c.add(cmd)
	return a.attach(cmd, c, callTimeout)
}

func (c *ipamLs) Run(ctx context.Context, _ []string, stdout, _ io.Writer) error {
	cl, err := c.app.dial()
	if err != nil {
		return err
	}
	defer cl.Close()
	items, err := c.of(cl).Subnets(ctx)
	if err != nil {
		return err
	}
	return subnetList.print(c.app, stdout, items)
}

type ipamShow struct {
	app *app
	freshness
}

func (a *app) ipamShowCommand() *cobra.Command {
	c := &ipamShow{app: a}
	cmd := &cobra.Command{Use: "show IP", Short: "Show who has an address", Args: cobra.ExactArgs(1)}
	c.add(cmd)
	return a.attach(cmd, c, callTimeout)
}

func (c *ipamShow) Run(ctx context.Context, args []string, stdout, _ io.Writer) error {
	ip, err := api.ParseAddress(args[0])
	if err != nil {
		return err
	}
	cl, err := c.app.dial()
	if err != nil {
		return err
	}
	defer cl.Close()
	got, err := c.of(cl).Address(ctx, ip)
	if err != nil {
		return err
	}
	return printObject(c.app, stdout, "Address", got, addrCell(got.Address), []field{
		{"Address", addrCell(got.Address)}, {"State", got.State}, {"Owner", ownerCell(got.Owner)},
		{"Subnet", prefixCell(got.Subnet)}, {"Node", got.Node}, {"Static", yesNo(got.Static)},
		{"Provisional", yesNo(got.Provisional)}, {"Hostname", got.Hostname}, {"Reason", got.Reason}, {"Since", timeCell(got.Since)},
	})
}

// ownerCell writes an owner as people look for it: kind, container, interface.
func ownerCell(o *api.Owner) string {
	if o == nil {
		return ""
	}
	return fmt.Sprintf("%s %s/%s %s", o.Kind, o.Namespace, o.Container, o.Ifname)
}

type ipamReserve struct {
	app    *app
	reason string
}

func (a *app) ipamReserveCommand() *cobra.Command {
	c := &ipamReserve{app: a}
	cmd := &cobra.Command{Use: "reserve IP|BLOCK", Short: "Keep an address or a block from being handed out", Args: cobra.ExactArgs(1)}
	cmd.Flags().StringVar(&c.reason, "reason", "", "why, for those who look later")
	return a.attach(cmd, c, callTimeout)
}

func (c *ipamReserve) Run(ctx context.Context, args []string, stdout, _ io.Writer) error {
	target, err := api.ParseTarget(args[0])
	if err != nil {
		return err
	}
	cl, err := c.app.dial()
	if err != nil {
		return err
	}
	defer cl.Close()
	if err := cl.Reserve(ctx, api.Reservation{Prefix: target, Reason: c.reason}); err != nil {
		return err
	}
	body := struct {
		Target string `json:"target"`
		Reason string `json:"reason"`
	}{api.TargetText(target), c.reason}
	return printObject(c.app, stdout, "Reservation", body, body.Target, []field{{"Reserved", body.Target}, {"Reason", c.reason}})
}
