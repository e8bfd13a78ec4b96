package cniplugin

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"stellar.io/stellar/api"
	"stellar.io/stellar/internal/testx/cnicall"
)

func TestAddResultOfEachVersion(t *testing.T) {
	a := start(t)
	ip := func(version, more string) string {
		return fmt.Sprintf(`{"cniVersion":%q,"interfaces":[{"name":"vethfake","mac":"02:00:00:00:00:02"%s},`+
			`{"name":"eth0","mac":"02:00:00:00:00:01","sandbox":%q%s}],`+
			`"ips":[{"address":"172.16.0.2/22","gateway":"172.16.0.1","interface":1%s}],"routes":[{"dst":"0.0.0.0/0","gw":"172.16.0.1"}]%s}`,
			version, map[bool]string{true: `,"mtu":1500`}[version == "1.1.0"], a.netns, map[bool]string{true: `,"mtu":1500`}[version == "1.1.0"],
			map[bool]string{true: `,"version":"4"`}[version < "1"], more)
	}
	for _, version := range []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		// The second time it is there already, and the answer is the same.
		for range 2 {
			got := mustSucceed(t, a.run(t, call{command: "ADD", version: version}))
			dns := ""
			if version < "1" {
				dns = `,"dns":{}`
			}
			if d := cmp.Diff(decoded(t, ip(version, dns)), decoded(t, got)); d != "" {
				t.Errorf("%s (-want +got):\n%s", version, d)
			}
		}
	}
	if e := a.run(t, call{command: "ADD", version: "0.2.0"}).Error(); e == nil || e.Code != 1 {
		t.Errorf("0.2.0: %+v", e)
	}
	if e := a.run(t, call{command: "ADD", version: "2.0.0"}).Error(); e == nil || e.Code != 1 {
		t.Errorf("2.0.0: %+v", e)
	}
}

func TestAddWithoutDefaultRoute(t *testing.T) {
	a := start(t)
	a.face = func(r *api.AttachmentResult) {
		r.DefaultRoute, r.Warnings = false, []string{"it has a default route of its own"}
	}
	got := a.run(t, call{command: "ADD", keys: map[string]any{"dns": map[string]any{"nameservers": []string{"10.0.0.53"}}}})
	var r struct{ Routes, DNS any }
	if err := json.Unmarshal([]byte(mustSucceed(t, got)), &r); err != nil {
		t.Fatal(err)
	}
	want := decoded(t, `[{"dst":"172.16.0.0/12","gw":"172.16.0.1"}]`)
	if d := cmp.Diff(want, r.Routes); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(decoded(t, `{"nameservers":["10.0.0.53"]}`), r.DNS); d != "" {
		t.Error(d)
	}
	if got.Stderr != "stellar-cni: warning: it has a default route of its own\n" {
		t.Errorf("stderr %q", got.Stderr)
	}
}

func TestAddInAChain(t *testing.T) {
	a := start(t)
	prev := `{"cniVersion":"0.4.0","interfaces":[{"name":"lo","sandbox":"/x"}],"ips":[{"version":"4","address":"127.0.0.1/8","interface":0}],` +
		`"routes":[{"dst":"192.0.2.0/24"}],"dns":{"nameservers":["192.0.2.53"]}}`
	got := mustSucceed(t, a.run(t, call{command: "ADD", version: "0.4.0", keys: map[string]any{"prevResult": json.RawMessage(prev)}}))
	want := fmt.Sprintf(`{"cniVersion":"0.4.0","interfaces":[{"name":"lo","sandbox":"/x"},{"name":"vethfake","mac":"02:00:00:00:00:02"},`+
		`{"name":"eth0","mac":"02:00:00:00:00:01","sandbox":%q}],"ips":[{"version":"4","address":"127.0.0.1/8","interface":0},`+
		`{"version":"4","address":"172.16.0.2/22","gateway":"172.16.0.1","interface":2}],`+
		`"routes":[{"dst":"192.0.2.0/24"},{"dst":"0.0.0.0/0","gw":"172.16.0.1"}],"dns":{"nameservers":["192.0.2.53"]}}`, a.netns)
	if d := cmp.Diff(decoded(t, want), decoded(t, got)); d != "" {
		t.Error(d)
	}
}

