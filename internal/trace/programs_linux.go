package trace

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"stellar.io/stellar/internal/firewall"
	"stellar.io/stellar/internal/nsx"
)

// programTimeout bounds each program that lists rules.
const programTimeout = 5 * time.Second

// run runs a program in the namespace ns, -1 is the process's own, and returns what
// it printed; found is false where it is not installed.
func run(ctx context.Context, ns int, program string, args ...string) (out []byte, found bool, err error) {
	path := find(program)
	if path == "" {
		return nil, false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, programTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	// The child inherits the namespace of the thread that starts it.
	if ns < 0 {
		err = cmd.Run()
	} else {
		err = nsx.Do(ns, cmd.Run)
	}
	if err != nil {
		return nil, true, fmt.Errorf("%s: %w: %s", program, err, strings.TrimSpace(stderr.String()))
	}
	return stdout.Bytes(), true, nil
}

// find also looks where a service's PATH may not lead.
func find(program string) string {
	if path, err := exec.LookPath(program); err == nil {
		return path
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, program)); err == nil {
			return path
		}
	}
	return ""
}

// rulesets reads all that filters packets in a namespace. What cannot be read is a
// doubt, not an error: the rest of the way is to be seen all the same.
func rulesets(ctx context.Context, ns int) firewall.Ruleset {
	var out firewall.Ruleset
	doubt := func(format string, args ...any) { out.Doubts = append(out.Doubts, fmt.Sprintf(format, args...)) }
	saved := savedTables(ctx, ns, &out, doubt)
	text, found, err := run(ctx, ns, "nft", "-j", "list", "ruleset")
	switch {
	case !found:
		doubt("nft is not installed: nftables rules cannot be read (apt install nftables)")
		return out
	case err != nil:
		doubt("%v", err)
		return out
	}
	shown, _, err := run(ctx, ns, "nft", "-a", "list", "ruleset")
	if err != nil {
		shown = nil // the rules are shown as JSON
	}
	rules, err := firewall.ParseNFT(text, string(shown), func(family, table string) bool { return family == "ip" && slices.Contains(saved, table) })
	if err != nil {
		doubt("%v", err)
		return out
	}
	out.Append(rules)
	return out
}

// savedTables adds what both kinds of iptables list, and returns the tables that are
// nftables' own underneath.
func savedTables(ctx context.Context, ns int, out *firewall.Ruleset, doubt func(string, ...any)) (tables []string) {
	for _, program := range []string{"iptables-nft", "iptables-legacy"} {
		if program == "iptables-legacy" && !legacyTables(ns) {
			continue
		}
		text, found, err := run(ctx, ns, program+"-save")
		if !found && program == "iptables-legacy" {
			doubt("legacy iptables has tables, and iptables-legacy-save is not installed")
		}
		if err != nil {
			doubt("%v", err)
		}
		if !found || err != nil {
			continue
		}
		rules := firewall.ParseIptables(program, string(text))
		rules.Doubts = nil // what it cannot list, nft does
		out.Append(rules)
		for _, c := range rules.Chains {
			if program == "iptables-nft" && !slices.Contains(tables, c.Table) {
				tables = append(tables, c.Table)
			}
		}
	}
	return tables
}

// legacyTables reports whether legacy iptables has tables in the namespace. Its
// programs would make them by asking.
func legacyTables(ns int) (yes bool) {
	look := func() error {
		b, err := os.ReadFile("/proc/thread-self/net/ip_tables_names")
		yes = len(bytes.TrimSpace(b)) > 0
		return err
	}
	if ns < 0 {
		_ = look() // a kernel without legacy iptables has no such file
		return yes
	}
	_ = nsx.Do(ns, look)
	return yes
}

// trafficControl reads the filters of tc that may drop, by interface. Without tc
// nothing is known of them.
func trafficControl(ctx context.Context, ns int) map[string]TC {
	out := map[string]TC{}
	text, found, err := run(ctx, ns, "tc", "-j", "qdisc", "show")
	if !found || err != nil {
		return out
	}
	var qdiscs []struct{ Kind, Dev string }
	if json.Unmarshal(text, &qdiscs) != nil {
		return out
	}
	for _, q := range qdiscs {
		if q.Kind != "clsact" && q.Kind != "ingress" {
			continue
		}
		t := out[q.Dev]
		for _, side := range []string{"ingress", "egress"} {
			text, _, err := run(ctx, ns, "tc", "-j", "filter", "show", "dev", q.Dev, side)
			if err != nil {
				continue // ingress alone has no egress
			}
			filters := droppingFilters(text, q.Dev, side)
			if side == "ingress" {
				t.Ingress = filters
			} else {
				t.Egress = filters
			}
		}
		out[q.Dev] = t
	}
	return out
}

