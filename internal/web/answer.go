package web

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"stellar.io/stellar/api"
)

// statusOf says how a refusal is told to a browser.
var statusOf = map[api.Code]int{
	api.CodeInvalid:        http.StatusBadRequest,
	api.CodeNotFound:       http.StatusNotFound,
	api.CodeDenied:         http.StatusForbidden,
	api.CodeNotInitialized: http.StatusServiceUnavailable,
	api.CodeNoLeader:       http.StatusServiceUnavailable,
	api.CodeUnreachable:    http.StatusServiceUnavailable,
	api.CodeTimeout:        http.StatusGatewayTimeout,
}

// problem is an error as the page reads it.
type problem struct {
	Code    api.Code `json:"code"`
	Message string   `json:"message"`
	Hint    string   `json:"hint"`
}

func problemOf(err error) *problem {
	if err == nil {
		return nil
	}
	p := &problem{Code: api.CodeInternal, Message: err.Error()}
	if errors.Is(err, context.DeadlineExceeded) {
		p.Code = api.CodeTimeout
	}
	if e, ok := errors.AsType[*api.Error](err); ok {
		p.Code, p.Hint = e.Code, e.Hint
	}
	return p
}

func refuse(w http.ResponseWriter, status int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	// A browser that has gone is no matter.
	_ = json.NewEncoder(w).Encode(map[string]*problem{"error": problemOf(err)})
}

// answer writes v, or what went wrong. A page that has the same already, by its tag,
// is told so: it keeps what it shows.
func answer(w http.ResponseWriter, r *http.Request, v any, err error) {
	if err != nil {
		p := problemOf(err)
		status, ok := statusOf[p.Code]
		if !ok {
			status = http.StatusInternalServerError
		}
		refuse(w, status, err)
		return
	}
	var body bytes.Buffer
	if err := json.NewEncoder(&body).Encode(v); err != nil {
		refuse(w, http.StatusInternalServerError, err)
		return
	}
	sum := sha256.Sum256(body.Bytes())
	tag := `"` + hex.EncodeToString(sum[:12]) + `"`
	h := w.Header()
	h.Set("Cache-Control", "no-store") // the page remembers tags itself
	h.Set("ETag", tag)
	if r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(body.Len()))
	_, _ = body.WriteTo(w) // as above
}