func TestIPAMResult(t *testing.T) {
	a := start(t)
	add := func(ipam map[string]any) any {
		return decoded(t, mustSucceed(t, a.run(t, call{plugin: "stellar-cni-ipam", command: "ADD", ipam: ipam})))
	}
	want := `{"cniVersion":"1.1.0","ips":[{"address":"172.16.0.2/22","gateway":"172.16.0.1"}]`
	if d := cmp.Diff(decoded(t, want+`,"routes":[{"dst":"0.0.0.0/0","gw":"172.16.0.1"}]}`), add(nil)); d != "" {
		t.Error(d)
	}
	routes := []any{map[string]any{"dst": "172.16.0.0/12"}}
	if d := cmp.Diff(decoded(t, want+`,"routes":[{"dst":"172.16.0.0/12"}]}`), add(map[string]any{"routes": routes})); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(decoded(t, want+`}`), add(map[string]any{"routes": []any{}})); d != "" {
		t.Error(d)
	}
	spec := api.AttachmentSpec{Attachment: api.Attachment{Network: "stellar", ContainerID: "default-web", Ifname: "eth0", NetNS: a.netns, IPAMOnly: true}}
	if d := cmp.Diff(spec, a.added[0], cmpopts.EquateComparable(netip.Addr{})); d != "" {
		t.Error(d)
	}
	// It is another attachment than stellar-cni's of the same name.
	mustSucceed(t, a.run(t, call{command: "DEL"}))
	mustSucceed(t, a.run(t, call{plugin: "stellar-cni-ipam", command: "CHECK", keys: map[string]any{"prevResult": decoded(t, want+"}")}}))
	mustSucceed(t, a.run(t, call{plugin: "stellar-cni-ipam", command: "DEL"}))
	if e := a.run(t, call{plugin: "stellar-cni-ipam", command: "CHECK", keys: map[string]any{"prevResult": decoded(t, want+"}")}}).Error(); e == nil || e.Code != 3 {
		t.Errorf("CHECK after DEL: %+v", e)
	}
	mustSucceed(t, a.run(t, call{plugin: "stellar-cni-ipam", command: "STATUS"}))
}

// TestRecordedCalls replays what the real clients send.
func TestRecordedCalls(t *testing.T) {
	const id = "5f2b0c9e7d41a83660f1e2c4b5a69788d0e1f2a3b4c5d6e7f8091a2b3c4d5e6f"
	for file, refusals := range map[string]map[string]string{
		"nerdctl-run.txtar": {}, "ctr.txtar": {}, "cri.txtar": {},
		"nerdctl-refused.txtar": {"1 ADD ports": "portMappings is not supported", "2 ADD ipv6": "IPv6 is not supported"},
	} {
		t.Run(file, func(t *testing.T) {
			a := start(t)
			calls, err := cnicall.Load("../../testdata/cni/" + file)
			if err != nil {
				t.Fatal(err)
			}
			result := ""
			for _, c := range calls {
				got := a.exec(t, "stellar-cni", c.With(map[string]string{
					"ID": id, "NAMESPACE": "default", "ADDRESS": a.address, "NETNS": a.netns, "IP": "172.16.0.77", "RESULT": result,
				}))
				e := got.Error()
				if want, ok := refusals[c.Name]; ok {
					if e == nil || e.Code != 2 || !strings.Contains(e.Msg, want) || e.Details == "" || len(a.added) > 0 {
						t.Errorf("%s: %+v", c.Name, e)
					}
					continue
				}
				if e != nil {
					t.Fatalf("%s: %+v %s", c.Name, e, got.Stderr)
				}
				if c.Command == "ADD" {
					result = got.Stdout
				} else if got.Stdout != "" {
					t.Errorf("%s says %q", c.Name, got.Stdout)
				}
			}
			switch last := a.added[len(a.added)-1]; file {
			case "nerdctl-run.txtar":
				if last.Address != netip.MustParseAddr("172.16.0.77") || last.Hostname != "web2" || last.ContainerID != "default-"+id || len(a.added) != 2 {
					t.Errorf("asked for %+v", last)
				}
			case "nerdctl-refused.txtar":
				if last.MAC != "02:aa:bb:cc:dd:01" {
					t.Errorf("asked for %+v", last)
				}
			}
		})
	}
}

