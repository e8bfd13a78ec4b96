package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"path/filepath"

	"github.com/spf13/cobra"

	"stellar.io/stellar/api"
	"stellar.io/stellar/internal/node"
	"stellar.io/stellar/internal/web"
)

type webCmd struct {
	app *app
	agentFlags
}

func (a *app) webCommand() *cobra.Command {
	c := &webCmd{app: a}
	cmd := &cobra.Command{
		Use: "web", Short: "Print the URL of this node's web page, with its token", Args: cobra.NoArgs,
		Long: "The page shows what the agent knows and changes nothing. It is off unless the\n" +
			"configuration has web.listen, and is served to this machine alone. Who has the URL\n" +
			"can read the page: the token in it is a password.",
	}
	c.add(cmd, "data-dir")
	return a.attach(cmd, c, callTimeout)
}

func (c *webCmd) Run(ctx context.Context, _ []string, stdout, _ io.Writer) error {
	cfg, err := c.resolve(c.app)
	if err != nil {
		return err
	}
	listen := cfg.Web.Listen
	if !listen.IsValid() {
		return api.Errorf(api.CodeNotFound, "there is no web page: web.listen is not set").
			WithHint("put `[web]` and `listen = \"127.0.0.1:9643\"` into the configuration file and restart the agent")
	}
	token, err := web.ReadToken(filepath.Join(cfg.DataDir, node.WebTokenFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return api.Errorf(api.CodeUnreachable, "the agent has made no token yet").WithHint("restart it: systemctl restart stellar")
	case errors.Is(err, fs.ErrPermission):
		return api.Errorf(api.CodeDenied, "%w", err).WithHint("run it as root")
	case err != nil:
		return err
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp4", listen.String())
	if err != nil {
		return api.Errorf(api.CodeUnreachable, "the web page does not answer: %w", err).WithHint("`systemctl status stellar` shows whether the agent runs")
	}
	conn.Close()
	url := web.URL(listen, token)
	if c.app.output == formatJSON {
		return printJSON(stdout, "WebPage", struct {
			URL string `json:"url"`
		}{url})
	}
	_, err = fmt.Fprintln(stdout, url)
	return err
}
