package agent

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"stellar.io/stellar/events"
	"stellar.io/stellar/ipam"
	"stellar.io/stellar/raftstore/holder"
)

func TestLabelsChangeWhileItRuns(t *testing.T) {
	t.Run("added and removed", func(t *testing.T) {
		withAgent(t, func(b *bed) {
			x := b.running("a", nil)
			b.want(x, "")
			b.c.update(x, networked)
			b.wait(time.Second)
			if e := b.want(x, StateAttached); e.Grade != GradeLate {
				t.Errorf("grade %s", e.Grade)
			}
			b.c.update(x, nil)
			b.wait(time.Second)
			b.want(x, "")
			b.wantLinks(0)
			b.wantLeases(0)
		})
	})
	t.Run("removed while the agent is down", func(t *testing.T) {
		for _, labels := range []map[string]string{networked, with(labelIfname, "net1")} {
			withAgent(t, func(b *bed) {
				x := b.running("a", labels)
				b.halt()
				b.c.update(x, nil)
				b.start()
				b.list()
				b.wait(10 * time.Second)
				b.want(x, "")
				b.wantLinks(0)
				b.wantLeases(0)
			})
		}
	})
	t.Run("spoilt and mended", func(t *testing.T) {
		withAgent(t, func(b *bed) {
			x := b.running("a", networked)
			addr := b.find(x).Address
			b.c.update(x, with(labelMTU, "no"))
			b.wait(time.Second)
			e := b.want(x, StateAttached)
			if e.Reason == "" || e.Address != addr {
				t.Errorf("shown as %+v", e)
			}
			b.restart()
			e = b.want(x, StateAttached)
			if e.Reason == "" || e.Address != addr || e.HostIfname == "" {
				t.Errorf("shown as %+v", e)
			}
			b.c.exit(x)
			b.wait(5 * time.Second)
			b.want(x, StateRejected)
			b.wantLinks(0)
			b.c.update(x, networked)
			b.wait(time.Second)
			if e := b.want(x, StateBound); e.Address != addr {
				t.Errorf("address %s, was %s", e.Address, addr)
			}
		})
	})
	t.Run("another address", func(t *testing.T) {
		withAgent(t, func(b *bed) {
			x := b.running("a", networked)
			addr := b.find(x).Address
			b.c.update(x, with(labelIP, "172.16.0.99"))
			b.wait(time.Second)
			if e := b.want(x, StateAttached); e.Address != addr || e.Reason == "" {
				t.Errorf("shown as %+v", e)
			}
			b.c.exit(x) // and at once the next task
			b.c.task(x)
			b.wait(time.Second)
			if e := b.want(x, StateAttached); e.Address.String() != "172.16.0.99" || e.Reason != "" {
				t.Errorf("shown as %+v", e)
			}
			b.wantLeases(1)
		})
	})
	t.Run("another interface", func(t *testing.T) {
		for _, restart := range []bool{false, true} {
			withAgent(t, func(b *bed) {
				x := b.running("a", networked)
				addr := b.find(x).Address
				if restart {
					b.halt()
				}
				b.c.update(x, with(labelIfname, "net1"))
				if restart {
					b.start()
					b.list()
				}
				b.wait(10 * time.Second)
				if e := b.want(x, StateAttached); e.Address != addr || e.Ifname != "eth0" || e.Reason == "" {
					t.Errorf("shown as %+v", e)
				}
				b.wantLeases(1)
				b.wantLinks(1)
				b.c.exit(x)
				b.c.task(x)
				b.wait(10 * time.Second)
				if e := b.want(x, StateAttached); e.Ifname != "net1" || e.Reason != "" {
					t.Errorf("shown as %+v", e)
				}
				b.wantLeases(1)
				b.wantLinks(1)
			})
		}
	})
}

