package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"stellar.io/stellar/events"
	"stellar.io/stellar/internal/atomicfile"
	"stellar.io/stellar/internal/failpoint"
	"stellar.io/stellar/ipam"
)

// Where the wish for a network came from, besides labels and annotations.
const (
	SourceCNI    = "cni"
	SourceManual = "manual"
)

// Request is a network that was asked for by other means than labels: by a CNI
// client, or by hand. It outlives the agent on disk, so that one that restarts
// knows why an endpoint is there.
type Request struct {
	Source string `json:"source"`
	// Key and Created name a container of containerd; zero: there is none, and the
	// attachment is the client's own, named by Network, ContainerID and Ifname.
	Key     events.Key `json:"key"`
	Created int64      `json:"created,omitempty"` // as in ipam.Owner

	Network     string `json:"network,omitempty"` // name of the CNI network
	ContainerID string `json:"containerID,omitempty"`
	NetNS       string `json:"netns,omitempty"`

	Ifname   string     `json:"ifname,omitempty"` // "": left to the labels
	Address  netip.Addr `json:"address,omitzero"` // zero: any
	MAC      string     `json:"mac,omitempty"`
	Hostname string     `json:"hostname,omitempty"`
	MTU      int        `json:"mtu,omitempty"`
	// IPAMOnly: an address without an interface of ours.
	IPAMOnly bool `json:"ipamOnly,omitempty"`
	// Down: the network was taken away. By a CNI client: until it asks again, the
	// address stays the container's. By hand: a label does not bring it back.
	Down bool `json:"down,omitempty"`
	// Boot is the id of the boot in which NetNS was given; what it names is another
	// namespace, or none, after the next.
	Boot string `json:"boot,omitempty"`
}

// owner is who holds the address of a request without a container.
func (r *Request) owner() ipam.Owner {
	return ipam.Owner{Kind: ipam.OwnerCNI, Namespace: r.Network, ID: r.ContainerID, Interface: r.Ifname}
}

// id names the request: there is one for each container, and one for each
// attachment without a container.
func (r *Request) id() string {
	if r.Key != (events.Key{}) {
		return containerRequest(r.Key)
	}
	return r.owner().String()
}

func containerRequest(key events.Key) string { return "container " + key.String() }

// off reports whether the request keeps the container from having a network.
func (r *Request) off() bool { return r != nil && r.Down && r.Source == SourceManual }

// requests are kept in memory and, where there is a directory, on disk.
type requests struct {
	dir  string // "": memory alone
	boot string // the present boot's id; "": not known

	mu  sync.Mutex // guards all
	all map[string]Request
}

func newRequests(dir, boot string) *requests {
	return &requests{dir: dir, boot: boot, all: map[string]Request{}}
}

const requestSuffix = ".json"

// load reads what an earlier agent has kept. A file that cannot be understood is
// an error: forgetting it would take a running container's network away.
func (s *requests) load() error {
	if s.dir == "" {
		return nil
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), requestSuffix) {
			continue // what a crash left of a write
		}
		path := filepath.Join(s.dir, e.Name())
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var r Request
		if err := json.Unmarshal(data, &r); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if r.Boot != "" && s.boot != "" && r.Boot != s.boot {
			r.NetNS, r.Boot = "", "" // a kernel's fact, of a kernel that is no more
		}
		s.all[r.id()] = r
	}
	return nil
}

func (s *requests) get(id string) (Request, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.all[id]
	return r, ok
}

// list returns those that match.
func (s *requests) list(match func(*Request) bool) []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Request
	for _, r := range s.all {
		if match(&r) {
			out = append(out, r)
		}
	}
	return out
}

// put enters r at once and makes it durable beside the caller's work; written
// says how that ended. One caller at a time has an id.
func (s *requests) put(r Request) (written <-chan error) {
	if r.NetNS != "" {
		r.Boot = s.boot
	}
	s.mu.Lock()
	was, had := s.all[r.id()]
	s.all[r.id()] = r
	s.mu.Unlock()
	done := make(chan error, 1)
	if s.dir == "" || had && was == r {
		done <- nil
		return done
	}
	go func() { done <- s.write(r) }()
	failpoint.Hit(failpoint.RequestEntered)
	return done
}

func (s *requests) write(r Request) error {
	if err := failpoint.Err(failpoint.RequestWrite); err != nil {
		return err
	}
	data, err := json.Marshal(r)
	if err == nil {
		err = atomicfile.Write(s.path(r.id()), data, 0o600)
	}
	failpoint.Hit(failpoint.RequestWritten)
	return err
}

// drop forgets a request, durably. It is idempotent; after an error the request is
// known still, so that whoever tries again finds it.
func (s *requests) drop(id string) error {
	if _, had := s.get(id); had && s.dir != "" {
		if err := s.unlink(id); err != nil {
			return err
		}
	}
	s.mu.Lock()
	delete(s.all, id)
	s.mu.Unlock()
	return nil
}

func (s *requests) unlink(id string) error {
	if err := failpoint.Err(failpoint.RequestDrop); err != nil {
		return err
	}
	err := os.Remove(s.path(id))
	failpoint.Hit(failpoint.RequestDropped)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = atomicfile.SyncDir(s.dir)
	}
	return err
}

func (s *requests) path(id string) string {
	sum := sha256.Sum256([]byte(id))
	return filepath.Join(s.dir, hex.EncodeToString(sum[:16])+requestSuffix)
}

// demand lays a request over what the labels say.
func (w *Wish) demand(r *Request) *RejectError {
	if r.Address.IsValid() {
		if w.IP.IsValid() && w.IP != r.Address {
			return rejectf("address", "two addresses are asked for: %s by label, %s by %s", w.IP, r.Address, r.Source)
		}
		w.IP = r.Address
	}
	if r.MAC != "" {
		mac, err := parseMAC(r.MAC)
		if err != nil {
			return rejectf("mac", "%q is not %v", printable(r.MAC), err)
		}
		if w.MAC != nil && w.MAC.String() != mac.String() {
			return rejectf("mac", "two MAC addresses are asked for: %s by label, %s by %s", w.MAC, mac, r.Source)
		}
		w.MAC = mac
	}
	if r.Ifname != "" {
		w.Ifname = r.Ifname
	}
	if w.Hostname == "" {
		w.Hostname = r.Hostname
	}
	if w.MTU == 0 {
		w.MTU = r.MTU
	}
	return nil
}

// validate refuses what no container could be given.
func (r *Request) validate() error {
	w := Wish{}
	for key, value := range map[string]string{labelIfname: r.Ifname, labelMAC: r.MAC, labelHostname: r.Hostname} {
		if value == "" {
			continue
		}
		if refused := w.set(key, word{value: value}); refused != nil {
			return refused
		}
	}
	switch {
	case r.MTU != 0 && (r.MTU < minMTU || r.MTU > maxMTU):
		return rejectf("mtu", "mtu %d is not from %d to %d", r.MTU, minMTU, maxMTU)
	case r.Address.IsValid() && !r.Address.Is4():
		return rejectf("address", "%s is not an IPv4 address", r.Address)
	}
	return nil
}