func TestCheck(t *testing.T) {
	a := start(t)
	prev := decoded(t, mustSucceed(t, a.run(t, call{command: "ADD"})))
	mustSucceed(t, a.run(t, call{command: "CHECK", keys: map[string]any{"prevResult": prev}}))
	want := api.AttachmentCheck{
		Attachment: api.Attachment{Network: "stellar", ContainerID: "default-web", Ifname: "eth0", NetNS: a.netns},
		Address:    netip.MustParseAddr("172.16.0.2"), MAC: "02:00:00:00:00:01",
	}
	if d := cmp.Diff(want, a.check[0], cmpopts.EquateComparable(netip.Addr{})); d != "" {
		t.Error(d)
	}
	for name, tt := range map[string]struct {
		keys map[string]any
		id   string
		code uint
	}{
		"no prevResult":    {nil, "", 7},
		"another address":  {map[string]any{"prevResult": json.RawMessage(fmt.Sprintf(`{"cniVersion":"1.1.0","interfaces":[{"name":"eth0","sandbox":%q}],"ips":[{"address":"172.16.0.9/22","interface":0}]}`, a.netns))}, "", 101},
		"not its result":   {map[string]any{"prevResult": json.RawMessage(`{"cniVersion":"1.1.0","interfaces":[{"name":"net7","sandbox":"/x"}]}`)}, "", 7},
		"never added":      {map[string]any{"prevResult": prev}, "default-never", 3},
		"older than CHECK": {map[string]any{"prevResult": prev, "cniVersion": "0.3.1"}, "", 1},
	} {
		if e := a.run(t, call{command: "CHECK", id: tt.id, keys: tt.keys}).Error(); e == nil || e.Code != tt.code {
			t.Errorf("%s: %+v, want code %d", name, e, tt.code)
		}
	}
}

func TestGC(t *testing.T) {
	a := start(t)
	for _, id := range []string{"default-web", "default-crashed", "default-db"} {
		mustSucceed(t, a.run(t, call{command: "ADD", id: id}))
	}
	valid := func(ids ...string) map[string]any {
		list := []any{}
		for _, id := range ids {
			list = append(list, map[string]any{"containerID": id, "ifname": "eth0"})
		}
		return map[string]any{"cni.dev/valid-attachments": list}
	}
	there := func(id string) bool {
		return a.Backend.CheckAttachment(t.Context(), api.AttachmentCheck{Attachment: api.Attachment{ContainerID: id, Ifname: "eth0"}}) == nil
	}
	mustSucceed(t, a.run(t, call{command: "GC", keys: valid("default-web", "default-db")}))
	if there("default-crashed") || !there("default-web") || !there("default-db") {
		t.Error("GC took the wrong ones")
	}
	if e := a.run(t, call{command: "GC"}).Error(); e == nil || e.Code != 7 || !there("default-web") {
		t.Errorf("GC that says nothing of valid ones: %+v", e)
	}
	mustSucceed(t, a.run(t, call{command: "GC", keys: valid()}))
	if there("default-web") || there("default-db") {
		t.Error("GC of all left some")
	}
	if e := a.run(t, call{command: "GC", version: "1.0.0", keys: valid()}).Error(); e == nil || e.Code != 1 {
		t.Errorf("GC of 1.0.0: %+v", e)
	}
}

// TestAgentDown: ADD and DEL are to be tried again, STATUS says so, and VERSION
// needs nobody.
func TestAgentDown(t *testing.T) {
	a := start(t)
	down := map[string]any{"address": "unix:///nonexistent/s", "cni.dev/valid-attachments": []any{}}
	for command, code := range map[string]uint{"ADD": 11, "DEL": 11, "GC": 11, "STATUS": 50} {
		e := a.run(t, call{command: command, keys: down}).Error()
		if e == nil || e.Code != code || !strings.Contains(e.Msg, "/nonexistent/s") || !strings.Contains(e.Details, "agent running") {
			t.Errorf("%s: %+v, want code %d", command, e, code)
		}
	}
	e := a.run(t, call{plugin: "stellar-cni-ipam", command: "ADD", ipam: down, keys: map[string]any{"address": a.address}}).Error()
	if e == nil || e.Code != 11 {
		t.Errorf("the IPAM plugin's address is of its section: %+v", e)
	}
	if got := mustSucceed(t, a.run(t, call{command: "VERSION", conf: "x"})); !strings.Contains(got, `"supportedVersions":["0.3.1","0.4.0","1.0.0","1.1.0"]`) {
		t.Errorf("VERSION = %s", got)
	}
	// The environment says where the agent is when the configuration does not.
	conf := `{"cniVersion":"1.1.0","name":"stellar","type":"stellar-cni"}`
	mustSucceed(t, a.run(t, call{command: "STATUS", conf: conf, env: []string{"STELLAR_ADDRESS=" + a.address}}))
	if e := a.run(t, call{command: "ADD", conf: conf, env: []string{"STELLAR_ADDRESS=stellar.sock"}}).Error(); e == nil || e.Code != 7 {
		t.Errorf("a bad address: %+v", e)
	}
}