// The trust in a container's labels does not change with its image.
func TestImageIsRemovedOrReplaced(t *testing.T) {
	withAgent(t, func(b *bed) {
		// The image brings an address that the user's annotation overrides.
		x := b.running("a", with(labelIP, "172.16.0.66"), func(x *fakeContainer) {
			x.ImageLabels = map[string]string{labelIP: "172.16.0.66"}
			x.Annotations = map[string]string{labelIP: "172.16.0.7"}
		})
		check := func() {
			t.Helper()
			b.a.Repair(x.Key)
			b.wait(time.Second)
			if e := b.want(x, StateAttached); e.Address.String() != "172.16.0.7" || e.Reason != "" {
				t.Errorf("shown as %+v", e)
			}
		}
		check()
		b.c.mu.Lock()
		x.ImageKnown, x.ImageLabels = false, nil
		b.c.mu.Unlock()
		check()
		b.c.mu.Lock()
		x.ImageKnown, x.ImageLabels = true, map[string]string{labelNetwork: "true"}
		b.c.mu.Unlock()
		check()
		b.c.mu.Lock()
		x.ImageKnown, x.ImageLabels = false, nil
		b.c.mu.Unlock()
		b.restart()
		check()
	})
}

// What an annotation let in while the image could not be read, the labels do
// not change later.
func TestAnnotationOfUnreadableImage(t *testing.T) {
	withAgent(t, func(b *bed) {
		x := b.running("a", map[string]string{labelIP: "172.16.0.66"}, func(x *fakeContainer) {
			x.ImageKnown, x.Annotations = false, map[string]string{labelNetwork: "true"}
		})
		addr := b.want(x, StateAttached).Address
		b.a.Repair(x.Key)
		b.c.exit(x)
		b.c.task(x)
		b.wait(time.Second)
		if e := b.want(x, StateAttached); e.Address != addr {
			t.Errorf("address %s, was %s", e.Address, addr)
		}
	})
}

func TestRejected(t *testing.T) {
	type change func(*bed, *fakeContainer)
	free := func(b *bed, _ *fakeContainer) {
		other := b.c.all[key("other")]
		b.c.exit(other)
		b.c.remove(other)
	}
	tests := []struct {
		name   string
		labels map[string]string
		opt    func(*fakeContainer)
		before change
		reason string
		code   string
		after  change // takes the cause away; nil: it cannot be
	}{
		{name: "host network", opt: func(x *fakeContainer) { x.NetNS = events.NetNSHost },
			reason: "host network: the container shares the host's namespace", code: "host-network"},
		{name: "host's namespace by its path", opt: func(x *fakeContainer) { x.NetNS = events.NetNSPath },
			before: func(b *bed, x *fakeContainer) { x.ns = b.k.host },
			reason: "host network: the task runs in a namespace of the host", code: "host-network"},
		{name: "runtime", opt: func(x *fakeContainer) { x.Runtime = "io.containerd.runsc.v1" },
			reason: "runtime: io.containerd.runsc.v1 does not use the kernel's network namespaces", code: "runtime"},
		{name: "image's label", opt: func(x *fakeContainer) { x.ImageLabels = networked },
			reason: "label comes from the image, use an annotation: stellar.io/network=true", code: "image-label",
			after: func(b *bed, x *fakeContainer) { b.c.update(x, map[string]string{labelNetwork: "default"}) }},
		{name: "unreadable image", opt: func(x *fakeContainer) { x.ImageKnown = false },
			reason: "label stellar.io/network cannot be trusted: the image's config cannot be read, use an annotation", code: "image-unreadable",
			after: func(b *bed, x *fakeContainer) {
				b.c.mu.Lock()
				defer b.c.mu.Unlock()
				x.ImageKnown = true
			}},
		{name: "malformed", labels: with(labelMTU, "many"), reason: `stellar.io/mtu="many" is not a number from 576 to 65535`, code: "label",
			after: func(b *bed, x *fakeContainer) { b.c.update(x, networked) }},
		{name: "address taken", labels: with(labelIP, "172.16.0.2"),
			before: func(b *bed, _ *fakeContainer) { b.running("other", with(labelIP, "172.16.0.2")) },
			reason: "address 172.16.0.2 is taken", code: "address-taken", after: free},
		{name: "address outside", labels: with(labelIP, "10.9.9.9"), reason: "address 10.9.9.9 is not in this node's subnet", code: "address",
			after: func(b *bed, x *fakeContainer) { b.c.update(x, with(labelIP, "172.16.0.5")) }},
		{name: "address reserved", labels: with(labelIP, "172.16.0.1"), reason: "address 172.16.0.1 is reserved", code: "address-reserved",
			after: func(b *bed, x *fakeContainer) {
				b.l.mu.Lock()
				defer b.l.mu.Unlock()
				b.l.picker.Unreserve(netip.MustParseAddr("172.16.0.1"))
			}},
		{name: "interface exists", labels: with(labelIfname, "eth0"), opt: func(x *fakeContainer) { x.NetNS = events.NetNSPath },
			before: func(b *bed, x *fakeContainer) {
				x.ns = b.k.newNS()
				x.ns.foreign["eth0"] = true
			},
			reason: "interface eth0 exists in the container already", code: "interface",
			after: func(b *bed, x *fakeContainer) {
				b.k.mu.Lock()
				defer b.k.mu.Unlock()
				delete(x.ns.foreign, "eth0")
			}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			withAgent(t, func(b *bed) {
				labels := tt.labels
				if labels == nil {
					labels = networked
				}
				x := b.running("a", labels, func(x *fakeContainer) {
					if tt.opt != nil {
						tt.opt(x)
					}
					b.c.mu.Unlock()
					defer b.c.mu.Lock()
					if tt.before != nil {
						tt.before(b, x)
					}
				})
				for range 3 {
					b.list()
					b.wait(30 * time.Second)
				}
				if e := b.want(x, StateRejected); e.Reason != tt.reason {
					t.Errorf("reason %q, want %q", e.Reason, tt.reason)
				}
				if l := b.link(x); l != nil {
					t.Errorf("link %+v", l)
				}
				if n := b.counted("stellar_label_rejections_total", tt.code); n != 1 {
					t.Errorf("counted %d times", n)
				}
				if got := b.told(x); got != "reject" && got != "pending reject" {
					t.Errorf("events: %s", got)
				}
				if tt.after == nil {
					return
				}
				tt.after(b, x)
				for range 4 {
					b.list()
					b.wait(30 * time.Second)
				}
				if e := b.want(x, StateAttached); e.Reason != "" {
					t.Errorf("reason %q stays", e.Reason)
				}
			})
		})
	}
}

