package cniplugin

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

type m = map[string]any

func ips(list ...any) []any { return list }

// TestMalformed: what cannot be right is refused before the agent is asked, with
// CNI's code for it.
func TestMalformed(t *testing.T) {
	a := start(t)
	for name, tt := range map[string]struct {
		call
		code uint
		text string
	}{
		"no JSON":              {call{conf: `{"cniVersion":`}, 6, "unexpected end"},
		"empty":                {call{conf: ` `}, 6, ""},
		"binary":               {call{conf: "\x00\xff"}, 6, ""},
		"a list":               {call{conf: `[]`}, 6, ""},
		"null":                 {call{conf: `null`}, 7, "name"},
		"no name":              {call{keys: m{"name": ""}}, 7, "name"},
		"name that is none":    {call{keys: m{"name": "a b"}}, 7, ""},
		"no version":           {call{keys: m{"cniVersion": nil}}, 1, ""},
		"version that is none": {call{version: "one"}, 1, "versions"},
		"address of a number":  {call{keys: m{"address": 5}}, 7, "address is a JSON number"},
		"address that is none": {call{keys: m{"address": "tcp://x"}}, 7, "unix:///path"},
		"timeout of a number":  {call{keys: m{"timeout": 5}}, 7, "timeout is a JSON number"},
		"timeout unitless":     {call{keys: m{"timeout": "5"}}, 7, `timeout "5"`},
		"timeout negative":     {call{keys: m{"timeout": "-1s"}}, 7, "timeout"},
		"mtu in words":         {call{keys: m{"mtu": "1400"}}, 7, "mtu is a JSON string"},
		"mtu negative":         {call{keys: m{"mtu": -1}}, 7, "negative"},
		"mtu in parts":         {call{keys: m{"mtu": 1400.5}}, 7, "mtu"},
		"ipam of another":      {call{keys: m{"ipam": m{"type": "host-local"}}}, 7, "hands out addresses itself"},
		"ipam a list":          {call{keys: m{"ipam": ips(1)}}, 7, "ipam"},
		"ips a string":         {call{keys: m{"runtimeConfig": m{"ips": "10.0.0.1"}}}, 7, "runtimeConfig.ips"},
		"ips of numbers":       {call{keys: m{"runtimeConfig": m{"ips": ips(1)}}}, 7, "runtimeConfig.ips"},
		"ips of no address":    {call{keys: m{"runtimeConfig": m{"ips": ips("10.0.0")}}}, 7, `runtimeConfig.ips: "10.0.0"`},
		"ips empty":            {call{keys: m{"args": m{"cni": m{"ips": ips("")}}}}, 7, `args.cni.ips: ""`},
		"ips bad length":       {call{keys: m{"args": m{"cni": m{"ips": ips("10.0.0.1/40")}}}}, 7, "args.cni.ips"},
		"ips with a zone":      {call{keys: m{"args": m{"cni": m{"ips": ips("fe80::1%eth0")}}}}, 7, "args.cni.ips"},
		"ips IPv6":             {call{keys: m{"args": m{"cni": m{"ips": ips("fd00::1/64")}}}}, 2, "IPv6 is not supported: fd00::1"},
		"two ips":              {call{keys: m{"args": m{"cni": m{"ips": ips("10.0.0.1", "10.0.0.2")}}}}, 7, "two addresses"},
		"two ips, two places":  {call{args: "IP=10.0.0.1", keys: m{"runtimeConfig": m{"ips": ips("10.0.0.2")}}}, 7, "10.0.0.1 and 10.0.0.2"},
		"mac of nothing":       {call{keys: m{"runtimeConfig": m{"mac": "aa:bb"}}}, 7, `"aa:bb" is not a MAC`},
		"mac of eight bytes":   {call{keys: m{"runtimeConfig": m{"mac": "00:00:00:00:00:00:00:01"}}}, 7, "MAC"},
		"portMappings a map":   {call{keys: m{"runtimeConfig": m{"portMappings": m{}}}}, 7, "portMappings"},
		"portMappings":         {call{keys: m{"runtimeConfig": m{"portMappings": ips(m{"hostPort": 80})}}}, 2, `{\"hostPort\":80}`},
		"prevResult a string":  {call{keys: m{"prevResult": "x"}}, 7, "prevResult"},
		"prevResult of no ip":  {call{keys: m{"prevResult": m{"ips": ips(m{"address": "x"})}}}, 7, "prevResult"},
		"prevResult too new":   {call{keys: m{"prevResult": m{"cniVersion": "9.0.0"}}}, 7, "prevResult"},

		"args of no pair":      {call{args: "IP"}, 4, `"IP" is not of the form`},
		"args without a key":   {call{args: "=x"}, 4, "form"},
		"args unknown":         {call{args: "K8S_POD_NAME=x"}, 4, `"K8S_POD_NAME" is not known`},
		"args unknown, false":  {call{args: "IgnoreUnknown=false;X=1"}, 4, "known"},
		"args unsure":          {call{args: "IgnoreUnknown=maybe"}, 4, "maybe"},
		"args bad IP":          {call{args: "IgnoreUnknown=1;IP=10.0.0.256"}, 4, "10.0.0.256"},
		"args IPv6":            {call{args: "IP=fd00::5"}, 2, "IPv6"},
		"args two IPs":         {call{args: "IP=10.0.0.1;IP=10.0.0.2"}, 4, "two addresses"},
		"args bad MAC":         {call{args: "MAC=x"}, 4, "MAC"},
		"args endless":         {call{args: "X=" + strings.Repeat("x", 4000)}, 4, "known"},
		"args, a control code": {call{args: "\x1b[2J"}, 4, `\x1b`},

		"id of a path":      {call{id: "../x"}, 4, ""},
		"ifname too long":   {call{ifname: "abcdefghijklmnop"}, 4, ""},
		"ifname of a path":  {call{ifname: "a/b"}, 4, ""},
		"command unknown":   {call{command: "GET"}, 4, "GET"},
		"command of a case": {call{command: "add"}, 4, "add"},
	} {
		if tt.command == "" {
			tt.command = "ADD"
		}
		e := a.run(t, tt.call).Error()
		if e == nil || e.Code != tt.code || !strings.Contains(e.Msg+e.Details, tt.text) || len(e.Msg) > 400 || strings.Contains(e.Msg, "\x1b") {
			t.Errorf("%s: %+v, want code %d and %q", name, e, tt.code, tt.text)
		}
	}
	ipam := call{plugin: "stellar-cni-ipam", command: "ADD"}
	for name, tt := range map[string]struct {
		ipam m
		text string
	}{
		"routes a string": {m{"routes": "default"}, "ipam.routes"},
		"routes of no ip": {m{"routes": ips(m{"dst": "x"})}, "x"},
		"timeout":         {m{"timeout": "soon"}, "timeout"},
		"address":         {m{"address": true}, "ipam.address is a JSON bool"},
	} {
		ipam.ipam = tt.ipam
		if e := a.run(t, ipam).Error(); e == nil || e.Code != 7 || !strings.Contains(e.Msg, tt.text) {
			t.Errorf("ipam %s: %+v", name, e)
		}
	}
	if len(a.added) > 0 {
		t.Errorf("the agent was asked for %+v", a.added)
	}
	// DEL looks at none of what only ADD needs.
	mustSucceed(t, a.run(t, call{command: "DEL", args: "nonsense", keys: m{"mtu": "x", "runtimeConfig": 5, "prevResult": "x", "ipam": 1, "args": "x"}}))
	mustSucceed(t, a.run(t, call{plugin: "stellar-cni-ipam", command: "DEL", args: "nonsense", ipam: m{"routes": 5}, keys: m{"address": 5}}))
}