// droppingFilters reads `tc -j filter show`: what drops everything, and what may drop.
func droppingFilters(text []byte, dev, side string) []TCFilter {
	var list []struct {
		Protocol string
		Pref     int
		Kind     string
		Options  *struct {
			DirectAction bool `json:"direct-action"`
			Name         string
			BpfName      string `json:"bpf_name"`
			Bytecode     *struct{ Insns []struct{ Code, K int } }
			Actions      []struct {
				ControlAction struct{ Type string } `json:"control_action"`
			}
		}
	}
	if json.Unmarshal(text, &list) != nil {
		return nil
	}
	const ret, shot = 0x06, 2 // BPF_RET|BPF_K, TC_ACT_SHOT
	var out []TCFilter
	for _, l := range list {
		if l.Options == nil || l.Protocol != "all" && l.Protocol != "ip" && l.Protocol != "arp" {
			continue
		}
		t := TCFilter{
			Text: fmt.Sprintf("%s of %s, pref %d, %s", side, dev, l.Pref, l.Kind),
			Mend: fmt.Sprintf("tc filter del dev %s %s pref %d", dev, side, l.Pref),
		}
		drops := false
		for _, a := range l.Options.Actions {
			drops = drops || a.ControlAction.Type == "drop"
		}
		t.Certain = drops && l.Kind == "matchall"
		if l.Options.DirectAction {
			drops = true
			if b := l.Options.Bytecode; b != nil && len(b.Insns) == 1 && b.Insns[0].Code == ret {
				drops, t.Certain = b.Insns[0].K == shot, b.Insns[0].K == shot
			}
			if l.Options.BpfName != "" {
				t.Text += " " + l.Options.BpfName
			}
		}
		if drops {
			out = append(out, t)
		}
	}
	return out
}

func (k *collector) traffic(ctx context.Context) {
	k.f.Host.TC = trafficControl(ctx, -1)
}

// xfrmBlocks reads the IPsec policies that block.
func xfrmBlocks(ctx context.Context) []XfrmBlock {
	text, found, err := run(ctx, -1, "ip", "xfrm", "policy", "list")
	if !found || err != nil {
		return nil
	}
	return parseXfrm(string(text))
}

// parseXfrm reads `ip xfrm policy list`: a line with the selector, then indented ones.
func parseXfrm(text string) []XfrmBlock {
	var out []XfrmBlock
	var at XfrmBlock
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		word := func(name string) string {
			if i := slices.Index(f, name); i >= 0 && i+1 < len(f) {
				return f[i+1]
			}
			return ""
		}
		switch {
		case strings.HasPrefix(line, "src "):
			at = XfrmBlock{Text: strings.TrimSpace(line)}
			at.Src, _ = netip.ParsePrefix(word("src"))
			at.Dst, _ = netip.ParsePrefix(word("dst"))
			at.Part = word("proto") != "" || word("sport") != "" || word("dport") != "" || word("dev") != ""
		case word("action") == "block" && at.Src.IsValid() && at.Dst.IsValid():
			at.Dir = word("dir")
			at.Text += " " + strings.TrimSpace(line)
			out = append(out, at)
		}
	}
	return out
}

// sysctls of the host's namespace.
func (k *collector) sysctls() {
	h := &k.f.Host
	read := func(path string) string {
		b, err := os.ReadFile("/proc/sys/net/" + path)
		if err != nil {
			return ""
		}
		return string(bytes.TrimSpace(b))
	}
	h.IPForward = read("ipv4/ip_forward")
	h.BridgeCall = read("bridge/bridge-nf-call-iptables") == "1"
	all := number(read("ipv4/conf/all/rp_filter"))
	for _, dev := range []string{k.f.door(), h.Uplink.Name, h.Arrival.Name, h.Own.Name} {
		if v := read("ipv4/conf/" + dev + "/forwarding"); v != "" && dev != "" {
			h.Forwarding[dev] = v
			h.RPFilter[dev] = max(all, number(read("ipv4/conf/"+dev+"/rp_filter")))
		}
	}
}
