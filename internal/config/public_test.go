package config

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestTextIsReadAgain(t *testing.T) {
	t.Parallel()
	want := DefaultConfig()
	want.NodeName, want.Listen, want.MTU = "a", netip.MustParseAddrPort("192.0.2.1:9640"), 1400
	text, err := want.Text()
	if err != nil {
		t.Fatal(err)
	}
	got := Config{}
	if err := Decode("text", text, &got); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if n := reflect.TypeFor[Config]().NumField(); n < 10 {
		t.Errorf("%d fields", n)
	}
}

func TestPublic(t *testing.T) {
	t.Parallel()
	const secret = "hunter2"
	got, err := Public([]byte(`# password hunter2
node-name = "a" # hunter2
mtu = 1400
join-key = "hunter2"
[containerd]
address = "/x"
login = "hunter2"
ignore-namespaces = ["moby"]
[vault]
path = "hunter2"
[[listen]]
x = "hunter2"
`))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(got), secret) {
		t.Errorf("a secret is shown:\n%s", got)
	}
	for _, want := range []string{"node-name = \"a\"\n", "mtu = 1400\n", "containerd.address = \"/x\"\n", "[moby]", "join-key = \"(not", "vault = \"(not", "containerd.login = \"(not"} {
		if !strings.Contains(string(got), want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if _, err := Public([]byte("a = 1\npassword = hunter2 x\n")); err == nil || strings.Contains(err.Error(), secret) || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("a broken file: %v", err)
	}
}
