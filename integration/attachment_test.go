package integration

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"stellar.io/stellar/api"
	"stellar.io/stellar/api/client"
	"stellar.io/stellar/internal/testx"
	"stellar.io/stellar/internal/testx/faults"
)

// client returns a client of the node's agent.
func (n *node) client() *client.Client {
	n.t.Helper()
	c, err := client.New("unix://" + filepath.Join(n.dir, "run", "stellar.sock"))
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(c.Close)
	return c
}

// pidOf returns the init process of a container's task.
func (n *node) pidOf(id string) (pid int) {
	n.t.Helper()
	out, err := n.containerd.Ctr("-n", "default", "tasks", "ls")
	if err != nil {
		n.t.Fatal(err)
	}
	for line := range strings.Lines(out) {
		var name, status string
		if _, err := fmt.Sscan(line, &name, &pid, &status); err == nil && name == id {
			return pid
		}
	}
	n.t.Fatalf("no task of %s:\n%s", id, out)
	return 0
}

// TestByHand: a running container without a label gets a network by hand, keeps
// it over a restart of the agent, and loses it by hand.
func TestByHand(t *testing.T) {
	n := startNode(t, nodeOptions{})
	n.runContainer(testx.Run{ID: "plain"})
	neighbour := n.start("neighbour")
	ctx := context.Background()
	c := n.client()
	var e api.Endpoint
	n.eventually(5*time.Second, "the container is known", func() (err error) {
		e, err = c.Attach(ctx, api.AttachRequest{Ref: api.EndpointRef{Container: "plain"}, MAC: "02:00:00:00:00:77"})
		return err
	})
	if e.State != "attached" || e.Source != "manual" || e.MAC != "02:00:00:00:00:77" {
		t.Errorf("endpoint %+v", e)
	}
	n.reaches("plain", neighbour.Address)
	n.stopAgent(syscall.SIGKILL)
	n.startAgent()
	n.eventually(quiet, "the endpoint is known as what it was", func() error { // what the kernel has is shown before
		es, err := n.list()
		if now := es["default/plain"]; err != nil || now.State != "attached" || now.Address != e.Address.String() || now.Source != "manual" {
			return fmt.Errorf("after a restart: %+v, %v", now, err)
		}
		return nil
	})
	n.reaches("plain", neighbour.Address)
	for _, id := range []string{"plain", "neighbour"} {
		if _, err := c.Detach(ctx, api.EndpointRef{Container: id}); err != nil {
			t.Errorf("detach %s: %v", id, err)
		}
		n.await(id, "")
		if out, err := n.exec(id, "ip", "link", "show", "eth0"); err == nil {
			t.Errorf("%s still has eth0:\n%s", id, out)
		}
	}
	if _, err := c.Attach(ctx, api.AttachRequest{Ref: api.EndpointRef{Container: "neighbour"}}); err != nil {
		t.Errorf("attach again: %v", err)
	}
	n.reaches("neighbour", "172.16.0.1")
}

// TestCNICalls: what a CNI client asks for, on namespaces of a container of
// containerd and of nobody's.
func TestCNICalls(t *testing.T) {
	n := startNode(t, nodeOptions{})
	n.runContainer(testx.Run{ID: "web-1"})
	ctx := context.Background()
	c := n.client()
	web := api.Attachment{Network: "stellar", ContainerID: "default-web-1", Ifname: "eth0", NetNS: fmt.Sprintf("/proc/%d/ns/net", n.pidOf("web-1"))}
	if found, err := c.DelAttachment(ctx, api.Attachment{Network: "stellar", ContainerID: "default-web-1", Ifname: "eth0"}); found || err != nil {
		t.Errorf("DEL before ADD: %t, %v", found, err)
	}
	added, err := c.AddAttachment(ctx, api.AttachmentSpec{Attachment: web})
	if err != nil {
		t.Fatal(err)
	}
	n.reaches("web-1", "192.0.2.254")
	if e := n.await("web-1", "attached"); e.Address != added.Address.Addr().String() || e.Source != "cni" {
		t.Errorf("endpoint %+v, answer %+v", e, added)
	}
	if err := c.CheckAttachment(ctx, api.AttachmentCheck{Attachment: web, Address: added.Address.Addr(), MAC: added.MAC}); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	pod := testx.NewNetNS(t)
	path := api.Attachment{Network: "stellar", ContainerID: "pod", Ifname: "eth0", NetNS: "/run/netns/" + pod.Name}
	podAdded, err := c.AddAttachment(ctx, api.AttachmentSpec{Attachment: path})
	if err != nil {
		t.Fatal(err)
	}
	n.reaches("web-1", podAdded.Address.Addr().String())
	for name, netns := range map[string]string{
		"the host's": "/run/netns/" + n.host.Name, "a file": "/etc/hostname", "nothing": "/run/netns/none", "of the agent": fmt.Sprintf("/proc/%d/ns/net", n.agent.Process.Pid),
	} {
		bad := api.Attachment{Network: "stellar", ContainerID: "bad", Ifname: "eth0", NetNS: netns}
		if got, err := c.AddAttachment(ctx, api.AttachmentSpec{Attachment: bad}); err == nil {
			t.Errorf("%s namespace: attached as %+v", name, got)
		} else if code := api.CodeOf(err); code != api.CodeDenied && code != api.CodeInvalid {
			t.Errorf("%s namespace: %s: %v", name, code, err)
		}
	}
	n.stopAgent(syscall.SIGKILL)
	n.startAgent()
	n.await("web-1", "attached")
	n.reaches("web-1", podAdded.Address.Addr().String())
	if err := c.CheckAttachment(ctx, api.AttachmentCheck{Attachment: path, Address: podAdded.Address.Addr()}); err != nil {
		t.Errorf("CHECK after a restart: %v", err)
	}
	if got, err := c.CollectAttachments(ctx, "stellar", false, []api.Attachment{web}); err != nil || len(got) != 1 {
		t.Errorf("GC: %v, %v", got, err)
	}
	for _, want := range []bool{true, false} {
		if found, err := c.DelAttachment(ctx, api.Attachment{Network: "stellar", ContainerID: "default-web-1", Ifname: "eth0"}); err != nil || found != want && want {
			t.Errorf("DEL: %t, %v", found, err)
		}
	}
	if e := n.await("web-1", "bound"); e.Address != added.Address.Addr().String() {
		faults.Safety(t, "after DEL: %+v", e)
	}
	if again, err := c.AddAttachment(ctx, api.AttachmentSpec{Attachment: web}); err != nil || again.Address != added.Address {
		t.Errorf("ADD after DEL: %+v, %v", again, err)
	}
	if err := n.containerd.Remove("default", "web-1"); err != nil {
		t.Fatal(err)
	}
	n.await("web-1", "")
	n.checked()
}
