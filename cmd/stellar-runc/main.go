// Command stellar-runc stands between containerd and an OCI runtime. When a
// container is created that asks for a network, it adds a createRuntime hook to
// the bundle, itself, that waits until the agent has made that network; then it
// becomes the real runtime. Everything else it passes through untouched. Without
// an agent containers start as if it were not there, except those that must not
// run without their network.
package main

import (
	"os"
	"runtime"
)

// The runtime's parent may have asked the kernel to kill the runtime when it dies
// (containerd's shim does). The kernel keeps that wish with the main thread and
// forgets it when another thread execs, so main has to stay where it is. Only a
// lock in init is sure to hold the main thread.
func init() { runtime.LockOSThread() }

func main() {
	if len(os.Args) > 1 && os.Args[1] == hookVerb {
		os.Exit(hookMain(os.Args[2:], os.Stdin, os.Stderr))
	}
	w := wrapper{args: os.Args, getenv: os.Getenv, stderr: os.Stderr}
	os.Exit(w.main())
}
