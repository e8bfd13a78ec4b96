// Package cniplugin is the two CNI plugins of Stellar: stellar-cni, which gives a
// namespace an interface, and stellar-cni-ipam, which hands out addresses for the
// interfaces of other plugins. Both only translate between CNI and the agent,
// which does the work and holds the state: a plugin that is killed leaves nothing
// half done but in the agent's care.
//
// CNI 0.3.1 to 1.1.0: ADD, DEL, CHECK, STATUS, GC, VERSION.
//
// DEL succeeds for what never was, however often it comes and without a namespace.
// It fails, with "try again later", where the agent does not answer: to report
// success would leak the address of an attachment that no containerd container
// stands for, since nobody would ask again.
package cniplugin

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"stellar.io/stellar/api"
	"stellar.io/stellar/internal/attachclient"
)

// Config says which plugin it is.
type Config struct {
	Name     string // of the program
	Version  string
	IPAMOnly bool // addresses without interfaces
}

// plugin is one call of a plugin.
type plugin struct {
	name     string
	ipamOnly bool
	getenv   func(string) string
	stderr   io.Writer
}

// Main serves the one call that environment and standard input describe, writes
// the answer to standard output and returns the exit code.
func Main(c Config) int {
	p := &plugin{name: c.Name, ipamOnly: c.IPAMOnly, getenv: os.Getenv, stderr: os.Stderr}
	// skel looks whether CNI_NETNS is this process's own namespace, too, but only
	// after ADD and DEL, when the answer has been given. add does it before; the
	// namespace of a DEL does not matter.
	override := isTrue(os.Getenv("CNI_NETNS_OVERRIDE"))
	os.Setenv("CNI_NETNS_OVERRIDE", "1")
	err := skel.PluginMainFuncsWithError(skel.CNIFuncs{
		Add:    func(a *skel.CmdArgs) error { return orNil(p.add(a, override)) },
		Del:    func(a *skel.CmdArgs) error { return orNil(p.del(a)) },
		Check:  func(a *skel.CmdArgs) error { return orNil(p.check(a)) },
		Status: func(a *skel.CmdArgs) error { return orNil(p.status(a)) },
		GC:     func(a *skel.CmdArgs) error { return orNil(p.gc(a)) },
	}, version.PluginSupports("0.3.1", "0.4.0", "1.0.0", "1.1.0"), c.Name+" "+c.Version+": CNI plugin of Stellar")
	if err == nil {
		return 0
	}
	if e := err.Print(); e != nil {
		fmt.Fprintf(os.Stderr, "%s: %v (and the error cannot be written: %v)\n", c.Name, err, e)
	}
	return 1
}

// orNil keeps a nil *types.Error from becoming an error that is not nil.
func orNil(err *types.Error) error {
	if err == nil {
		return nil
	}
	return err
}

func isTrue(s string) bool { return s == "1" || strings.EqualFold(s, "true") }

// attachment names what a call is about.
func (p *plugin) attachment(network string, a *skel.CmdArgs) api.Attachment {
	return api.Attachment{Network: network, ContainerID: a.ContainerID, Ifname: a.IfName, NetNS: a.Netns, IPAMOnly: p.ipamOnly}
}

// dial returns a client and the context that ends its call in time.
func (p *plugin) dial(c agentConf) (*attachclient.Client, context.Context, context.CancelFunc, *types.Error) {
	d, err := c.timeout()
	if err != nil {
		return nil, nil, nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), d)
	return attachclient.New(c.address(p.getenv)), ctx, cancel, nil
}

const (
	retryPause = 50 * time.Millisecond
	// restart is how long an agent that does not listen may be one that is being
	// restarted.
	restart = time.Second
)

// patiently makes a call, which is idempotent, again while the agent is only just
// starting: containers start while it is being updated, too.
func patiently(ctx context.Context, call func() error) error {
	var reason error // why it is not served yet
	for began := time.Now(); ; {
		err := call()
		switch code := api.CodeOf(err); {
		case code == api.CodeNoLeader || code == api.CodeUnhealthy: // a node that is up needs no leader
		case code == api.CodeUnreachable && time.Since(began) < restart:
		case code == api.CodeTimeout && reason != nil:
			return reason
		default:
			return err
		}
		reason = err
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
			return reason
		}
	}
}

// warn tells the person who reads the runtime's log.
func (p *plugin) warn(warnings []string) {
	for _, w := range warnings {
		fmt.Fprintf(p.stderr, "%s: warning: %s\n", p.name, w)
	}
}

// agentConf is the part of a configuration that is about the agent.
func (p *plugin) agentConf(c *conf) agentConf {
	if p.ipamOnly {
		return c.IPAM.agentConf
	}
	return c.agentConf
}

