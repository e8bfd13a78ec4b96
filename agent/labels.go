package agent

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"stellar.io/stellar/events"
	"stellar.io/stellar/ipam"
)

// The label contract. The same keys are valid as OCI annotations.
const (
	labelPrefix   = "stellar.io/"
	labelNetwork  = labelPrefix + "network"
	labelIP       = labelPrefix + "ip"
	labelMAC      = labelPrefix + "mac"
	labelHostname = labelPrefix + "hostname"
	labelIfname   = labelPrefix + "ifname"
	labelMTU      = labelPrefix + "mtu"
	labelStrict   = labelPrefix + "strict"
)

const (
	// maxValue bounds a label's value, in bytes; containerd's own limit of 4,096
	// covers key and value together and is far more than any of ours needs.
	maxValue = 256
	// defaultIfname is the interface of a container without another network,
	// besideIfname the one next to a network of somebody else.
	defaultIfname = "eth0"
	besideIfname  = "stellar0"
	// minMTU is the datagram every IPv4 host must take (RFC 791); maxMTU is veth's own limit.
	minMTU, maxMTU = 576, 65535
)

// Wish is what a container asks for: its trusted labels and annotations, parsed.
// Zero fields were not asked for.
type Wish struct {
	Network  string // ipam.DefaultNetwork for "true"
	IP       netip.Addr
	MAC      net.HardwareAddr
	Hostname string
	Ifname   string
	MTU      int
	Strict   bool   // it must not run without its network
	Source   string // "label" or "annotation": where stellar.io/network was found
}

// RejectError says why a container is not attached. Its Code is a short stable
// word for metrics, its Reason what a person reads in `endpoint ls`.
type RejectError struct {
	Code   string
	Reason string
	strict bool // the container must not run without a network
}

func (e *RejectError) Error() string { return e.Reason }

// heals reports whether the cause may go when an address becomes free.
func (e *RejectError) heals() bool {
	switch e.Code {
	case "address-taken", "address-reserved", "subnet-full", "node-full":
		return true
	}
	return false
}

func rejectf(code, format string, args ...any) *RejectError {
	return &RejectError{Code: code, Reason: fmt.Sprintf(format, args...)}
}

// Trust is what is known of a container's words from an earlier look: it is
// decided once per container, so an image removed later changes nothing.
type Trust struct {
	// Prior: the container's labels were found trustworthy before, by an earlier
	// agent (it holds a lease). Annotations are trusted first then.
	Prior bool
	// Copies are the annotations that merely repeated a label when the container
	// was first seen. They do not outlive the label.
	Copies map[string]bool
	// Asked is who has asked for the container's network by other means; "": nobody.
	// What only the image says does not count then.
	Asked string
}

// parseWish reads c's labels and annotations by the rules of the label
// contract. It returns (nil, nil) for a container that does not ask for a
// network, and a *RejectError for one that asks in a way that cannot be met.
// It is pure.
func parseWish(c *events.Container, t Trust) (*Wish, error) {
	words, err := trustedWords(c, t)
	if err != nil {
		return nil, err
	}
	if t.Asked != "" {
		maps.DeleteFunc(words, func(_ string, w word) bool { return w.fromImage })
		words[labelNetwork] = word{value: "true", source: t.Asked}
	}
	network, asked := words[labelNetwork]
	if !asked || network.value == "false" || network.value == "none" {
		return nil, nil
	}
	wish := &Wish{Source: network.source}
	if refused := wish.read(words); refused != nil {
		refused.strict = words[labelStrict].value == "true"
		return nil, refused
	}
	wish.addNerdctl(c, t)
	return wish, nil
}

// read parses our keys, stellar.io/network among them.
func (w *Wish) read(words map[string]word) *RejectError {
	switch network := words[labelNetwork].value; {
	case network == "true":
		w.Network = ipam.DefaultNetwork
	case !networkName.MatchString(network):
		return rejectf("label", "%s=%q is neither true, false, none nor the name of a network", labelNetwork, printable(network))
	default:
		w.Network = network
	}
	if w.Network != ipam.DefaultNetwork {
		return rejectf("network", "network %q does not exist (there is one, %q)", w.Network, ipam.DefaultNetwork)
	}
	// In order, so that a container with several faults always shows the same one.
	for _, key := range slices.Sorted(maps.Keys(words)) {
		if refused := w.set(key, words[key]); refused != nil {
			return refused
		}
	}
	return nil
}

// What a user asked of nerdctl under --net none, which only keeps it.
const (
	nerdctlNetworks = "nerdctl/networks"
	nerdctlIP       = "nerdctl/ip"
	nerdctlHostname = "nerdctl/hostname"
	nerdctlMAC      = "nerdctl/mac-address"
)

// addNerdctl fills in what our own keys leave open. An image can bring these
// labels too, and annotations copy them, so neither counts; what is malformed
// was not meant for us.
func (w *Wish) addNerdctl(c *events.Container, t Trust) {
	users := func(key string) string {
		value, ok := c.Labels[key]
		image, inImage := c.ImageLabels[key]
		if !ok || inImage && image == value || c.HasImage && !c.ImageKnown && !t.Prior {
			return ""
		}
		return value
	}
	if users(nerdctlNetworks) != `["none"]` {
		return
	}
	if a, err := netip.ParseAddr(users(nerdctlIP)); err == nil && a.Is4() && !w.IP.IsValid() {
		w.IP = a
	}
	if mac, err := parseMAC(users(nerdctlMAC)); err == nil && w.MAC == nil {
		w.MAC = mac
	}
	if name := users(nerdctlHostname); w.Hostname == "" && validHostname(name) {
		w.Hostname = name
	}
}

