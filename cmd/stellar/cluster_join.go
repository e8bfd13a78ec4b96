package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/client"
)

const (
	// peerPort is the node-to-node port unless another is named.
	peerPort = "9640"
	// maxTokenFile bounds what is read as a token.
	maxTokenFile = 4 << 10
	// tokenPrefix begins every token.
	tokenPrefix = "STELLAR1-"
)

type clusterJoin struct {
	app       *app
	tokenFile string
	replace   string
	follow    bool
}

func (a *app) clusterJoinCommand() *cobra.Command {
	c := &clusterJoin{app: a}
	cmd := &cobra.Command{
		Use: "join HOST:PORT", Short: "Make this node a member of a cluster",
		Long: "HOST:PORT is the node-to-node address of any server of the cluster; port " + peerPort + " if\n" +
			"none is given. The token, made there with `stellar cluster token create`, is read\n" +
			"from a file or, with -, from standard input: on a command line others would see it.\n" +
			"With --replace the node takes the place and the subnet of a member that is dead. A\n" +
			"member whose certificate has expired while it was off joins again with a fresh token,\n" +
			"without --replace: it keeps its subnet and what runs.",
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().StringVar(&c.tokenFile, "token-file", "", "file with the join token; - reads standard input")
	cmd.Flags().StringVar(&c.replace, "replace", "", "name of the dead member whose place this node takes")
	cmd.Flags().BoolVar(&c.follow, "follow", false, "follow a server instead of being a member of Raft; with a token of role node")
	return a.attach(cmd, c, waitTimeout)
}

func (c *clusterJoin) Run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	address, err := joinAddress(args[0])
	if err != nil {
		return err
	}
	token, err := c.readToken(stderr)
	if err != nil {
		return err
	}
	cl, err := c.app.dial()
	if err != nil {
		return err
	}
	defer cl.Close()
	got, err := cl.JoinCluster(ctx, api.JoinSpec{Address: address, Token: token, Replace: c.replace, Follow: c.follow})
	if err != nil {
		return err
	}
	if got.Warnings == nil {
		got.Warnings = []string{}
	}
	for _, w := range got.Warnings {
		fmt.Fprintf(stderr, "warning: %s\n", printable(w))
	}
	return printObject(c.app, stdout, "Membership", got, got.Cluster, []field{
		{"Cluster", got.Cluster}, {"Node", got.Node}, {"Role", got.Role}, {"Network", prefixCell(got.Network)}, {"Subnet", prefixCell(got.Subnet)},
	})
}

// joinAddress reads HOST:PORT or HOST. It repeats nothing that may be a token.
func joinAddress(arg string) (string, error) {
	if looksLikeToken(arg) {
		return "", api.Errorf(api.CodeInvalid, "that is a token, not HOST:PORT").
			WithHint("put it into a file and name that with --token-file; revoke this one, others may have seen it")
	}
	host, port, err := net.SplitHostPort(arg)
	if err != nil && !strings.ContainsAny(arg, ":[]") {
		host, port, err = arg, peerPort, nil
	}
	if n, e := strconv.ParseUint(port, 10, 16); err != nil || host == "" || e != nil || n == 0 {
		return "", api.Errorf(api.CodeInvalid, "%q is not HOST:PORT", arg)
	}
	return net.JoinHostPort(host, port), nil
}

func looksLikeToken(s string) bool {
	return strings.HasPrefix(strings.ToUpper(strings.TrimSpace(s)), tokenPrefix)
}

// readToken reads the token from where --token-file says. No error repeats it.
func (c *clusterJoin) readToken(stderr io.Writer) (api.Secret, error) {
	var from io.Reader = c.app.stdin
	switch {
	case c.tokenFile == "":
		return "", api.Errorf(api.CodeInvalid, "no token: say --token-file FILE, or --token-file - for standard input").
			WithHint("`stellar cluster token create` on a member makes one")
	case looksLikeToken(c.tokenFile):
		return "", api.Errorf(api.CodeInvalid, "--token-file names a file, not the token itself").WithHint("revoke this token, others may have seen it")
	case c.tokenFile != "-":
		f, err := os.Open(c.tokenFile)
		if err != nil {
			return "", fmt.Errorf("token: %w", err)
		}
		defer f.Close()
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o044 != 0 {
			fmt.Fprintf(stderr, "warning: %s can be read by others (mode %04o)\n", printable(c.tokenFile), info.Mode().Perm())
		}
		from = f
	}
	data, err := io.ReadAll(io.LimitReader(from, maxTokenFile+1))
	if err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	words := strings.Fields(string(data))
	if len(data) > maxTokenFile || len(words) != 1 {
		return "", api.Errorf(api.CodeInvalid, "what --token-file names does not hold one token alone")
	}
	return api.Secret(words[0]), nil
}

type clusterLeave struct {
	app   *app
	force bool
}

func (a *app) clusterLeaveCommand() *cobra.Command {
	c := &clusterLeave{app: a}
	cmd := &cobra.Command{
		Use: "leave", Short: "End the membership of this node, for good",
		Long: "Refused while endpoints run here, unless forced: running containers keep their\n" +
			"networks then, and the subnet is quarantined. The node can join again, as a new\n" +
			"member.",
		Args: cobra.NoArgs,
	}
	cmd.Flags().BoolVar(&c.force, "force", false, "even while endpoints run; quarantines the subnet")
	return a.attach(cmd, c, waitTimeout)
}

func (c *clusterLeave) Run(ctx context.Context, _ []string, stdout, _ io.Writer) error {
	cl, err := c.app.dial()
	if err != nil {
		return err
	}
	defer cl.Close()
	self, err := thisNode(ctx, cl)
	if err != nil {
		return err
	}
	fate := "becomes free"
	if c.force {
		fate = "is quarantined, and handed to nobody"
	}
	if err := c.app.confirm(fmt.Sprintf("leave the cluster for good as node %s: %s", self.Name, subnetFate(self, fate))); err != nil {
		return err
	}
	got, err := cl.LeaveCluster(ctx, c.force)
	if err != nil {
		return err
	}
	return printRemoval(c.app, stdout, got)
}

// thisNode returns the node that answers.
func thisNode(ctx context.Context, cl *client.Client) (api.Node, error) {
	all, err := cl.Nodes(ctx)
	if err != nil {
		return api.Node{}, err
	}
	for _, n := range all {
		if n.Self {
			return n, nil
		}
	}
	return api.Node{}, errors.New("the agent does not say which node it is")
}

func (a *app) clusterEndReclaimCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "end-reclaim", Short: "Let subnets be handed out again after a restore or a recovery",
		Long: "After a restore or a recovery the nodes re-claim the subnets that they hold, and no\n" +
			"subnet is handed out meanwhile. End that when `stellar node ls` shows each node that\n" +
			"is alive with its subnet: a node that comes later may find its subnet given away.",
		Args: cobra.NoArgs,
	}
	return a.attach(cmd, calling{a, func(ctx context.Context, cl *client.Client, _ []string, stdout io.Writer) error {
		if err := a.confirm("end the re-claim: subnets that no node has claimed stay quarantined, others are handed out"); err != nil {
			return err
		}
		g, err := cl.EndReclaim(ctx)
		if err != nil {
			return err
		}
		body := struct {
			Generation uint64 `json:"generation"`
		}{g}
		return printObject(a, stdout, "Generation", body, strconv.FormatUint(g, 10), []field{{"Generation", strconv.FormatUint(g, 10)}})
	}}, waitTimeout)
}