func (p *plugin) add(a *skel.CmdArgs, override bool) *types.Error {
	c, err := parseConf(a.StdinData)
	if err != nil {
		return err
	}
	given, err := parseArgs(a.Args)
	if err != nil {
		return err
	}
	w, err := p.wish(c, given)
	if err != nil {
		return err
	}
	prev, err := c.previous()
	if err != nil {
		return err
	}
	if !p.ipamOnly {
		if c.IPAM.Type != "" {
			return types.NewError(types.ErrInvalidNetworkConfig, "network configuration: stellar-cni hands out addresses itself, ipam.type "+quoted(c.IPAM.Type)+" has no place",
				"take the section ipam away, or use stellar-cni-ipam in it with another plugin")
		}
		if err := checkNamespace(a.Netns, override); err != nil {
			return err
		}
	}
	client, ctx, cancel, err := p.dial(p.agentConf(c))
	if err != nil {
		return err
	}
	defer cancel()
	spec := api.AttachmentSpec{Attachment: p.attachment(c.Name, a), Address: w.address, MTU: c.MTU}
	if !p.ipamOnly {
		spec.MAC, spec.Hostname = w.mac, w.hostname
	}
	var got api.AttachmentResult
	e := patiently(ctx, func() (e error) { got, e = client.Add(ctx, spec); return e })
	if e != nil {
		return fromAgent(e)
	}
	p.warn(append(w.warnings, got.Warnings...))
	if p.ipamOnly {
		return printed(c.addressResult(got), c.CNIVersion)
	}
	return printed(c.result(prev, got, a), c.CNIVersion)
}

func printed(r *current.Result, version string) *types.Error {
	if err := types.PrintResult(r, version); err != nil {
		return types.NewError(types.ErrIOFailure, "write the result: "+err.Error(), "")
	}
	return nil
}

func (p *plugin) del(a *skel.CmdArgs) *types.Error {
	c, err := p.parseLookup(a.StdinData)
	if err != nil {
		return err
	}
	client, ctx, cancel, err := p.dial(c.agentConf)
	if err != nil {
		return err
	}
	defer cancel()
	e := patiently(ctx, func() error { _, e := client.Del(ctx, p.attachment(c.Name, a)); return e })
	if e != nil && api.CodeOf(e) != api.CodeNotFound {
		return fromAgent(e)
	}
	return nil
}

func (p *plugin) check(a *skel.CmdArgs) *types.Error {
	c, err := parseConf(a.StdinData)
	if err != nil {
		return err
	}
	prev, err := c.previous()
	if err != nil {
		return err
	}
	if prev == nil {
		return badConf("CHECK needs prevResult, the result of ADD")
	}
	client, ctx, cancel, err := p.dial(p.agentConf(c))
	if err != nil {
		return err
	}
	defer cancel()
	k := api.AttachmentCheck{Attachment: p.attachment(c.Name, a)}
	if k.Address, k.MAC, err = ours(prev, a); err != nil {
		return err
	}
	if p.ipamOnly {
		k.MAC = ""
	}
	e := patiently(ctx, func() error { return client.Check(ctx, k) })
	if api.CodeOf(e) == api.CodeNotFound {
		return types.NewError(types.ErrUnknownContainer, e.Error(), "")
	}
	return fromAgent(e)
}

func (p *plugin) status(a *skel.CmdArgs) *types.Error {
	c, err := parseConf(a.StdinData)
	if err != nil {
		return err
	}
	client, ctx, cancel, err := p.dial(p.agentConf(c))
	if err != nil {
		return err
	}
	defer cancel()
	e := fromAgent(client.Ready(ctx))
	if e != nil {
		e.Code = types.ErrPluginNotAvailable
	}
	return e
}

func (p *plugin) gc(a *skel.CmdArgs) *types.Error {
	c, err := p.parseLookup(a.StdinData)
	if err != nil {
		return err
	}
	if c.Valid == nil {
		return types.NewError(types.ErrInvalidNetworkConfig, "network configuration: GC without cni.dev/valid-attachments would end every attachment of the network",
			"an empty list, [], says that none is valid")
	}
	client, ctx, cancel, err := p.dial(c.agentConf)
	if err != nil {
		return err
	}
	defer cancel()
	var valid []api.Attachment
	for _, v := range *c.Valid {
		valid = append(valid, api.Attachment{ContainerID: v.ContainerID, Ifname: v.IfName})
	}
	return fromAgent(patiently(ctx, func() error { _, e := client.Collect(ctx, c.Name, p.ipamOnly, valid); return e }))
}
