package firewall

import "fmt"

// where names a chain as people look for it.
func (c *Chain) where() string {
	if c.Program == "nft" {
		return fmt.Sprintf("nftables chain %s %s %s", c.Family, c.Table, c.Name)
	}
	if c.Table == "filter" {
		return fmt.Sprintf("%s chain %s", c.Program, c.Name)
	}
	return fmt.Sprintf("%s table %s chain %s", c.Program, c.Table, c.Name)
}

// mend returns the command that lets the packet p pass a chain. A firewall at the
// forward hook is somebody's intention: there the packets of containers are
// excepted; elsewhere the rule is taken out.
func (c *Chain) mend(r Rule, p Packet) string {
	policy := r.Handle == 0 && r.Text == "policy drop"
	excepts := c.Hook == "forward" && c.Family != "bridge"
	switch {
	case excepts && p.Bridge != "" && c.Program == "nft":
		insert := fmt.Sprintf("insert rule %s %s %s", c.Family, c.Table, c.Name)
		return fmt.Sprintf(`nft '%s iifname "%s" accept; %s oifname "%s" accept'`, insert, p.Bridge, insert, p.Bridge)
	case excepts && p.Bridge != "":
		insert := c.Program + c.option() + " -I " + c.Name
		return fmt.Sprintf("%s -i %s -j ACCEPT && %s -o %s -j ACCEPT", insert, p.Bridge, insert, p.Bridge)
	case excepts && p.Network.IsValid() && c.Program == "nft":
		insert := fmt.Sprintf("insert rule %s %s %s", c.Family, c.Table, c.Name)
		return fmt.Sprintf(`nft '%s ip saddr %s accept; %s ip daddr %s accept'`, insert, p.Network, insert, p.Network)
	case excepts && p.Network.IsValid():
		insert := c.Program + c.option() + " -I " + c.Name
		return fmt.Sprintf("%s -s %s -j ACCEPT && %s -d %s -j ACCEPT", insert, p.Network, insert, p.Network)
	case excepts && c.Program == "nft":
		return fmt.Sprintf("nft insert rule %s %s %s ip saddr %s ip daddr %s accept", c.Family, c.Table, c.Name, p.Src, p.Dst)
	case excepts:
		return fmt.Sprintf("%s%s -I %s -s %s -d %s -j ACCEPT", c.Program, c.option(), c.Name, p.Src, p.Dst)
	case policy && c.Program == "nft":
		return fmt.Sprintf("nft chain %s %s %s '{ policy accept; }'", c.Family, c.Table, c.Name)
	case policy:
		return fmt.Sprintf("%s%s -P %s ACCEPT", c.Program, c.option(), c.Name)
	}
	return c.remove(r)
}

func (c *Chain) remove(r Rule) string {
	if c.Program == "nft" {
		return fmt.Sprintf("nft delete rule %s %s %s handle %d", c.Family, c.Table, c.Name, r.Handle)
	}
	return fmt.Sprintf("%s%s -D %s %s", c.Program, c.option(), c.Name, r.Text)
}

func (c *Chain) option() string {
	if c.Table == "filter" {
		return ""
	}
	return " -t " + c.Table
}
