package web

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"mime"
	"net/http"
	"path"

	"stellar.io/stellar/api"
)

//go:embed page
var files embed.FS

type asset struct {
	data      []byte
	kind, tag string
}

// assets serves the files of the page. Nothing in them is secret: who has no token
// gets a page that asks for it.
func assets() http.Handler {
	kinds := map[string]string{
		".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8",
		".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml",
	}
	known := map[string]asset{}
	err := fs.WalkDir(files, "page", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := files.ReadFile(name)
		sum := sha256.Sum256(data)
		kind := kinds[path.Ext(name)]
		if kind == "" {
			kind = mime.TypeByExtension(path.Ext(name))
		}
		known[name[len("page"):]] = asset{data, kind, `"` + hex.EncodeToString(sum[:12]) + `"`}
		return err
	})
	if err != nil {
		known = nil // cannot be: the files are part of the program
	}
	known["/"] = known["/index.html"]
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a, ok := known[r.URL.Path]
		if !ok {
			refuse(w, http.StatusNotFound, api.Errorf(api.CodeNotFound, "no page %.80q", r.URL.Path).WithHint("the page is /"))
			return
		}
		h := w.Header()
		h.Set("Cache-Control", "no-cache") // asked for each time, sent again only after an upgrade
		h.Set("ETag", a.tag)
		if r.Header.Get("If-None-Match") == a.tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		h.Set("Content-Type", a.kind)
		_, _ = w.Write(a.data) // a browser that has gone is no matter
	})
}
