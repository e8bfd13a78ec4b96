package main

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"stellar.io/stellar/api"
)

// TestSaying: what is over soon says nothing, what takes long says so again and again.
func TestSaying(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		done := saying(&out, 2*time.Second, "checking")
		time.Sleep(time.Second)
		done()
		if out.Len() > 0 {
			t.Errorf("said %q", &out)
		}
		done = saying(&out, 2*time.Second, "checking")
		time.Sleep(5 * time.Second)
		done()
		if got := out.String(); got != "checking: 2s\nchecking: 4s\n" {
			t.Errorf("said %q", got)
		}
	})
}

func TestSilentNodes(t *testing.T) {
	t.Parallel()
	r := api.IpamReport{Nodes: []api.IpamNodeCheck{{Node: "a", Checked: 2}, {Node: "b", Error: "no answer"}}}
	if got := silentNodes(r); len(got) != 1 || got[0] != "b (no answer)" {
		t.Errorf("%q", got)
	}
}
