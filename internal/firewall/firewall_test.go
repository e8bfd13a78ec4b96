package firewall

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	forward = Hook{Family: "ip", Name: "forward"}
	out     = Packet{In: "stellar0", Out: "eth0", Src: netip.MustParseAddr("172.16.0.2"), Dst: netip.MustParseAddr("172.16.4.2")}
)

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// chainOf makes an nftables ruleset of one base chain from its rules' JSON.
func chainOf(t *testing.T, policy string, rules ...string) Ruleset {
	t.Helper()
	doc := `{"nftables":[{"chain":{"family":"inet","table":"fw","name":"f","type":"filter","hook":"forward","prio":0,"policy":"` + policy + `"}},
		{"chain":{"family":"inet","table":"fw","name":"sub"}},
		{"set":{"family":"inet","name":"inside","table":"fw","type":"ipv4_addr","elem":["9.9.9.9",{"prefix":{"addr":"172.16.0.0","len":22}}]}}`
	for _, r := range rules {
		chain := "f"
		if rest, ok := strings.CutPrefix(r, "sub:"); ok {
			chain, r = "sub", rest
		}
		doc += `,{"rule":{"family":"inet","table":"fw","chain":"` + chain + `","handle":7,"expr":[` + r + `]}}`
	}
	rs, err := ParseNFT([]byte(doc+`]}`), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

// Parts of rules as nft lists them.
const (
	drop        = `{"drop":null}`
	accept      = `{"accept":null}`
	established = `{"match":{"op":"in","left":{"ct":{"key":"state"}},"right":["established","related"]}},`
	port        = `{"match":{"op":"==","left":{"payload":{"protocol":"tcp","field":"dport"}},"right":443}},`
	mark        = `{"match":{"op":"==","left":{"meta":{"key":"mark"}},"right":5}},`
	fromSubnet  = `{"match":{"op":"==","left":{"payload":{"protocol":"ip","field":"saddr"}},"right":{"prefix":{"addr":"172.16.0.0","len":22}}}},`
	fromElse    = `{"match":{"op":"==","left":{"payload":{"protocol":"ip","field":"saddr"}},"right":"10.0.0.1"}},`
	notSubnet   = `{"match":{"op":"!=","left":{"payload":{"protocol":"ip","field":"saddr"}},"right":{"prefix":{"addr":"172.16.0.0","len":22}}}},`
	inSet       = `{"match":{"op":"==","left":{"payload":{"protocol":"ip","field":"saddr"}},"right":"@inside"}},`
	byBridge    = `{"match":{"op":"==","left":{"meta":{"key":"iifname"}},"right":{"set":["lo","stellar*"]}}},`
	toDocker    = `{"match":{"op":"==","left":{"meta":{"key":"oifname"}},"right":"docker0"}},`
	inet6       = `{"match":{"op":"==","left":{"payload":{"protocol":"ip6","field":"daddr"}},"right":"fe80::1"}},`
	toOurs      = `{"match":{"op":"==","left":{"meta":{"key":"oifgroup"}},"right":147}},`
	notToOurs   = `{"match":{"op":"!=","left":{"meta":{"key":"oifgroup"}},"right":147}},`
	toDefault   = `{"match":{"op":"==","left":{"meta":{"key":"oifgroup"}},"right":"default"}},`
	jump        = `{"jump":{"target":"sub"}}`
	goSub       = `{"goto":{"target":"sub"}}`
	back        = `{"return":null}`
	random      = `{"match":{"op":"<","left":{"numgen":{"mode":"random","mod":10,"offset":0}},"right":3}},`
	stateMap    = `{"vmap":{"key":{"ct":{"key":"state"}},"data":{"set":[["invalid",{"drop":null}],["established",{"accept":null}]]}}}`
	queue       = `{"queue":null}`
)

// TestJudge: what is certain, what is a doubt, what is nothing.
func TestJudge(t *testing.T) {
	t.Parallel()
	answer := out
	answer.Established = true
	grouped, ungrouped := out, out
	grouped.Groups, ungrouped.Groups = map[string]uint32{out.Out: 147}, map[string]uint32{out.Out: 0}
	tests := []struct {
		name   string
		packet Packet
		policy string
		rules  []string
		want   string // the findings' verdicts, in capitals when certain
	}{
		{"no rules", out, "accept", nil, ""},
		{"policy drop", out, "drop", nil, "DROP"},
		{"a new packet meets the policy", out, "drop", []string{established + accept}, "DROP"},
		{"an answer does not", answer, "drop", []string{established + accept}, ""},
		{"a port let through", out, "drop", []string{port + accept}, "DROP"},
		{"a port dropped", out, "accept", []string{port + drop}, "drop"},
		{"a mark let through", out, "drop", []string{mark + accept}, "drop"},
		{"a mark dropped", out, "accept", []string{mark + drop}, "drop"},
		{"a mark dropped and then all", out, "drop", []string{mark + drop}, "drop DROP"},
		{"the subnet dropped", out, "accept", []string{fromSubnet + drop}, "DROP"},
		{"another source dropped", out, "accept", []string{fromElse + drop}, ""},
		{"all but the subnet dropped", out, "accept", []string{notSubnet + drop}, ""},
		{"in a set", out, "accept", []string{inSet + drop}, "DROP"},
		{"the bridge let through", out, "drop", []string{byBridge + accept}, ""},
		{"another interface dropped", out, "accept", []string{toDocker + drop}, ""},
		{"two matches, one of which fails", out, "accept", []string{byBridge + toDocker + drop}, ""},
		{"a group, not known which", out, "accept", []string{toOurs + drop}, "drop"},
		{"its group", grouped, "accept", []string{toOurs + drop}, "DROP"},
		{"another group", ungrouped, "accept", []string{toOurs + drop}, ""},
		{"all but its group", grouped, "accept", []string{notToOurs + drop}, ""},
		{"all but another group", ungrouped, "accept", []string{notToOurs + drop}, "DROP"},
		{"the group without a number", ungrouped, "accept", []string{toDefault + drop}, "DROP"},
		{"IPv6", out, "accept", []string{inet6 + drop}, ""},
		{"a chain drops", out, "accept", []string{jump, "sub:" + drop}, "DROP"},
		{"a chain for another interface drops", out, "accept", []string{toDocker + jump, "sub:" + drop}, ""},
		{"a chain accepts", out, "drop", []string{jump, "sub:" + accept}, ""},
		{"a chain returns first", out, "accept", []string{jump, "sub:" + back, "sub:" + drop}, ""},
		{"a chain returns some", out, "accept", []string{jump, "sub:" + port + back, "sub:" + drop}, "DROP"},
		{"a chain for a mark accepts", out, "drop", []string{mark + jump, "sub:" + accept}, "drop"},
		{"a chain for a mark goes on", out, "drop", []string{mark + jump}, "DROP"},
		{"goto does not come back", out, "accept", []string{goSub, drop}, ""},
		{"goto comes to the policy", out, "drop", []string{goSub}, "DROP"},
		{"one in ten", out, "accept", []string{random + drop}, "drop"},
		{"a map of verdicts", out, "accept", []string{stateMap}, ""},
		{"a map lets an answer through", answer, "drop", []string{stateMap}, ""},
		{"a map does not let a new one through", out, "drop", []string{stateMap}, "DROP"},
		{"a program decides", out, "accept", []string{queue}, "drop"},
		{"nothing that is known", out, "accept", []string{`{"match":{"op":"==","left":{"socket":{"key":"mark"}},"right":1}},` + drop}, "drop"},
	}
	for _, tt := range tests {
		var got []string
		for _, f := range chainOf(t, tt.policy, tt.rules...).Judge(forward, tt.packet) {
			if f.Certain {
				f.Verdict = strings.ToUpper(f.Verdict)
			}
			got = append(got, f.Verdict)
		}
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, s, tt.want)
		}
	}
}