func TestWish(t *testing.T) {
	addr := netip.MustParseAddr("172.16.0.9")
	for name, tt := range map[string]struct {
		args, conf string
		want       wish
	}{
		"nothing":     {"", `{}`, wish{}},
		"empty":       {";IP=;MAC=;", `{"args":{"cni":{}},"runtimeConfig":{"ips":[],"portMappings":[]}}`, wish{}},
		"nulls":       {"", `{"mtu":null,"args":null,"ipam":null,"dns":null,"runtimeConfig":{"ips":null,"mac":null,"portMappings":null},"prevResult":null}`, wish{}},
		"others keys": {"IgnoreUnknown=TRUE;X=a=b;Y=", `{"isGateway":true,"ipMasq":"x","bridge":5,"args":{"cni":{"labels":[1]},"org":1},"runtimeConfig":{"bandwidth":{}}}`, wish{}},
		"ip in args":  {"IP=172.16.0.9", `{}`, wish{address: addr}},
		"everywhere":  {"IP=172.16.0.9,172.16.0.9", `{"args":{"cni":{"ips":["172.16.0.9/22"]}},"runtimeConfig":{"ips":["::ffff:172.16.0.9"]}}`, wish{address: addr}},
		"mac in args": {"MAC=02-00-00-00-00-0A", `{}`, wish{mac: "02:00:00:00:00:0a"}},
		"mac in both": {"MAC=x", `{"args":{"cni":{"mac":"02:00:00:00:00:01"}}}`, wish{mac: "02:00:00:00:00:01"}},
		"mac in all":  {"MAC=x", `{"args":{"cni":{"mac":"y"}},"runtimeConfig":{"mac":"02:00:00:00:00:02"}}`, wish{mac: "02:00:00:00:00:02"}},
		"hostname":    {"NERDCTL_CNI_DHCP_HOSTNAME=web-2.example", `{}`, wish{hostname: "web-2.example"}},
		"no hostname": {"NERDCTL_CNI_DHCP_HOSTNAME=web_2", `{}`, wish{warnings: []string{`the host name "web_2" is no DNS name and is not recorded`}}},
	} {
		c, err := parseConf([]byte(tt.conf))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		a, err := parseArgs(tt.args)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got, err := new(plugin).wish(c, a)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if d := cmp.Diff(tt.want, got, cmp.AllowUnexported(wish{}), cmpopts.EquateComparable(netip.Addr{})); d != "" {
			t.Errorf("%s:\n%s", name, d)
		}
	}
	// Published ports are of no concern to an IPAM plugin: the other one makes the interface.
	c, _ := parseConf([]byte(`{"runtimeConfig":{"portMappings":[{"hostPort":80}]}}`))
	if _, err := (&plugin{ipamOnly: true}).wish(c, args{}); err != nil {
		t.Error(err)
	}
}

