package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"stellar.io/stellar/internal/atomicfile"
	"stellar.io/stellar/internal/failpoint"
)

// The files. A pair cannot be replaced in one step, so the new key waits in
// fileNext until its certificate is there: install writes fileCert, then renames
// fileNext to fileKey, and load finishes the rename if a crash came in between.
const (
	fileRoots = "ca.crt"
	fileCAKey = "ca.key" // on servers
	fileCert  = "node.crt"
	fileKey   = "node.key"
	fileNext  = "node.key.next" // of a request without an answer
)

// dir is the directory on disk.
type dir struct{ path string }

func (d dir) file(name string) string { return filepath.Join(d.path, name) }

// tighten makes the directory, and takes from it and its files what others than
// the owner may do. It returns the names of the files that it changed.
func (d dir) tighten() ([]string, error) {
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		return nil, err
	}
	if err := os.Chmod(d.path, 0o700); err != nil {
		return nil, err
	}
	var changed []string
	for _, name := range [...]string{fileRoots, fileCAKey, fileCert, fileKey, fileNext} {
		info, err := os.Lstat(d.file(name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if !info.Mode().IsRegular() {
			return nil, fmt.Errorf("%s is not a regular file", d.file(name))
		}
		if info.Mode().Perm() != 0o600 {
			if err := os.Chmod(d.file(name), 0o600); err != nil {
				return nil, err
			}
			changed = append(changed, name)
		}
	}
	return changed, nil
}

func (d dir) write(name string, data []byte) error {
	return atomicfile.Write(d.file(name), data, 0o600)
}

// read returns nil without an error for a file that is not there.
func (d dir) read(name string) ([]byte, error) {
	data, err := os.ReadFile(d.file(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// roots returns nil without an error where there are none.
func (d dir) roots() ([]*x509.Certificate, error) {
	data, err := d.read(fileRoots)
	if data == nil {
		return nil, err
	}
	certs, err := ParseCerts(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", fileRoots, err)
	}
	return certs, nil
}

// key returns the zero Key without an error for a file that is not there.
func (d dir) key(name string) (Key, error) {
	data, err := d.read(name)
	if data == nil {
		return Key{}, err
	}
	k, err := ParseKey(data)
	if err != nil {
		return Key{}, fmt.Errorf("%s: %w", name, err)
	}
	return k, nil
}

// load returns nil without an error where there is no certificate.
func (d dir) load() (*material, error) {
	data, err := d.read(fileCert)
	if data == nil {
		return nil, err
	}
	certs, err := ParseCerts(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", fileCert, err)
	}
	leaf := certs[0]
	id, err := IdentityOf(leaf)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", fileCert, err)
	}
	roots, err := d.roots()
	if err != nil {
		return nil, err
	}
	if roots == nil {
		return nil, fmt.Errorf("%s is missing", fileRoots)
	}
	if _, err := verify(certs, roots, id.Cluster, x509.ExtKeyUsageServerAuth, leaf.NotBefore); err != nil {
		return nil, fmt.Errorf("%s: %w", fileCert, err)
	}
	key, err := d.keyOf(leaf)
	if err != nil {
		return nil, err
	}
	return &material{id: id, leaf: leaf, roots: roots, tls: tls.Certificate{
		Certificate: [][]byte{leaf.Raw, roots[0].Raw}, PrivateKey: key.signer, Leaf: leaf,
	}}, nil
}

// keyOf returns the key of the certificate, and finishes an install that a crash
// interrupted.
func (d dir) keyOf(leaf *x509.Certificate) (Key, error) {
	key, err := d.key(fileKey)
	if err == nil && key.matches(leaf) {
		return key, nil
	}
	next, nextErr := d.key(fileNext)
	if nextErr == nil && next.matches(leaf) {
		return next, d.promote()
	}
	if err := errors.Join(err, nextErr); err != nil {
		return Key{}, err
	}
	return Key{}, fmt.Errorf("%s: %w %s", fileCert, ErrMismatch, fileKey)
}

func (d dir) promote() error {
	if err := os.Rename(d.file(fileNext), d.file(fileKey)); err != nil {
		return err
	}
	return atomicfile.SyncDir(d.path)
}

// pendingKey returns the key in fileNext and makes it if need be. One that
// cannot be read was never used in an answered request, and is replaced.
func (d dir) pendingKey() (Key, error) {
	key, err := d.key(fileNext)
	if err == nil && key.signer != nil {
		return key, nil
	}
	if key, err = NewKey(); err != nil {
		return Key{}, err
	}
	data, err := key.MarshalPEM()
	if err != nil {
		return Key{}, err
	}
	return key, d.write(fileNext, data)
}

// install makes the certificate, and the key that it was requested with, the
// node's.
func (d dir) install(leaf *x509.Certificate) error {
	next, err := d.key(fileNext)
	if err != nil {
		return err
	}
	if !next.matches(leaf) {
		if key, err := d.key(fileKey); err != nil || !key.matches(leaf) {
			return fmt.Errorf("install: %w the requested key", ErrMismatch)
		}
		return d.write(fileCert, EncodeCerts(leaf)) // the request was repeated
	}
	if err := d.write(fileCert, EncodeCerts(leaf)); err != nil {
		return err
	}
	failpoint.Hit(failpoint.JoinCertificate)
	return d.promote()
}

func (d dir) ca() (*CA, error) {
	key, err := d.read(fileCAKey)
	if err != nil {
		return nil, err
	}
	if key == nil {
		return nil, ErrNoCA
	}
	cert, err := d.read(fileRoots)
	if err != nil {
		return nil, err
	}
	return LoadCA(cert, key)
}

// clear removes the CA's key first: it is the most dangerous one to leave behind.
func (d dir) clear() error {
	var errs []error
	for _, name := range [...]string{fileCAKey, fileKey, fileNext, fileCert, fileRoots} {
		if err := os.Remove(d.file(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, atomicfile.SyncDir(d.path))...)
}
