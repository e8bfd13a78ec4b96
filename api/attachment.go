package api

import "net/netip"

// AttachRequest asks for a container's network by hand. Zero fields are left to
// the container's labels and the node.
type AttachRequest struct {
	Ref      EndpointRef // its Ifname, if set, is the interface asked for
	Address  netip.Addr
	MAC      string
	Hostname string
	MTU      int
}

// Attachment names an interface in a namespace as CNI does.
type Attachment struct {
	Network     string // name of the CNI network (of the conflist)
	ContainerID string // CNI_CONTAINERID; clients of containerd use NAMESPACE-ID
	Ifname      string // CNI_IFNAME
	NetNS       string // CNI_NETNS; may be empty when it is taken away
	// IPAMOnly: an address without an interface, which another plugin makes.
	IPAMOnly bool
}

// AttachmentSpec is what CNI's ADD asks for.
type AttachmentSpec struct {
	Attachment
	Address  netip.Addr // zero: any
	MAC      string     // empty: derived from the address
	Hostname string
	MTU      int // 0: the node's
}

// AttachmentResult is an attachment that is up. The fields after Gateway are
// zero for one with IPAMOnly.
type AttachmentResult struct {
	Address      netip.Prefix // with the prefix length of the subnet
	Gateway      netip.Addr
	Network      netip.Prefix // the block of all containers of the cluster
	Subnet       netip.Prefix // the node's part of it
	MAC          string
	HostIfname   string
	HostMAC      string
	Ifname       string
	MTU          int
	DefaultRoute bool
	Warnings     []string
}

// AttachmentCheck is what CNI's CHECK compares with. Zero fields are not compared.
type AttachmentCheck struct {
	Attachment
	Address netip.Addr
	MAC     string
}

// ContainerRef names a container of containerd, both parts in full.
type ContainerRef struct {
	Namespace string
	Container string
}

// Asked is what a container's trusted labels and annotations ask for.
type Asked struct {
	Wanted   bool
	Strict   bool
	Rejected string // why it cannot be; empty: it can
}

// Awaited is the answer to a runtime that waited for a container's network.
type Awaited struct {
	Wanted  bool // false: no network is asked for, and the rest is zero
	Address netip.Addr
	Ifname  string
	Ready   string // the grade
}
