package pki

import "errors"

// What makes a certificate unacceptable. Compare with errors.Is.
var (
	// ErrNoCertificate is returned when the other side showed no certificate, or
	// when this node has none yet.
	ErrNoCertificate = errors.New("no certificate")
	// ErrUntrusted is returned when the cluster's CA did not sign the certificate,
	// or not for this use.
	ErrUntrusted = errors.New("certificate is not signed by the cluster's CA")
	// ErrOtherCluster is returned when the certificate belongs to another cluster.
	ErrOtherCluster = errors.New("certificate belongs to another cluster")
	// ErrExpired is returned when the certificate's time is over.
	ErrExpired = errors.New("certificate has expired")
	// ErrNotYetValid is returned when the certificate's time has not come: one of
	// the two clocks is more than Backdate off.
	ErrNotYetValid = errors.New("certificate is not valid yet")
	// ErrNoIdentity is returned when a certificate names no identity, or none of this form.
	ErrNoIdentity = errors.New("certificate carries no valid identity")
)

// The errors of requests, tokens and files.
var (
	// ErrBadRequest is returned when a certificate request cannot be signed: it is
	// malformed, its proof of possession fails, its key is of a kind that we do not
	// use, or it asks for another identity.
	ErrBadRequest = errors.New("certificate request refused")
	// ErrBadToken is returned when a text is not a join token.
	ErrBadToken = errors.New("not a join token")
	// ErrWrongCA is returned when the server that was called does not have the CA
	// that the token names: the address is wrong, or somebody is in between.
	ErrWrongCA = errors.New("the server's CA is not the one in the token")
	// ErrMismatch is returned when a certificate does not fit the key, the CA or
	// the identity that it should fit.
	ErrMismatch = errors.New("certificate does not match")
	// ErrNoCA is returned when this node does not hold the CA's key.
	ErrNoCA = errors.New("this node does not hold the CA's key")
)
