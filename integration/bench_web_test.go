package integration

import (
	"strconv"
	"testing"
	"time"

	"stellar.io/stellar/internal/testx"
)

const (
	webSeconds = 20
	webEvery   = 5 // seconds from one container to the next
	webLimit   = 5 // % of a core
)

// benchWeb measures an agent whose page a browser has open while containers come: what it
// is asked for and what it sends.
func benchWeb(b *testing.B, t *table) {
	n, p := startWeb(b)
	p.Eval(`location.hash = "#/endpoints"`, nil)
	p.Until(quiet, "no endpoints yet", webSays("No endpoints yet"))
	seconds, last := scaled(webSeconds), ""
	told := newProgress("page open, seconds", seconds)
	pid := n.agent.Process.Pid
	before, began := cpuTime(b, pid), time.Now()
	for i := range seconds {
		n.cli("endpoint", "ls")
		if i%webEvery == 0 {
			last = "web-" + strconv.Itoa(i)
			n.runContainer(testx.Run{ID: last, Labels: networked()})
		}
		time.Sleep(time.Until(began.Add(time.Duration(i+1) * time.Second)))
		told.done(i + 1)
	}
	took, used := time.Since(began), cpuTime(b, pid)-before
	p.Until(quiet, "the page has followed", webLive+" && "+webSays(last))
	t.value("processor time of an agent whose page is open, of one core", "%", seconds, 100*used.Seconds()/took.Seconds(), bar{p50: webLimit})
}
