package check

import (
	"fmt"
	"strconv"
	"strings"

	"stellar.io/stellar/api"
)

const (
	// leastFree is how much room the data directory needs: a log of some thousand
	// entries, a snapshot beside it, and the journal.
	leastFree = 64 << 20
	// oldestKernel has pidfd_open, nft's inet family with NAT, and rp_filter by netlink.
	oldestMajor, oldestMinor = 5, 10
	// oldestContainerd is the first of the versions that the events of this agent were
	// written for.
	oldestContainerdMajor, oldestContainerdMinor = 1, 6
	// oldestRuntime of runc and of crun has createRuntime hooks, by which stellar-runc
	// and nerdctl's own networks are served.
	oldestRuntimeMajor, oldestRuntimeMinor = 1, 0
)

// machine judges what is no part of the network.
func (j *judgement) machine() {
	m := j.f.Machine
	if major, minor, ok := version(m.Release); ok && older(major, minor, oldestMajor, oldestMinor) {
		j.error(Kernel, m.Release, fmt.Sprintf("the kernel is Linux %s, at least %d.%d is needed", m.Release, oldestMajor, oldestMinor), "install a newer kernel of the distribution")
	}
	for _, what := range m.Lacks {
		j.error(Kernel, what, "the kernel cannot do "+what, "modprobe "+what+"; or install a kernel that has it")
	}
	if m.NoBridgeFamily != "" && !j.f.Routed {
		j.error(Kernel, "nftables bridge family", "the kernel takes no nftables rules for bridges: "+m.NoBridgeFamily+"; no container gets its network in bridge mode", `install a kernel with CONFIG_NF_TABLES_BRIDGE; or go without a bridge: mode = "routed" in /etc/stellar/config.toml`)
	}
	if m.FreeKnown && m.Free < leastFree {
		j.error(DiskFull, m.DataDir, fmt.Sprintf("the file system of %s has %d MiB left, %d are needed", m.DataDir, m.Free>>20, leastFree>>20), "make room: du -xh --max-depth=1 "+m.DataDir)
	}
	if m.DirProblem != "" {
		j.error(DataDir, m.DataDir, m.DirProblem, "chown root:root "+m.DataDir+"; chmod 700 "+m.DataDir)
	}
	for _, p := range m.Ports {
		by := "another program"
		if p.Process != "" {
			by = p.Process
		}
		j.error(PortTaken, p.Address.String(), fmt.Sprintf("%s has %s, which the agent needs for %s", by, p.Address, p.Use), fmt.Sprintf("ss -ltnp sport = :%d shows it; stop it, or choose another port in /etc/stellar/config.toml", p.Address.Port()))
	}
	for _, n := range m.Managers {
		name := map[string]string{Networkd: "systemd-networkd", NetworkManager: "NetworkManager"}[n.Code]
		j.warn(n.Code, name, name+" runs and "+n.Does, fmt.Sprintf("install %s (it is in packaging/systemd); then: systemctl reload-or-restart %s", n.DropIn, name))
	}
	need := len(j.f.Endpoints) + len(j.f.Peers)
	if j.f.Routed { // permanent entries do not count
		need = len(j.f.Peers)
	}
	if m.NeighbourLimit > 0 && need*10 > m.NeighbourLimit*9 {
		j.warn(NeighbourTable, "net.ipv4.neigh.default.gc_thresh3", fmt.Sprintf("%d containers and nodes, and the kernel keeps %d neighbours at most", need, m.NeighbourLimit), "install 60-stellar.conf (it is in packaging/systemd); then: sysctl --system")
	}
}

// daemons judges containerd and what the agent needs to hold programs.
func (j *judgement) daemons() {
	m := j.f.Machine
	c := m.Containerd
	if c.Down != "" {
		j.warn(ContainerdDown, c.Address, fmt.Sprintf("containerd does not answer at %s: %s; running containers keep their networks", c.Address, c.Down), "systemctl restart containerd; or name its socket: containerd.address in /etc/stellar/config.toml")
	}
	if major, minor, ok := version(c.Version); ok && older(major, minor, oldestContainerdMajor, oldestContainerdMinor) {
		j.error(ContainerdVersion, c.Version, fmt.Sprintf("containerd is %s, at least %d.%d is needed", c.Version, oldestContainerdMajor, oldestContainerdMinor), "install a newer containerd")
	}
	for _, r := range m.Runtimes {
		major, minor, ok := version(r.Version)
		switch {
		case r.Problem != "":
			j.error(NoRuntime, r.Name, fmt.Sprintf("containerd's runtime %s %s: its containers cannot start", r.Name, r.Problem), "install runc (apt-get install runc), or mend BinaryName in containerd's configuration; of stellar-runc: STELLAR_RUNC_RUNTIME in containerd's environment")
		case ok && r.Kind != "" && older(major, minor, oldestRuntimeMajor, oldestRuntimeMinor):
			j.error(NoRuntime, r.Name, fmt.Sprintf("containerd's runtime %s is %s %s, at least %d.%d is needed", r.Name, r.Kind, r.Version, oldestRuntimeMajor, oldestRuntimeMinor), "install a newer "+r.Kind)
		}
	}
	if m.Ptrace != "" && !m.HoldOff {
		j.warn(Ptrace, "ptrace", m.Ptrace+": a program may start before its network is up", "give the agent CAP_SYS_PTRACE (systemctl cat stellar shows its unit), or switch holding off: hold.enabled = false")
	}
}

// agent takes over what the agent says of itself and nothing else here judges.
func (j *judgement) agent() {
	if j.f.AgentDown != "" && j.f.Member {
		j.error(AgentDown, j.f.Node, fmt.Sprintf("the agent of this node does not answer: %s; running containers keep their networks, new ones get none", j.f.AgentDown), "systemctl restart stellar; journalctl -u stellar -n 50")
	}
	for _, c := range j.f.Status {
		switch {
		case c.Name == api.CheckLeader && c.State != api.OK:
			j.error(NoLeader, "raft", c.Reason+": the cluster cannot decide; attaches go on in the own subnet", "stellar raft peers shows who answers; start the agents of most servers, or, if they are lost for good: stellar raft recover")
		case c.Name == "addresses" && c.State == api.Err:
			j.error(SubnetFull, j.f.Subnet.String(), c.Reason, "stellar ipam check finds leases of nothing; or start containers on another node")
		case c.State == api.Err:
			j.error(c.Name, c.Name, c.Reason, "stellar status; journalctl -u stellar -n 50")
		}
	}
}

// version reads the first two numbers of a version.
func version(s string) (major, minor int, ok bool) {
	parts := strings.SplitN(strings.TrimPrefix(s, "v"), ".", 3)
	if len(parts) < 2 {
		return 0, 0, false
	}
	major, err1 := strconv.Atoi(parts[0])
	minor, err2 := strconv.Atoi(strings.TrimRight(parts[1], "+-abcdefghijklmnopqrstuvwxyz~"))
	return major, minor, err1 == nil && err2 == nil
}

func older(major, minor, thanMajor, thanMinor int) bool {
	return major < thanMajor || major == thanMajor && minor < thanMinor
}
