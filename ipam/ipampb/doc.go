// Package ipampb is the wire form of the commands of package ipam, generated
// from ipam.proto; `make generate` makes it anew. Only package ipam uses it:
// everyone else builds commands as the Go structs there.
package ipampb
