package agent

import "stellar.io/stellar/ipam"

// NetNSPath returns where the client of an attachment without a container said that
// its namespace is; "" when there is no such attachment, or it is not known any more.
func (a *Agent) NetNSPath(o ipam.Owner) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if x := a.attachments[o]; x != nil {
		return x.req.NetNS
	}
	return ""
}
