// Package pki makes and keeps the cluster's keys: its certificate authority, the
// certificates that say who a node is, the tokens that let a machine join, and
// the directory that holds a node's own pair.
//
// It is a library over crypto/x509 and opens no connection. Secrets (private
// keys, a token's secret) have types that fmt, log/slog and encoding/json print
// as a placeholder; only the methods named for it give them away.
package pki