type word struct {
	value, source string
	fromImage     bool
}

// trustedWords merges labels over annotations and leaves out what the image
// brought. A key of ours that only the image brought rejects a container that
// otherwise asks for a network, and one that asks for it by nothing else.
func trustedWords(c *events.Container, t Trust) (map[string]word, error) {
	words := map[string]word{}
	for key, value := range c.Annotations {
		if !strings.HasPrefix(key, labelPrefix) || strings.Contains(key, "nerdctl/") {
			continue
		}
		if _, labelled := c.Labels[key]; t.Copies[key] && !labelled {
			continue
		}
		words[key] = word{value: value, source: "annotation"}
	}
	blind := c.HasImage && !c.ImageKnown
	unread := blind && !t.Prior
	for key, value := range c.Labels {
		if !strings.HasPrefix(key, labelPrefix) || strings.Contains(key, "nerdctl/") {
			continue
		}
		imageValue, inImage := c.ImageLabels[key]
		_, annotated := words[key]
		switch {
		case blind && annotated:
			// Whether the annotation overrides the image's label cannot be seen.
		case unread || inImage && imageValue == value:
			if !annotated {
				words[key] = word{value: value, source: "image", fromImage: true}
			}
		default:
			words[key] = word{value: value, source: "label"}
		}
	}
	n, ok := words[labelNetwork]
	if !ok || n.value == "false" || n.value == "none" {
		return words, nil
	}
	if unread && !n.fromImage {
		// Only annotations count; the labels are left out, not held against the container.
		maps.DeleteFunc(words, func(_ string, w word) bool { return w.fromImage })
		return words, nil
	}
	for _, key := range slices.Sorted(maps.Keys(words)) {
		if !words[key].fromImage {
			continue
		}
		if unread {
			return nil, rejectf("image-unreadable", "label %s cannot be trusted: the image's config cannot be read, use an annotation", key)
		}
		return nil, rejectf("image-label", "label comes from the image, use an annotation: %s=%s", key, printable(words[key].value))
	}
	return words, nil
}

var (
	networkName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)
	ifaceName   = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_.-]{0,14}$`)
	hostLabel   = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?$`)
)

func (w *Wish) set(key string, v word) *RejectError {
	if len(v.value) > maxValue {
		return rejectf("label", "%s is longer than %d bytes", key, maxValue)
	}
	bad := func(want string) *RejectError {
		return rejectf("label", "%s=%q is not %s", key, printable(v.value), want)
	}
	switch key {
	case labelNetwork:
	case labelIP:
		a, err := netip.ParseAddr(v.value)
		if err != nil || !a.Is4() {
			return bad("an IPv4 address")
		}
		w.IP = a
	case labelMAC:
		mac, err := parseMAC(v.value)
		if err != nil {
			return bad(err.Error())
		}
		w.MAC = mac
	case labelHostname:
		if !validHostname(v.value) {
			return bad("a host name (RFC 1123)")
		}
		w.Hostname = v.value
	case labelIfname:
		if !ifaceName.MatchString(v.value) || v.value == "lo" || v.value == "all" || v.value == "default" {
			return bad("an interface name of at most 15 characters")
		}
		w.Ifname = v.value
	case labelMTU:
		n, err := strconv.Atoi(v.value)
		if err != nil || n < minMTU || n > maxMTU || strconv.Itoa(n) != v.value {
			return bad(fmt.Sprintf("a number from %d to %d", minMTU, maxMTU))
		}
		w.MTU = n
	case labelStrict:
		switch v.value {
		case "true":
			w.Strict = true
		case "false":
		default:
			return bad("true or false")
		}
	default:
		return rejectf("label", "unknown key %s", printable(key))
	}
	return nil
}

func parseMAC(s string) (net.HardwareAddr, error) {
	mac, err := net.ParseMAC(s)
	if err != nil || len(mac) != 6 {
		return nil, errors.New("a MAC address of six bytes")
	}
	if mac[0]&1 != 0 {
		return nil, errors.New("a unicast MAC address")
	}
	if slices.Max(mac) == 0 {
		return nil, errors.New("a MAC address other than zero")
	}
	return mac, nil
}

func validHostname(s string) bool {
	if len(s) > 253 {
		return false
	}
	for part := range strings.SplitSeq(s, ".") {
		if !hostLabel.MatchString(part) {
			return false
		}
	}
	return true
}

// printable makes an untrusted value fit for a terminal: 64 bytes of it, no control characters.
func printable(s string) string {
	if len(s) > 64 {
		s = s[:64] + "…"
	}
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// copiedAnnotations names the annotations of c that repeat a label.
func copiedAnnotations(c *events.Container) map[string]bool {
	var copies map[string]bool
	for key, value := range c.Annotations {
		if label, ok := c.Labels[key]; ok && label == value && strings.HasPrefix(key, labelPrefix) {
			if copies == nil {
				copies = map[string]bool{}
			}
			copies[key] = true
		}
	}
	return copies
}
