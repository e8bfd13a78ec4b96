package ipam

import (
	"bytes"
	"os"
	"testing"
)

// The files in testdata are what the first version of the format has written.
// They are never made anew.

// TestFirstSnapshotIsRead: a snapshot of version 1 is the same state; its members
// are servers, since a cluster had one node then.
func TestFirstSnapshotIsRead(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/snapshot-v1.bin")
	if err != nil {
		t.Fatal(err)
	}
	got, err := Restore(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	want := firstState(t)
	if got.Hash() != want.Hash() || got.Index() != want.Index() {
		t.Error("restored another state")
	}
	equal(t, "derived", got.derived, want.derived)
	for n := range got.Nodes() {
		if role := map[bool]Role{false: RoleServer}[n.Removed]; n.Role != role {
			t.Errorf("%s has role %s", n.Name, n.Role)
		}
	}
	ok(t, got, tokenCmd(4), joinCmd(4))
}

// TestFirstEnvelopeIsTheSame: the commands of the first version still have the
// bytes they had, and the bytes their meaning.
func TestFirstEnvelopeIsTheSame(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/envelope-v1.bin")
	if err != nil {
		t.Fatal(err)
	}
	want := Envelope{Request: RequestID{nodeID(1), 7}, Commands: everyCommand()[:13]}
	got, err := DecodeEnvelope(data)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "envelope", got, want)
	again, err := want.Encode()
	if err != nil || !bytes.Equal(again, data) {
		t.Errorf("encoded to other bytes (%v)", err)
	}
}
