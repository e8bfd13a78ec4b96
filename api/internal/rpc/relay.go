package rpc

// RelayHeader names, on a request that a node passes on, who asked for it there.
const RelayHeader = "Stellar-Relayed-For"
