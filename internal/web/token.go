package web

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"stellar.io/stellar/internal/atomicfile"
)

// minToken is the length below which a file holds no token: 128 bits in base 32.
const minToken = 26

// EnsureToken returns the token in the file, and makes one, mode 0600, when there is
// none. It outlives restarts, so that open pages go on; to have another, remove the
// file and restart. A file that others could read or write is not trusted: its token
// is replaced.
func EnsureToken(path string) (string, error) {
	token, err := ReadToken(path)
	if err == nil || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errExposed) {
		return token, err
	}
	token = rand.Text()
	if err := atomicfile.Write(path, []byte(token+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("make the web page's token: %w", err)
	}
	return token, nil
}

// errExposed is returned when others may know the token.
var errExposed = errors.New("others can read or write it")

// ReadToken returns the token in the file. fs.ErrNotExist when nobody has made one.
func ReadToken(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return "", fmt.Errorf("the web page's token: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("the web page's token: %w", err)
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 || info.Sys().(*syscall.Stat_t).Uid != uint32(os.Geteuid()) {
		return "", fmt.Errorf("the web page's token in %s: %w", path, errExposed)
	}
	data := make([]byte, 256)
	n, err := f.Read(data)
	token := strings.TrimSpace(string(data[:n]))
	if err != nil || len(token) < minToken {
		return "", fmt.Errorf("the web page's token in %s is none: remove the file and restart the agent", path)
	}
	return token, nil
}

// URL is where a browser finds the page that listens there. The token is in the
// fragment, which browsers send to nobody; the page takes it out of the address bar.
func URL(listen netip.AddrPort, token string) string {
	return "http://" + listen.String() + "/#token=" + token
}
