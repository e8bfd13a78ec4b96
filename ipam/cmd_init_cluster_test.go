package ipam

import "testing"

func TestInitCluster(t *testing.T) {
	t.Parallel()
	s := New()
	if _, exists := s.Cluster(); exists {
		t.Fatal("an empty state has a cluster")
	}
	refused(t, s, ErrNotInitialized, registerCmd(1))
	out := ok(t, s, initCmd())
	equal(t, "deltas", deltaKinds(out.Deltas), "cluster network")
	want := Network{Name: DefaultNetwork, ID: 1, Prefix: mustPrefix("172.16.0.0/12"), SubnetBits: 22}
	got, _ := s.Cluster()
	equal(t, "cluster", got, Cluster{ID: clusterID, Generation: 1, Networks: []Network{want}})
	equal(t, "subnets", want.SubnetCount(), uint32(1024))
	equal(t, "last subnet", want.Subnet(1023).Prefix, mustPrefix("172.31.252.0/22"))
	unchanged(t, s, initCmd())

	for _, change := range []func(*InitCluster){
		func(c *InitCluster) { c.ClusterID = string(nodeID(1)) },
		func(c *InitCluster) { c.Network = "other" },
		func(c *InitCluster) { c.SubnetBits = 23 },
		func(c *InitCluster) { c.Prefix = mustPrefix("10.0.0.0/8") },
	} {
		c := initCmd()
		change(&c)
		refused(t, s, ErrAlreadyInitialized, c)
	}
}

func TestInitClusterInvalid(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*InitCluster){
		"no id":        func(c *InitCluster) { c.ClusterID = "" },
		"upper case":   func(c *InitCluster) { c.ClusterID = "00112233445566778899AABBCCDDEEFF" },
		"no network":   func(c *InitCluster) { c.Network = "" },
		"network name": func(c *InitCluster) { c.Network = "9lives" },
		"plan":         func(c *InitCluster) { c.SubnetBits = 30 },
		"host bits":    func(c *InitCluster) { c.Prefix = mustPrefix("172.16.5.0/12") },
	} {
		t.Run(name, func(t *testing.T) {
			c := initCmd()
			change(&c)
			refused(t, New(), ErrInvalid, c)
		})
	}
}