// FuzzRequest: whatever comes in, what goes to the agent is well formed or nothing.
func FuzzRequest(f *testing.F) {
	f.Add("IgnoreUnknown=1;IP=10.0.0.1;MAC=02:00:00:00:00:01;NERDCTL_CNI_DHCP_HOSTNAME=web2", `{"cniVersion":"1.1.0","name":"stellar"}`)
	f.Add("IP=fd00::5", `{"runtimeConfig":{"ips":["10.0.0.1/8"],"mac":"02:00:00:00:00:01","portMappings":[{}]}}`)
	f.Add(";;=;", `{"args":{"cni":{"ips":["x"]}},"prevResult":{"cniVersion":"0.4.0","ips":[{"version":"4","address":"10.0.0.1/8"}]}}`)
	f.Add("", `{"ipam":{"type":"x","routes":[null,{"dst":"0.0.0.0/0"}]},"prevResult":{"interfaces":[null],"ips":[null]},"cni.dev/valid-attachments":[{}]}`)
	f.Fuzz(func(t *testing.T, arguments, conf string) {
		p := &plugin{}
		check := func(err *types.Error) bool {
			if err == nil {
				return true
			}
			if err.Code == 0 || err.Msg == "" || len(err.Msg) > 2000+4*len(conf) {
				t.Errorf("error %d %q", err.Code, err.Msg)
			}
			return false
		}
		_, err := p.parseLookup([]byte(conf))
		check(err)
		a, err := parseArgs(arguments)
		if !check(err) {
			return
		}
		c, err := parseConf([]byte(conf))
		if !check(err) {
			return
		}
		if prev, err := c.previous(); check(err) && prev != nil {
			if _, _, err := ours(prev, &skel.CmdArgs{IfName: "eth0"}); err != nil {
				check(err)
			}
		}
		w, err := p.wish(c, a)
		if !check(err) {
			return
		}
		if w.address.IsValid() && !w.address.Is4() || w.mac != "" && len(w.mac) != 17 || !utf8.ValidString(w.hostname) {
			t.Errorf("wish %+v", w)
		}
		if _, err := json.Marshal(w.hostname); err != nil {
			t.Error(err)
		}
	})
}