// TestPriority: chains are met in the order of their priorities, and an accept ends
// one chain alone.
func TestPriority(t *testing.T) {
	t.Parallel()
	doc := `{"nftables":[
		{"chain":{"family":"ip","table":"late","name":"f","type":"filter","hook":"forward","prio":10,"policy":"drop"}},
		{"chain":{"family":"inet","table":"early","name":"f","type":"filter","hook":"forward","prio":-10,"policy":"accept"}},
		{"chain":{"family":"ip6","table":"six","name":"f","type":"filter","hook":"forward","prio":-20,"policy":"drop"}},
		{"chain":{"family":"inet","table":"in","name":"f","type":"filter","hook":"input","prio":-20,"policy":"drop"}},
		{"rule":{"family":"inet","table":"early","chain":"f","handle":3,"expr":[` + accept + `]}}]}`
	rs, err := ParseNFT([]byte(doc), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []Finding{{Certain: true, Verdict: "drop", Where: "nftables chain ip late f", Rule: "policy drop",
		Mend: "nft insert rule ip late f ip saddr 172.16.0.2 ip daddr 172.16.4.2 accept"}}
	if diff := cmp.Diff(want, rs.Judge(forward, out)); diff != "" {
		t.Error(diff)
	}
}

// TestReal reads what nft and iptables really print.
func TestReal(t *testing.T) {
	t.Parallel()
	rs, err := ParseNFT([]byte(read(t, "ruleset.json")), read(t, "ruleset.txt"), nil)
	if err != nil {
		t.Fatal(err)
	}
	frame := Packet{In: "veth0", Src: out.Src, Dst: out.Dst}
	tests := []struct {
		name string
		hook Hook
		p    Packet
		want string
	}{
		{"inet", forward, Packet{In: "eth0", Out: "a", Src: netip.MustParseAddr("10.1.1.1"), Dst: out.Dst}, `iifname "eth*" oifname { "a", "b" } ip saddr @s drop`},
		{"a port of the bridge", Hook{"bridge", "forward"}, frame, `iifname "veth0" drop`},
		{"its address resolution", Hook{"bridge", "forward"}, Packet{In: "veth9", ARP: true, Src: out.Src, Dst: out.Dst}, "ether type arp drop"},
		{"ingress", Hook{"netdev", "ingress"}, Packet{In: "lo", Src: netip.MustParseAddr("1.1.1.1"), Dst: out.Dst}, "ip saddr 1.1.1.1 drop"},
		{"ingress of another interface", Hook{"netdev", "ingress"}, Packet{In: "eth0", Src: netip.MustParseAddr("1.1.1.1"), Dst: out.Dst}, ""},
	}
	for _, tt := range tests {
		got := ""
		for _, f := range rs.Judge(tt.hook, tt.p) {
			if f.Certain {
				got = f.Rule
			}
		}
		if got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	rewrites := rs.Rewrites(Packet{Out: "eth0", Src: out.Src, Dst: out.Dst})
	want := []Rewrite{{true, "nftables chain inet foo po", "ip saddr 172.16.0.0/22 masquerade", "nft delete rule inet foo po handle 40"}}
	if diff := cmp.Diff(want, rewrites); diff != "" {
		t.Error(diff)
	}
	if got := rs.Rewrites(Packet{Out: "eth0", Src: netip.MustParseAddr("10.0.0.1"), Dst: out.Dst}); len(got) > 0 {
		t.Errorf("%+v", got)
	}
}

// docker is what Docker makes, with a user's own rule in DOCKER-USER.
const docker = `# Generated by iptables-save
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER-USER - [0:0]
:STELLAR - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A DOCKER-USER -i eth1 -m comment --comment "the user's own" -j DROP
-A DOCKER-USER -p tcp -m tcp --dport 25 -j REJECT --reject-with icmp-port-unreachable
-A DOCKER-USER -m comment --comment stellar -j STELLAR
-A DOCKER-USER -j RETURN
-A STELLAR -i stellar0 -j ACCEPT
-A STELLAR -o stellar0 -j ACCEPT
COMMIT
*nat
:POSTROUTING ACCEPT [0:0]
-A POSTROUTING -s 192.168.0.0/16 ! -o docker0 -j MASQUERADE
COMMIT
`

func TestIptables(t *testing.T) {
	t.Parallel()
	through := out
	through.In, through.Out = "eth1", "stellar0"
	elsewhere := Packet{In: "eth0", Out: "eth1", Src: out.Src, Dst: out.Dst}
	tests := []struct {
		name, save string
		p          Packet
		want       []Finding
	}{
		{"ours let through, a port rejected", docker, out, []Finding{
			{false, "reject", "iptables-nft chain DOCKER-USER", "-p tcp -m tcp --dport 25 -j REJECT --reject-with icmp-port-unreachable",
				"iptables-nft -D DOCKER-USER -p tcp -m tcp --dport 25 -j REJECT --reject-with icmp-port-unreachable"}}},
		{"the user's own rule comes first", docker, through, []Finding{
			{true, "drop", "iptables-nft chain DOCKER-USER", `-i eth1 -m comment --comment "the user's own" -j DROP`,
				`iptables-nft -D DOCKER-USER -i eth1 -m comment --comment "the user's own" -j DROP`}}},
		{"policy", strings.Replace(docker, "-A DOCKER-USER -p tcp -m tcp --dport 25 -j REJECT --reject-with icmp-port-unreachable\n", "", 1), elsewhere, []Finding{
			{true, "drop", "iptables-nft chain FORWARD", "policy drop", "iptables-nft -I FORWARD -s 172.16.0.2 -d 172.16.4.2 -j ACCEPT"}}},
		{"a set", "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -m set --match-set bad src -j DROP\nCOMMIT\n", out, []Finding{
			{false, "drop", "iptables-nft chain FORWARD", "-m set --match-set bad src -j DROP", "iptables-nft -I FORWARD -s 172.16.0.2 -d 172.16.4.2 -j ACCEPT"}}},
		{"interfaces by their beginning", "*raw\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -i stell+ -g G\n:G - [0:0]\n-A G -j LOG\nCOMMIT\n", out, nil},
	}
	for _, tt := range tests {
		if diff := cmp.Diff(tt.want, ParseIptables("iptables-nft", tt.save).Judge(forward, tt.p)); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
	rewrites := ParseIptables("iptables-legacy", docker).Rewrites(Packet{Out: "eth0", Src: netip.MustParseAddr("192.168.7.7"), Dst: out.Dst})
	if len(rewrites) != 1 || !rewrites[0].Certain || rewrites[0].Mend != "iptables-legacy -t nat -D POSTROUTING -s 192.168.0.0/16 ! -o docker0 -j MASQUERADE" {
		t.Errorf("%+v", rewrites)
	}
}

// TestLoops: rules that others wrote do not hold up the walk.
func TestLoops(t *testing.T) {
	t.Parallel()
	rs := chainOf(t, "drop", jump, "sub:"+jump, "sub:"+jump)
	if got := rs.Judge(forward, out); len(got) > 1 {
		t.Errorf("%+v", got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(docker)
	f.Add(`{"nftables":[{"rule":{"expr":[{"vmap":{"data":{"set":[[1]]}}}]}}]}`)
	f.Fuzz(func(_ *testing.T, text string) {
		rs := ParseIptables("iptables-nft", text)
		rs.Judge(forward, out)
		rs.Rewrites(out)
		if rs, err := ParseNFT([]byte(text), text, nil); err == nil {
			rs.Judge(forward, out)
		}
	})
}

// TestGuardIsNotJudged: what the agent itself keeps containers from is no
// misfortune of the packet, except in its other table.
func TestGuardIsNotJudged(t *testing.T) {
	t.Parallel()
	for family, want := range map[string]int{"bridge": 0, "ip": 0, "inet": 1} {
		doc := `{"nftables":[{"chain":{"family":"` + family + `","table":"stellar","name":"f","type":"filter","hook":"forward","prio":0,"policy":"accept"}},
			{"rule":{"family":"` + family + `","table":"stellar","chain":"f","handle":7,"expr":[` + drop + `]}}]}`
		rs, err := ParseNFT([]byte(doc), "", nil)
		if err != nil {
			t.Fatal(err)
		}
		hook := forward
		if family == "bridge" {
			hook.Family = "bridge"
		}
		if got := rs.Judge(hook, out); len(got) != want {
			t.Errorf("%s stellar: %+v", family, got)
		}
	}
}
