package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/client"
)

func (a *app) endpointCommand() *cobra.Command {
	return group("endpoint", "Containers of this node that asked for a network", "",
		a.endpointLsCommand("ls"), a.endpointInspectCommand(), a.endpointAttachCommand(), a.endpointDetachCommand(),
		a.endpointRepairCommand())
}

// psCommand is `endpoint ls` by the name that fingers know.
func (a *app) psCommand() *cobra.Command {
	c := a.endpointLsCommand("ps")
	c.Short = "The same as `stellar endpoint ls`"
	return c
}

// endpointList is how endpoints are listed at the given time, with ids in full or
// as people know them.
func endpointList(now time.Time, full bool) listing[api.Endpoint] {
	id := idCell
	if full {
		id = func(s string) string { return s }
	}
	return listing[api.Endpoint]{
		kind: "EndpointList",
		name: func(e api.Endpoint) string { return e.Ref().String() },
		columns: []column[api.Endpoint]{
			{head: "CONTAINER", cell: func(e api.Endpoint) string { return id(e.Container) }},
			{head: "NETWORK", cell: func(e api.Endpoint) string { return e.Network }},
			{head: "IP", cell: func(e api.Endpoint) string { return addrCell(e.Address) }},
			{head: "NODE", cell: func(e api.Endpoint) string { return e.Node }},
			{head: "STATE", cell: func(e api.Endpoint) string { return e.State }},
			{head: "AGE", cell: func(e api.Endpoint) string { return ageCell(now, e.Since) }},
			{head: "NAMESPACE", wide: true, cell: func(e api.Endpoint) string { return e.Namespace }},
			{head: "MAC", wide: true, cell: func(e api.Endpoint) string { return e.MAC }},
			{head: "IFNAME", wide: true, cell: func(e api.Endpoint) string { return e.Ifname }},
			{head: "HOST-IF", wide: true, cell: func(e api.Endpoint) string { return e.HostIfname }},
			{head: "READY", wide: true, cell: func(e api.Endpoint) string { return e.Ready }},
			{head: "SOURCE", wide: true, cell: func(e api.Endpoint) string { return e.Source }},
			{head: "REASON", wide: true, cell: func(e api.Endpoint) string { return e.Reason }},
		},
	}
}

type endpointLs struct {
	app       *app
	namespace string
}

func (a *app) endpointLsCommand(name string) *cobra.Command {
	c := &endpointLs{app: a}
	cmd := &cobra.Command{Use: name, Aliases: aliases(name), Short: "List endpoints", Args: cobra.NoArgs}
	cmd.Flags().StringVarP(&c.namespace, "namespace", "n", "", "only this namespace of containerd")
	return a.attach(cmd, c, callTimeout)
}

// aliases lets `list` stand for every `ls`.
func aliases(name string) []string {
	if name == "ls" {
		return []string{"list"}
	}
	return nil
}

func (c *endpointLs) Run(ctx context.Context, _ []string, stdout, stderr io.Writer) error {
	cl, err := c.app.dial()
	if err != nil {
		return err
	}
	defer cl.Close()
	items, err := cl.Endpoints(ctx, c.namespace)
	if err != nil {
		return err
	}
	if err := endpointList(time.Now(), c.app.output == formatWide).print(c.app, stdout, items); err != nil {
		return err
	}
	if c.app.output != formatTable {
		return nil
	}
	var unwell int
	for _, e := range items {
		if e.State == api.StateRejected || e.State == api.StateRetrying {
			unwell++
		}
	}
	if unwell > 0 {
		fmt.Fprintf(stderr, "%d without a network; `stellar endpoint ls -o wide` says why\n", unwell)
	}
	return nil
}

// refFlags reads CONTAINER or NAMESPACE/CONTAINER together with -n.
type refFlags struct{ namespace string }

func (r *refFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&r.namespace, "namespace", "n", "", "containerd's namespace, where several have such a container")
}

func (r *refFlags) ref(arg string) api.EndpointRef {
	ref := api.ParseEndpointRef(arg)
	if ref.Namespace == "" {
		ref.Namespace = r.namespace
	}
	return ref
}

type endpointInspect struct {
	app *app
	refFlags
}

func (a *app) endpointInspectCommand() *cobra.Command {
	c := &endpointInspect{app: a}
	cmd := &cobra.Command{
		Use: "inspect CONTAINER", Short: "Show all about one endpoint",
		Long: "CONTAINER is a container id, the first digits of a long one, or NAMESPACE/ID.",
		Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeEndpoints,
	}
	c.add(cmd)
	return a.attach(cmd, c, callTimeout)
}

