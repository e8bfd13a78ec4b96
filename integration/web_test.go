package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"stellar.io/stellar/internal/testx"
	"stellar.io/stellar/internal/testx/chrome"
)

const webConfig = "[web]\nlisten = \"127.0.0.1:9643\""

// startWeb starts a node with the web page and a browser on its host that has it open.
func startWeb(t testing.TB) (*node, *chrome.Page) {
	t.Helper()
	file := writeConfig(t, webConfig)
	n := startNode(t, nodeOptions{flags: []string{"--config", file}})
	url := strings.TrimSpace(n.host.Run(t, binary, "web", "--config", file, "--data-dir", filepath.Join(n.dir, "data")))
	p := chrome.Start(t, n.host).Page(t)
	p.Scheme("light")
	p.Open(url)
	p.Until(quiet, "the page is live", webLive)
	return n, p
}

const webLive = `document.getElementById("link").dataset.state === "live" && document.querySelector(".figures")`

func webSays(what string) string {
	return fmt.Sprintf(`document.querySelector("main").textContent.includes(%q)`, what)
}

// TestWebPage: what a real agent knows is on its page, at once, and the page survives
// the agent.
func TestWebPage(t *testing.T) {
	t.Parallel()
	n, p := startWeb(t)
	view := func(name string) { p.Eval(fmt.Sprintf(`location.hash = "#/%s"`, name), nil) }
	p.Until(quiet, "the node is on the map", `document.querySelectorAll(".tiles .tile.self").length === 1`)
	view("endpoints")
	p.Until(quiet, "no endpoints yet", webSays("No endpoints yet"))
	e := n.start("web")
	p.Until(quiet, "the container appears by itself", webSays("web")+" && "+webSays(e.Address))
	p.Eval(`document.querySelector("tbody .open").click()`, nil)
	p.Until(quiet, "with all that is known of it", webSays("The attach took")+" && "+webSays(e.HostIfname))
	n.runContainer(testx.Run{ID: "bad", Labels: networked("ip", "1.2.3.4.5")})
	p.Until(quiet, "a rejection has its reason", webSays("rejected")+" && "+webSays("1.2.3.4.5"))
	p.Picture("../bin/pictures/agent-endpoints.png", true)
	view("events")
	p.Until(quiet, "the events", webSays("attach")+" && "+webSays("default/web"))
	view("routes")
	p.Until(quiet, "the own route, without drift", webSays("no drift")+" && "+webSays("stellar0"))
	view("raft")
	p.Until(quiet, "Raft", webSays("One voter")+` && document.querySelectorAll(".voters .leader").length === 1`)
	p.Picture("../bin/pictures/agent-raft.png", true)

	if err := n.stopAgent(syscall.SIGKILL); err == nil {
		t.Error("the agent was not killed")
	}
	p.Until(quiet, "it is seen that the agent is gone", `document.getElementById("link").dataset.state === "gone"`)
	n.startAgent()
	n.cli("status", "--wait", "--timeout", "30s")
	view("endpoints")
	p.Until(quiet, "the page comes back by itself, its token good", webLive+" && "+webSays(e.Address))
	for _, problem := range p.Problems() {
		if !strings.Contains(problem, "ERR_") { // what was asked while nobody was there
			t.Errorf("the console says: %s", problem)
		}
	}
}

// TestWebPageIsOfThisMachine: no container reaches it, by no address of the host, and
// nobody else reads its token.
func TestWebPageIsOfThisMachine(t *testing.T) {
	t.Parallel()
	file := writeConfig(t, webConfig)
	n := startNode(t, nodeOptions{flags: []string{"--config", file}})
	n.start("web")
	info, err := os.Stat(filepath.Join(n.dir, "data", "web-token"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the token's file has mode %v: %v", info.Mode(), err)
	}
	// kube-proxy does that: loopback addresses can then be reached from the bridge.
	n.host.Run(t, "sysctl", "-q", "net.ipv4.conf.all.route_localnet=1")
	addresses := strings.Fields(n.host.Run(t, "hostname", "-I"))
	if len(addresses) < 2 {
		t.Fatalf("the host has only %q", addresses)
	}
	for _, a := range addresses {
		if out, err := n.exec("web", "wget", "-q", "-T", "3", "-O", "-", "http://"+a+":9643/"); err == nil {
			t.Errorf("a container reaches the page at %s:\n%s", a, out)
		}
	}
	listening := n.host.Run(t, "ss", "-Htln", "sport", "=", "9643")
	if strings.Count(listening, "127.0.0.1:9643") != 1 || len(strings.Split(strings.TrimSpace(listening), "\n")) != 1 {
		t.Errorf("it listens on\n%s", listening)
	}
}
