// Command stellar-cni-ipam is a CNI plugin: it hands out addresses for the interfaces of other CNI plugins, such
// as bridge and ptp. See docs/cni.md.
package main

import (
	"os"

	"stellar.io/stellar/internal/cniplugin"
)

// version is set by the build.
var version = "dev"

func main() {
	os.Exit(cniplugin.Main(cniplugin.Config{Name: "stellar-cni-ipam", Version: version, IPAMOnly: true}))
}
