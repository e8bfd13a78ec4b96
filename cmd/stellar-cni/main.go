// Command stellar-cni is a CNI plugin: it gives a container's network namespace an interface, an address and
// routes. See docs/cni.md.
package main

import (
	"os"

	"stellar.io/stellar/internal/cniplugin"
)

// version is set by the build.
var version = "dev"

func main() {
	os.Exit(cniplugin.Main(cniplugin.Config{Name: "stellar-cni", Version: version, IPAMOnly: false}))
}