func TestAgentSlow(t *testing.T) {
	a := start(t)
	a.delay = time.Minute
	began := time.Now()
	e := a.run(t, call{command: "ADD", keys: map[string]any{"timeout": "300ms"}}).Error()
	if e == nil || e.Code != 11 || time.Since(began) > 20*time.Second {
		t.Errorf("after %v: %+v", time.Since(began), e)
	}
	// One that does not even read.
	path := strings.TrimPrefix(a.address, "unix://") + "2"
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	e = a.run(t, call{command: "DEL", keys: map[string]any{"timeout": "200ms", "address": "unix://" + path}}).Error()
	if e == nil || e.Code != 11 {
		t.Errorf("an agent that hangs: %+v", e)
	}
}

// TestAgentStarting: a call waits for an agent that is only just starting, and
// gives its reason when that takes too long.
func TestAgentStarting(t *testing.T) {
	a := start(t)
	a.Fail("AddAttachment", api.Errorf(api.CodeNoLeader, "the node is not ready"))
	time.AfterFunc(300*time.Millisecond, func() { a.Fail("AddAttachment", nil) })
	mustSucceed(t, a.run(t, call{command: "ADD", keys: map[string]any{"timeout": "30s"}}))
	if len(a.added) < 2 {
		t.Error("it was served at once, which proves nothing")
	}
	// One whose socket comes a moment later.
	late := a.address + "2"
	served := make(chan error, 1)
	time.AfterFunc(200*time.Millisecond, func() { served <- os.Symlink("s", strings.TrimPrefix(late, "unix://")) })
	mustSucceed(t, a.run(t, call{command: "DEL", keys: map[string]any{"address": late}}))
	if err := <-served; err != nil {
		t.Error(err)
	}
	a.Fail("AddAttachment", api.Errorf(api.CodeNoLeader, "the node is not ready"))
	if e := a.run(t, call{command: "ADD", keys: map[string]any{"timeout": "3s"}}).Error(); e == nil || e.Code != 11 || e.Msg != "the node is not ready" {
		t.Errorf("too long: %+v", e)
	}
}

// TestAgentsRefusals: each has its code, and what the agent hints at.
func TestAgentsRefusals(t *testing.T) {
	a := start(t)
	for code, want := range map[api.Code]uint{
		api.CodeInternal: 999, api.CodeInvalid: 7, api.CodeUnreachable: 11, api.CodeNotFound: 999, api.CodeUnhealthy: 11, api.CodeNoLeader: 11,
		api.CodeNotInitialized: 11, api.CodeConflict: 101, api.CodeDenied: 103, api.CodeTimeout: 11, api.CodeUnknownOutcome: 11, api.CodeExhausted: 102,
	} {
		a.Fail("AddAttachment", api.Errorf(code, "no, %s", code).WithHint("do this"))
		if e := a.run(t, call{command: "ADD", keys: map[string]any{"timeout": "3s"}}).Error(); e == nil || *e != (cnicall.Error{Code: want, Msg: "no, " + string(code), Details: "do this"}) {
			t.Errorf("%s: %+v, want code %d", code, e, want)
		}
	}
	a.Fail("DelAttachment", api.Errorf(api.CodeNotFound, "never heard of it"))
	mustSucceed(t, a.run(t, call{command: "DEL"}))
	a.Fail("DelAttachment", api.Errorf(api.CodeInternal, "cannot"))
	if e := a.run(t, call{command: "DEL"}).Error(); e == nil || e.Code != 999 {
		t.Errorf("DEL that failed: %+v", e)
	}
	a.Fail("AttachmentsReady", api.Errorf(api.CodeNotInitialized, "no cluster yet").WithHint("init"))
	if e := a.run(t, call{command: "STATUS"}).Error(); e == nil || *e != (cnicall.Error{Code: 50, Msg: "no cluster yet", Details: "init"}) {
		t.Errorf("STATUS: %+v", e)
	}
}
