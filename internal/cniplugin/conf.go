package cniplugin

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"stellar.io/stellar/api"
)

// defaultTimeout bounds a call. nerdctl makes all calls of a node under one lock,
// so one that waits keeps every other container from starting.
const defaultTimeout = 5 * time.Second

// agentConf says where the agent is and how long it is waited for. stellar-cni
// has it at the top of its configuration, stellar-cni-ipam in the section ipam.
type agentConf struct {
	Address string `json:"address"` // empty: $STELLAR_ADDRESS, then api.DefaultAddress
	Timeout string `json:"timeout"` // as in time.ParseDuration; empty: defaultTimeout
}

// conf is a plugin's network configuration. Keys that are not here are ignored,
// as is custom among plugins; a key of the wrong type is an error.
type conf struct {
	CNIVersion string `json:"cniVersion"`
	Name       string `json:"name"`
	agentConf
	MTU  int       `json:"mtu"` // 0: the node's
	DNS  types.DNS `json:"dns"` // handed back as it is
	IPAM struct {
		Type string `json:"type"`
		agentConf
		// Routes are handed back in place of the default route; nil: the default route.
		Routes *[]*types.Route `json:"routes"`
	} `json:"ipam"`

	Args struct {
		CNI struct {
			IPs []string `json:"ips"`
			MAC string   `json:"mac"`
		} `json:"cni"`
	} `json:"args"`
	RuntimeConfig struct {
		IPs          []string          `json:"ips"`
		MAC          string            `json:"mac"`
		PortMappings []json.RawMessage `json:"portMappings"`
	} `json:"runtimeConfig"`

	PrevResult map[string]any `json:"prevResult"`
}

// parseConf reads all of a configuration; skel has seen to it that it is JSON and
// names its network.
func parseConf(stdin []byte) (*conf, *types.Error) {
	c := new(conf)
	if err := decode(stdin, c); err != nil {
		return nil, err
	}
	if c.MTU < 0 {
		return nil, badConf("mtu %d is negative", c.MTU)
	}
	return c, nil
}

// lookup is what DEL and GC need; they must not fail over what only ADD needs.
type lookup struct {
	Name string
	agentConf
	Valid *[]types.GCAttachment // GC; nil: the caller does not say
}

// parseLookup reads no more of a configuration than lookup.
func (p *plugin) parseLookup(stdin []byte) (lookup, *types.Error) {
	var c struct {
		Name  string                `json:"name"`
		Valid *[]types.GCAttachment `json:"cni.dev/valid-attachments"`
		IPAM  json.RawMessage       `json:"ipam"`
	}
	if err := decode(stdin, &c); err != nil {
		return lookup{}, err
	}
	out := lookup{Name: c.Name, Valid: c.Valid}
	if !p.ipamOnly {
		return out, decode(stdin, &out.agentConf)
	}
	if len(c.IPAM) == 0 {
		return out, nil
	}
	return out, decode(c.IPAM, &out.agentConf)
}

func decode(stdin []byte, v any) *types.Error {
	err := json.Unmarshal(stdin, v)
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		// Fields of an embedded struct are named after it, which no user has written.
		field := strings.ReplaceAll(e.Field, "agentConf.", "")
		return badConf("%s is a JSON %s, which is not what belongs there", cmp.Or(field, "the configuration"), e.Value)
	}
	return badConf("%v", err)
}

func badConf(format string, a ...any) *types.Error {
	return types.NewError(types.ErrInvalidNetworkConfig, "network configuration: "+fmt.Sprintf(format, a...), "")
}

// timeout is how long a call may take in all.
func (c agentConf) timeout() (time.Duration, *types.Error) {
	if c.Timeout == "" {
		return defaultTimeout, nil
	}
	d, err := time.ParseDuration(c.Timeout)
	if err != nil || d <= 0 {
		return 0, badConf("timeout %s is not a time like \"5s\"", quoted(c.Timeout))
	}
	return d, nil
}

// address is where the agent serves.
func (c agentConf) address(getenv func(string) string) string {
	return cmp.Or(c.Address, getenv("STELLAR_ADDRESS"), api.DefaultAddress)
}
