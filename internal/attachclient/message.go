package attachclient

import (
	"errors"
	"net/netip"

	"stellar.io/stellar/api"
)

// The messages of api/stellar/v1/attachments.proto in protobuf's JSON. A test
// holds them against the generated ones.

type attachment struct {
	Network     string `json:"network,omitempty"`
	ContainerID string `json:"containerId,omitempty"`
	Ifname      string `json:"ifname,omitempty"`
	NetNS       string `json:"netns,omitempty"`
}

type addRequest struct {
	Attachment attachment `json:"attachment"`
	Address    string     `json:"address,omitempty"`
	MAC        string     `json:"mac,omitempty"`
	Hostname   string     `json:"hostname,omitempty"`
	MTU        int32      `json:"mtu,omitempty"`
	IPAMOnly   bool       `json:"ipamOnly,omitempty"`
}

type addResponse struct {
	Address      string   `json:"address"`
	Gateway      string   `json:"gateway"`
	MAC          string   `json:"mac"`
	HostIfname   string   `json:"hostIfname"`
	HostMAC      string   `json:"hostMac"`
	Ifname       string   `json:"ifname"`
	MTU          int32    `json:"mtu"`
	Network      string   `json:"network"`
	Subnet       string   `json:"subnet"`
	DefaultRoute bool     `json:"defaultRoute"`
	Warnings     []string `json:"warnings"`
}

type delRequest struct {
	Attachment attachment `json:"attachment"`
	IPAMOnly   bool       `json:"ipamOnly,omitempty"`
}

type delResponse struct {
	Found bool `json:"found"`
}

type checkRequest struct {
	Attachment attachment `json:"attachment"`
	IPAMOnly   bool       `json:"ipamOnly,omitempty"`
	Address    string     `json:"address,omitempty"`
	MAC        string     `json:"mac,omitempty"`
}

type collectRequest struct {
	Network  string       `json:"network,omitempty"`
	IPAMOnly bool         `json:"ipamOnly,omitempty"`
	Valid    []attachment `json:"valid,omitempty"`
}

type collectResponse struct {
	Collected []string `json:"collected"`
}

type askedRequest struct {
	Namespace string `json:"namespace,omitempty"`
	Container string `json:"container,omitempty"`
}

type askedResponse struct {
	Wanted   bool   `json:"wanted"`
	Strict   bool   `json:"strict"`
	Rejected string `json:"rejected"`
}

type awaitRequest struct {
	Namespace string `json:"namespace,omitempty"`
	Container string `json:"container,omitempty"`
	PID       uint32 `json:"pid,omitempty"`
}

type awaitResponse struct {
	Wanted  bool   `json:"wanted"`
	Address string `json:"address"`
	Ifname  string `json:"ifname"`
	Ready   string `json:"ready"`
}

func fromAttachment(a api.Attachment) attachment {
	return attachment{Network: a.Network, ContainerID: a.ContainerID, Ifname: a.Ifname, NetNS: a.NetNS}
}

func fromSpec(s api.AttachmentSpec) addRequest {
	return addRequest{
		Attachment: fromAttachment(s.Attachment), IPAMOnly: s.IPAMOnly,
		Address: addrText(s.Address), MAC: s.MAC, Hostname: s.Hostname, MTU: int32(s.MTU),
	}
}

// result reads the answer to an Add. An address is always in it.
func (m addResponse) result() (api.AttachmentResult, error) {
	r := api.AttachmentResult{
		MAC: m.MAC, HostIfname: m.HostIfname, HostMAC: m.HostMAC, Ifname: m.Ifname, MTU: int(m.MTU),
		DefaultRoute: m.DefaultRoute, Warnings: m.Warnings,
	}
	var errs [4]error
	r.Address, errs[0] = netip.ParsePrefix(m.Address)
	r.Gateway, errs[1] = addr(m.Gateway)
	r.Network, errs[2] = prefix(m.Network)
	r.Subnet, errs[3] = prefix(m.Subnet)
	if err := errors.Join(errs[:]...); err != nil {
		return api.AttachmentResult{}, strange(err, nil)
	}
	return r, nil
}

// prefix reads a block; empty is the zero one.
func prefix(s string) (netip.Prefix, error) {
	if s == "" {
		return netip.Prefix{}, nil
	}
	return netip.ParsePrefix(s)
}

// addr reads an address; empty is the zero one.
func addr(s string) (netip.Addr, error) {
	if s == "" {
		return netip.Addr{}, nil
	}
	return netip.ParseAddr(s)
}

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
