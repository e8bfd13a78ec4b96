// Package api is what the agent tells the outside and what the outside may ask
// of it, as plain Go values. Package server serves a Backend that speaks these
// values over the local socket, package client calls it; the protobuf messages
// in stellar/v1 stay between the two.
//
// The JSON form of each type is the stable form that the command line prints:
// lowerCamelCase names, RFC 3339 times, addresses as strings. Fields are added,
// never renamed or removed.
package api

// Version is the apiVersion of every JSON object that the command line prints.
const Version = "stellar/v1"
