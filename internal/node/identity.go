package node

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"stellar.io/stellar/ipam"
)

// Identity is who this node is: made once, together with the data directory.
type Identity struct {
	ID   ipam.NodeID `json:"id"`
	Name string      `json:"name"`
	// Machine binds the directory to the machine: a hash of its machine-id, or
	// "" where the machine has none. A copy of the directory on another machine
	// is another node's past and must not speak for it.
	Machine string `json:"machine"`
	// Former are the incarnations that this node was, on this machine and in this
	// directory, before its store was damaged: what they attached is its own.
	Former  []ipam.NodeID `json:"former,omitempty"`
	Damaged *Damage       `json:"damaged,omitempty"` // the last time; nil: never
}

// identityFile is inside the data directory.
const identityFile = "node.json"

var (
	// ErrForeignMachine is returned for a data directory that was made on another machine.
	ErrForeignMachine = errors.New("data directory belongs to another machine")
	// ErrNameChanged is returned when the directory's node has another name than is configured.
	ErrNameChanged = errors.New("node name differs from the data directory's")
)

// LoadIdentity reads the identity in dir, or makes one for a directory that has
// none. It is durable when LoadIdentity returns. name "" keeps the name of
// before, or takes the host's.
func LoadIdentity(dir, name string) (Identity, error) {
	machine, err := machineHash()
	if err != nil {
		return Identity{}, err
	}
	path := filepath.Join(dir, identityFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return makeIdentity(path, name, machine)
	}
	if err != nil {
		return Identity{}, fmt.Errorf("read node identity: %w", err)
	}
	var id Identity
	if err := json.Unmarshal(data, &id); err != nil || !id.ID.Valid() || id.Name == "" {
		return Identity{}, fmt.Errorf("node identity in %s is damaged: restore the file, or start with an empty data directory as a new node", path)
	}
	if id.Machine != "" && machine != "" && id.Machine != machine {
		return Identity{}, fmt.Errorf("%w: %s was made for node %s (%s) elsewhere; a copy must not run, start with an empty data directory",
			ErrForeignMachine, dir, id.Name, id.ID.Short())
	}
	if name != "" && name != id.Name {
		return Identity{}, fmt.Errorf("%w: %q is configured, %s belongs to %q", ErrNameChanged, name, dir, id.Name)
	}
	return id, nil
}

func makeIdentity(path, name, machine string) (Identity, error) {
	if name == "" {
		host, err := os.Hostname()
		if err != nil {
			return Identity{}, fmt.Errorf("node name: %w", err)
		}
		name, _, _ = strings.Cut(host, ".")
	}
	var raw [16]byte
	rand.Read(raw[:])
	id := Identity{ID: ipam.NodeID(hex.EncodeToString(raw[:])), Name: name, Machine: machine}
	if err := id.write(filepath.Dir(path)); err != nil {
		return Identity{}, err
	}
	return id, nil
}

// machineHash identifies the machine without giving its machine-id away
// (machine-id(5) asks for that).
func machineHash() (string, error) {
	data, err := os.ReadFile("/etc/machine-id")
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read machine id: %w", err)
	}
	id := strings.TrimSpace(string(data))
	if id == "" || id == "uninitialized" {
		return "", nil
	}
	sum := sha256.Sum256([]byte("stellar.io/machine\x00" + id))
	return hex.EncodeToString(sum[:16]), nil
}
