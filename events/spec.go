package events

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/types/known/anypb"
)

// spec is the part of the OCI runtime spec that matters here.
type spec struct {
	Hostname    string            `json:"hostname"`
	Annotations map[string]string `json:"annotations"`
	Linux       *struct {
		Namespaces []struct {
			Type string `json:"type"`
			Path string `json:"path"`
		} `json:"namespaces"`
	} `json:"linux"`
}

// readSpec fills what the spec says. containerd stores it as JSON whatever the
// type's URL is called.
func (c *Container) readSpec(stored typeurl.Any) error {
	if len(stored.GetValue()) == 0 {
		return errors.New("the record has no spec")
	}
	var s spec
	if err := json.Unmarshal(stored.GetValue(), &s); err != nil {
		return fmt.Errorf("spec %q: %w", stored.GetTypeUrl(), err)
	}
	c.Hostname, c.Annotations = s.Hostname, s.Annotations
	if s.Linux == nil {
		return errors.New("the spec has no linux section")
	}
	c.NetNS = NetNSHost
	for _, ns := range s.Linux.Namespaces {
		if ns.Type != "network" {
			continue
		}
		c.NetNS, c.NetNSPath = NetNSNew, ""
		if ns.Path != "" {
			c.NetNS, c.NetNSPath = NetNSPath, ns.Path
		}
	}
	return nil
}

const (
	// nerdctlNetworks is nerdctl's label with a JSON list of networks.
	nerdctlNetworks = "nerdctl/networks"
	// ctrCNI is the record extension of `ctr run --cni`.
	ctrCNI = "ctr.cni-containerd.metadata"
)

// hasCNI reports whether somebody else gives the container a network. A label
// that cannot be read counts as one: then nothing is put in its way.
func hasCNI(labels map[string]string, extensions map[string]*anypb.Any) bool {
	if ext, ok := extensions[ctrCNI]; ok {
		var meta struct{ EnableCni *bool }
		if json.Unmarshal(ext.GetValue(), &meta) != nil || meta.EnableCni == nil || *meta.EnableCni {
			return true
		}
	}
	list, ok := labels[nerdctlNetworks]
	if !ok || list == "" {
		return false
	}
	var networks []string
	if err := json.Unmarshal([]byte(list), &networks); err != nil {
		return true
	}
	for _, n := range networks {
		switch {
		case n == "", n == "none", n == "host", strings.HasPrefix(n, "container:"), strings.HasPrefix(n, "ns:"):
		default:
			return true
		}
	}
	return false
}
