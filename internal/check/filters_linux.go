package check

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"stellar.io/stellar/internal/firewall"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/netsetup"
)

// programTimeout bounds how long nft or iptables may take to list what there is.
const programTimeout = 10 * time.Second

// guardLooks is how often the guard's tables are looked at before something counts as
// lacking, settle apart: an agent that runs puts it back within about a second.
const (
	guardLooks        = 7
	guardLooksNoAgent = 2
)

// filters reads all packet filters of the namespace, as their own programs list them.
func (c *collector) filters(ctx context.Context) error {
	saved, managed, err := iptables(ctx)
	if err != nil {
		return err
	}
	data, err := list(ctx, "nft", "-j", "list", "ruleset")
	if err != nil {
		return err
	}
	text, err := list(ctx, "nft", "-a", "list", "ruleset")
	if err != nil {
		return err
	}
	rules, err := firewall.ParseNFT([]byte(data), text, func(family, table string) bool { return family == "ip" && managed[table] })
	if err != nil {
		return err
	}
	rules.Append(saved)
	c.f.Filters, c.f.FiltersRead = rules, true
	return nil
}

// iptables returns what both kinds of iptables have, and which nftables tables are
// iptables-nft's: it alone can list what its extensions do.
func iptables(ctx context.Context) (firewall.Ruleset, map[string]bool, error) {
	var out firewall.Ruleset
	managed := map[string]bool{}
	text, err := list(ctx, "iptables-nft-save")
	switch {
	case errors.Is(err, exec.ErrNotFound): // then nobody has used it
	case err != nil:
		return out, nil, err
	default:
		for line := range strings.Lines(text) {
			if table, ok := strings.CutPrefix(strings.TrimSpace(line), "*"); ok {
				managed[table] = true
			}
		}
		out.Append(firewall.ParseIptables("iptables-nft", text))
	}
	// The program would make the tables that it is asked for.
	if names, err := os.ReadFile("/proc/thread-self/net/ip_tables_names"); err == nil && len(bytes.TrimSpace(names)) > 0 {
		if text, err = list(ctx, "iptables-legacy-save"); err != nil {
			return out, nil, err
		}
		out.Append(firewall.ParseIptables("iptables-legacy", text))
	}
	return out, managed, nil
}

// list runs a program that only lists, also where a service's PATH does not lead.
func list(ctx context.Context, name string, args ...string) (string, error) {
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin/", "/sbin/"} {
		if err == nil {
			break
		}
		path, err = exec.LookPath(dir + name)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, exec.ErrNotFound)
	}
	ctx, cancel := context.WithTimeout(ctx, programTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var problems bytes.Buffer
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(problems.String()))
	}
	return string(out), nil
}

// guard looks at our own tables. Without a container they keep nobody from anything.
func (c *collector) guard(ctx context.Context) error {
	if !c.f.Subnet.IsValid() || len(c.f.Endpoints) == 0 {
		return nil
	}
	mode, looks := ipam.ModeBridge, guardLooks
	if c.f.Routed {
		mode = ipam.ModeRouted
	}
	if c.f.AgentDown != "" {
		looks = guardLooksNoAgent
	}
	lacks, err := netsetup.LookGuard(-1, mode)
	for try := 1; err == nil && try < looks && !lacks.Complete(); try++ {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(settle):
		}
		var later netsetup.Guard
		later, err = netsetup.LookGuard(-1, mode)
		lacks = lacks.Still(later)
	}
	if err != nil {
		return err // what was seen before may have been a moment's
	}
	c.f.Guard = lacks
	return nil
}
