package web

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"stellar.io/stellar/api"
)

// policy is what the page may do in a browser: load its own files and ask its own
// server. No inline script or style, no frame around it, no other host.
const policy = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// local refuses, before anything else is looked at:
//   - methods that change something: there is nothing to be changed;
//   - connections that do not come from this machine. The listener is on a loopback
//     address, yet a host with route_localnet=1 (kube-proxy sets it) lets containers
//     reach those, with their own address as the source;
//   - names: a page of another site whose name was made to lead here (DNS rebinding)
//     sends that name as Host. The port is free, for an ssh tunnel may change it.
//
// The token is no cookie, since browsers send cookies to every port of a host: any
// user of the machine who serves something on 127.0.0.1 would be given it.
func local(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		switch {
		case !fromLoopback(r.RemoteAddr):
			refuse(w, http.StatusForbidden, api.Errorf(api.CodeDenied, "the page is for this machine alone").
				WithHint("tunnel to it: ssh -L 9643:127.0.0.1:9643 HOST"))
		case !loopbackHost(r.Host):
			refuse(w, http.StatusMisdirectedRequest, api.Errorf(api.CodeDenied, "%.80q is no name of this page", r.Host).
				WithHint("open it as http://127.0.0.1:9643 or http://localhost:9643"))
		case r.Method != http.MethodGet:
			h.Set("Allow", http.MethodGet)
			refuse(w, http.StatusMethodNotAllowed, api.Errorf(api.CodeInvalid, "the page only reads: GET, not %.20s", r.Method))
		default:
			next.ServeHTTP(w, r)
		}
	})
}

func fromLoopback(remote string) bool {
	a, err := netip.ParseAddrPort(remote)
	return err == nil && a.Addr().Unmap().IsLoopback()
}

func loopbackHost(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = host // without a port: 80
	}
	if strings.EqualFold(name, "localhost") {
		return true
	}
	a, err := netip.ParseAddr(strings.Trim(name, "[]"))
	return err == nil && a.Zone() == "" && a.IsLoopback()
}

// authorized lets those through who know the token. What is compared is hashes, of
// equal length, in constant time.
func (s *Server) authorized(next http.Handler) http.Handler {
	want := sha256.Sum256([]byte(s.token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		given, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		got := sha256.Sum256([]byte(given))
		if subtle.ConstantTimeCompare(got[:], want[:]) != 1 || !ok || s.token == "" {
			w.Header().Set("WWW-Authenticate", `Bearer realm="stellar"`)
			refuse(w, http.StatusUnauthorized, api.Errorf(api.CodeDenied, "the page needs its token").
				WithHint("`stellar web` on the node prints the page's address with it"))
			return
		}
		next.ServeHTTP(w, r)
	})
}
