// Package peer is the one port on which nodes speak to each other: TLS 1.3 with
// certificates of the cluster's CA on both sides, several protocols by ALPN.
//
//	stellar-raft/1   Raft's connections; only certificates with the Raft capability
//	stellar-follow/1 the stream from a server to a node that follows it
//	stellar-api/1    HTTP/2; a handler learns by Caller who is calling
//	stellar-join/1   HTTP/2 for a machine that has a token and no certificate yet
//
// After the TLS handshake both sides exchange one greeting: the client's carries
// the cluster generation that it knows, the server's the same and its verdict.
// So a refusal reaches the other side with its reason, which a TLS alert cannot
// carry, and a connection that Dial returns has been accepted. The client has
// verified the server before it sends its greeting; the server does nothing
// else for a client that it has not verified.
//
// The problems that this answers: a stranger who opens connections and says
// nothing (bounded and evicted, oldest first, so that honest ones get through);
// certificates of another cluster, of another node, expired or without the
// capability; members that were removed and whose certificates are still valid
// (Admit, DropNode); the losing side of a restore (the generation); certificates
// that are replaced while the port serves; refusals that would flood the log.
package peer