func TestSubnetFull(t *testing.T) {
	withSubnet(t, "172.16.0.0/29", func(b *bed) { // five addresses
		var all []*fakeContainer
		for _, id := range []string{"a", "b", "c", "d", "e", "f"} {
			all = append(all, b.running(id, networked))
		}
		for range 10 {
			b.list()
			b.wait(30 * time.Second)
		}
		late := all[5]
		b.want(late, StateRejected)
		b.wantTold(late, "reject")
		b.c.exit(all[0])
		b.c.remove(all[0])
		for range 10 {
			b.list()
			b.wait(30 * time.Second)
		}
		b.want(late, StateAttached)
		b.wantTold(late, "reject attached")
	})
}

// A static address that the container before has just given up is waited for.
func TestAddressBeingGivenUp(t *testing.T) {
	withAgent(t, func(b *bed) {
		tries := 0
		b.l.mu.Lock()
		b.l.fail = func(op string) error {
			if op != "bind" || tries > 1 {
				return nil
			}
			tries++
			return fmt.Errorf("%w: %w", ipam.ErrAddressTaken, holder.ErrUnresolved)
		}
		b.l.mu.Unlock()
		x := b.running("a", with(labelIP, "172.16.0.9"))
		b.want(x, StateAttached)
		if n := b.counted("stellar_label_rejections_total", "address-taken"); n != 0 {
			t.Errorf("rejected %d times", n)
		}
	})
}

func TestNotReplicated(t *testing.T) {
	withAgent(t, func(b *bed) {
		b.l.provisional = true
		x := b.running("a", networked)
		if e := b.want(x, StateProvisional); e.Reason == "" {
			t.Error("no reason")
		}
		b.l.mu.Lock()
		for o, h := range b.l.leases {
			h.Provisional = false
			b.l.leases[o] = h
		}
		b.l.mu.Unlock()
		b.list()
		b.wait(time.Second)
		b.want(x, StateAttached)
	})
}

func TestOtherKindsOfOwnersAreLeftAlone(t *testing.T) {
	withAgent(t, func(b *bed) {
		for _, kind := range []ipam.OwnerKind{ipam.OwnerCNI, ipam.OwnerManual} {
			o := ipam.Owner{Kind: kind, Namespace: "default", ID: "x", Interface: "eth0"}
			if _, err := b.l.Bind(b.Context(), holder.BindRequest{Owner: o}); err != nil {
				t.Fatal(err)
			}
		}
		b.restart()
		for range 10 {
			b.list()
			b.wait(30 * time.Second)
		}
		b.wantLeases(2)
		if n := b.c.allLooks(); n != 0 {
			t.Errorf("%d looks", n)
		}
	})
}