func (c *endpointInspect) Run(ctx context.Context, args []string, stdout, _ io.Writer) error {
	cl, err := c.app.dial()
	if err != nil {
		return err
	}
	defer cl.Close()
	d, err := cl.Endpoint(ctx, c.ref(args[0]))
	if err != nil {
		return err
	}
	return printObject(c.app, stdout, "Endpoint", d, d.Ref().String(), endpointFields(d))
}

func endpointFields(d api.EndpointDetail) []field {
	number := func(n uint64) string {
		if n == 0 {
			return ""
		}
		return fmt.Sprint(n)
	}
	fields := []field{
		{"Container", d.Container}, {"Namespace", d.Namespace}, {"State", d.State}, {"Reason", d.Reason},
		{"Since", timeCell(d.Since)}, {"Network", d.Network}, {"Address", addrCell(d.Address)},
		{"Subnet", prefixCell(d.Subnet)}, {"Gateway", addrCell(d.Gateway)}, {"Default route", yesNo(d.DefaultRoute)},
		{"Static", yesNo(d.Static)}, {"Lease", d.LeaseState}, {"Provisional", yesNo(d.Provisional)},
		{"MAC", d.MAC}, {"MTU", number(uint64(d.MTU))}, {"Ifname", d.Ifname}, {"Host interface", d.HostIfname},
		{"Hostname", d.Hostname}, {"Node", d.Node}, {"Ready", d.Ready}, {"Strict", yesNo(d.Strict)}, {"Source", d.Source},
		{"Created", timeCell(d.Created)}, {"PID", number(uint64(d.PID))}, {"Network namespace", number(d.NetNS)},
	}
	for _, p := range d.Phases {
		fields = append(fields, field{"Phase " + p.Name, p.Duration.String()})
	}
	for _, w := range d.Warnings {
		fields = append(fields, field{"Warning", w})
	}
	return fields
}

type endpointRepair struct {
	app *app
	refFlags
	all bool
}

func (a *app) endpointRepairCommand() *cobra.Command {
	c := &endpointRepair{app: a}
	cmd := &cobra.Command{
		Use: "repair CONTAINER… | --all", Short: "Look at endpoints now and put right what is wrong",
		Args: func(_ *cobra.Command, args []string) error {
			if (len(args) > 0) == c.all {
				return errors.New("name containers, or say --all")
			}
			return nil
		},
		ValidArgsFunction: a.completeEndpoints,
	}
	c.add(cmd)
	cmd.Flags().BoolVar(&c.all, "all", false, "all endpoints of this node (of one namespace with -n)")
	return a.attach(cmd, c, waitTimeout)
}

var repairList = listing[api.Repair]{
	kind: "RepairList",
	name: func(r api.Repair) string { return r.Endpoint.Ref().String() },
	columns: []column[api.Repair]{
		{head: "CONTAINER", cell: func(r api.Repair) string { return idCell(r.Endpoint.Container) }},
		{head: "STATE", cell: func(r api.Repair) string { return r.Endpoint.State }},
		{head: "REPAIRED", cell: func(r api.Repair) string { return strings.Join(r.Repaired, ", ") }},
	},
}

// Run goes on past a container that fails, prints what was done for the others
// and returns what failed.
func (c *endpointRepair) Run(ctx context.Context, args []string, stdout, _ io.Writer) error {
	cl, err := c.app.dial()
	if err != nil {
		return err
	}
	defer cl.Close()
	refs, err := c.targets(ctx, cl, args)
	if err != nil {
		return err
	}
	var done []api.Repair
	var errs []error
	for _, ref := range refs {
		r, err := cl.RepairEndpoint(ctx, ref)
		if err != nil {
			errs = append(errs, err)
			if code := api.CodeOf(err); code == api.CodeUnreachable || code == api.CodeTimeout {
				break // the others would meet the same
			}
			continue
		}
		if r.Repaired == nil {
			r.Repaired = []string{}
		}
		done = append(done, r)
	}
	return errors.Join(append(errs, repairList.print(c.app, stdout, done))...)
}

func (c *endpointRepair) targets(ctx context.Context, cl *client.Client, args []string) ([]api.EndpointRef, error) {
	var refs []api.EndpointRef
	for _, arg := range args {
		refs = append(refs, c.ref(arg))
	}
	if !c.all {
		return refs, nil
	}
	items, err := cl.Endpoints(ctx, c.namespace)
	for _, e := range items {
		refs = append(refs, e.Ref())
	}
	return refs, err
}

// completeEndpoints offers the containers of this node to the shell.
func (a *app) completeEndpoints(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), time.Second)
	defer cancel()
	cl, err := a.dial()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer cl.Close()
	items, err := cl.Endpoints(ctx, "")
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, e := range items {
		out = append(out, e.Container)
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
