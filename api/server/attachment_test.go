package server

import (
	"net/netip"
	"slices"
	"testing"

	"stellar.io/stellar/api"
)

func TestAttachments(t *testing.T) {
	b, c, _ := fixture(t)
	ctx := t.Context()
	if err := c.AttachmentsReady(ctx); api.CodeOf(err) != api.CodeNotInitialized {
		t.Errorf("AttachmentsReady before init: %v", err)
	}
	if _, err := c.InitCluster(ctx, api.ClusterSpec{}); err != nil {
		t.Fatal(err)
	}
	a := api.Attachment{Network: "stellar", ContainerID: "default-web", Ifname: "eth0", NetNS: "/proc/9/ns/net"}
	added, err := c.AddAttachment(ctx, api.AttachmentSpec{Attachment: a})
	if err != nil || added.Ifname != "eth0" || added.Address.Bits() != 22 {
		t.Fatalf("AddAttachment = %+v, %v", added, err)
	}
	if err := c.CheckAttachment(ctx, api.AttachmentCheck{Attachment: a, Address: added.Address.Addr()}); err != nil {
		t.Errorf("CheckAttachment: %v", err)
	}
	if err := c.CheckAttachment(ctx, api.AttachmentCheck{Attachment: a, Address: added.Address.Addr().Next()}); api.CodeOf(err) != api.CodeConflict {
		t.Errorf("CheckAttachment of another address: %v", err)
	}
	other := api.Attachment{Network: "stellar", ContainerID: "default-old", Ifname: "eth0", NetNS: "/proc/8/ns/net"}
	if _, err := c.AddAttachment(ctx, api.AttachmentSpec{Attachment: other}); err != nil {
		t.Fatal(err)
	}
	if got, err := c.CollectAttachments(ctx, "stellar", false, []api.Attachment{a}); err != nil || !slices.Equal(got, []string{"default-old eth0"}) {
		t.Errorf("CollectAttachments = %q, %v", got, err)
	}
	for _, want := range []bool{true, false} {
		if found, err := c.DelAttachment(ctx, a); err != nil || found != want {
			t.Errorf("DelAttachment = %t, %v, want %t", found, err, want)
		}
	}
	web := api.ContainerRef{Namespace: "default", Container: "web"}
	if _, err := c.Asked(ctx, web); api.CodeOf(err) != api.CodeNotFound {
		t.Errorf("Asked of no container: %v", err)
	}
	b.PutContainer(web, api.Asked{Wanted: true, Strict: true})
	if asked, err := c.Asked(ctx, web); err != nil || !asked.Wanted || !asked.Strict {
		t.Errorf("Asked = %+v, %v", asked, err)
	}
	if got, err := c.AwaitEndpoint(ctx, web, 9); err != nil || !got.Wanted || !got.Address.IsValid() || got.Ready != "sync" {
		t.Errorf("AwaitEndpoint = %+v, %v", got, err)
	}
}

func TestAttachByHand(t *testing.T) {
	b, c, _ := fixture(t)
	ctx := t.Context()
	if _, err := c.InitCluster(ctx, api.ClusterSpec{}); err != nil {
		t.Fatal(err)
	}
	b.PutContainer(api.ContainerRef{Namespace: "default", Container: "web"}, api.Asked{})
	web := api.EndpointRef{Container: "web"}
	want := netip.MustParseAddr("172.16.0.9")
	if e, err := c.Attach(ctx, api.AttachRequest{Ref: web, Address: want}); err != nil || e.Address != want || e.Namespace != "default" {
		t.Errorf("Attach = %+v, %v", e, err)
	}
	if _, err := c.Attach(ctx, api.AttachRequest{Ref: api.EndpointRef{Container: "nobody"}}); api.CodeOf(err) != api.CodeNotFound {
		t.Errorf("Attach of nobody: %v", err)
	}
	if e, err := c.Detach(ctx, web); err != nil || e.Address != want {
		t.Errorf("Detach = %+v, %v", e, err)
	}
	if _, err := c.Detach(ctx, web); api.CodeOf(err) != api.CodeNotFound {
		t.Errorf("second Detach: %v", err)
	}
}
