package cniplugin

import (
	"fmt"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
)

// args are the CNI_ARGS that mean something to us.
type args struct {
	ips      []string // IP=, which may list several and come several times
	mac      string   // MAC=
	hostname string   // NERDCTL_CNI_DHCP_HOSTNAME=, which nerdctl sends for --hostname
}

// parseArgs reads CNI_ARGS, "KEY=VALUE;KEY=VALUE". Keys that others wrote are an
// error unless IgnoreUnknown is set; empty pairs are skipped.
func parseArgs(s string) (args, *types.Error) {
	var a args
	var unknown []string
	ignore := false
	for pair := range strings.SplitSeq(s, ";") {
		if pair == "" {
			continue
		}
		key, value, ok := strings.Cut(pair, "=")
		if !ok || key == "" {
			return args{}, badArgs("%s is not of the form KEY=VALUE", quoted(pair))
		}
		switch key {
		case "IgnoreUnknown":
			switch strings.ToLower(value) {
			case "1", "true":
				ignore = true
			case "0", "false":
				ignore = false
			default:
				return args{}, badArgs("IgnoreUnknown=%s is neither true nor false", quoted(value))
			}
		case "IP":
			for ip := range strings.SplitSeq(value, ",") {
				if ip != "" {
					a.ips = append(a.ips, ip)
				}
			}
		case "MAC":
			a.mac = value
		case "NERDCTL_CNI_DHCP_HOSTNAME":
			a.hostname = value
		default:
			unknown = append(unknown, key)
		}
	}
	if len(unknown) > 0 && !ignore {
		return args{}, badArgs("%s is not known here, and IgnoreUnknown is not set", quoted(unknown[0]))
	}
	return a, nil
}

func badArgs(format string, a ...any) *types.Error {
	return types.NewError(types.ErrInvalidEnvironmentVariables, "CNI_ARGS: "+fmt.Sprintf(format, a...), "")
}

// quoted makes text of others fit for a message.
func quoted(s string) string {
	const most = 64
	if len(s) > most {
		return fmt.Sprintf("%q…", s[:most])
	}
	return fmt.Sprintf("%q", s)
}
