// Package integration tests whole nodes: the real binary, real containerd and
// runc, the real kernel, each host a network namespace that the test has made.
package integration
