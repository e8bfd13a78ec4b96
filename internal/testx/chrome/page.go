package chrome

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"stellar.io/stellar/internal/testx"
)

// Page is one tab, with a session, storage and cookies of its own. Its methods fail
// the test when the browser refuses.
type Page struct {
	t       testx.TB
	b       *Browser
	session string

	mu       sync.Mutex // guards what follows
	problems []string
}

// Page opens an empty tab of 1280 by 800.
func (b *Browser) Page(t testx.TB) *Page {
	t.Helper()
	p := &Page{t: t, b: b}
	var world struct{ BrowserContextID string }
	var target struct{ TargetID string }
	var attached struct{ SessionID string }
	p.must(b.call("", "Target.createBrowserContext", nil, &world))
	p.must(b.call("", "Target.createTarget", map[string]any{"url": "about:blank", "browserContextId": world.BrowserContextID}, &target))
	p.must(b.call("", "Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached))
	p.session = attached.SessionID
	b.mu.Lock()
	b.pages[p.session] = p
	b.mu.Unlock()
	for _, domain := range []string{"Page", "Runtime", "Log", "Accessibility"} {
		p.Call(domain+".enable", nil, nil)
	}
	p.Size(1280, 800)
	t.Cleanup(func() {
		// The browser may have gone before.
		_ = b.call("", "Target.disposeBrowserContext", map[string]any{"browserContextId": world.BrowserContextID}, nil)
	})
	return p
}

func (p *Page) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatalf("%v", err)
	}
}

// happened notes what a developer would see in the console as wrong.
func (p *Page) happened(m message) {
	var found string
	switch m.Method {
	case "Runtime.exceptionThrown":
		found = string(m.Params)
	case "Log.entryAdded":
		var e struct {
			Entry struct{ Level, Text, Source, URL string }
		}
		if json.Unmarshal(m.Params, &e) == nil && e.Entry.Level == "error" {
			found = e.Entry.Source + ": " + e.Entry.Text + " " + e.Entry.URL
		}
	case "Runtime.consoleAPICalled":
		if strings.Contains(string(m.Params), `"type":"error"`) {
			found = string(m.Params)
		}
	}
	if found != "" {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.problems = append(p.problems, found)
	}
}

// Problems returns, once, the errors that the console has got: exceptions, refusals
// by the content security policy, requests that failed.
func (p *Page) Problems() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := p.problems
	p.problems = nil
	return out
}

// Call is one command of the protocol; out may be nil.
func (p *Page) Call(method string, params, out any) {
	p.t.Helper()
	p.must(p.b.call(p.session, method, params, out))
}

// Open goes to a URL and returns when it was loaded.
func (p *Page) Open(url string) {
	p.t.Helper()
	var r struct{ ErrorText string }
	p.Call("Page.navigate", map[string]any{"url": url}, &r)
	if r.ErrorText != "" {
		p.t.Fatalf("open %s: %s", url, r.ErrorText)
	}
	p.Until(answerTimeout, "the page is loaded", `document.readyState === "complete"`)
}

// Size sets the window, in CSS pixels.
func (p *Page) Size(width, height int) {
	p.t.Helper()
	p.Call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false}, nil)
}

// Scheme sets what the system is said to prefer: light or dark; and no motion.
func (p *Page) Scheme(scheme string) {
	p.t.Helper()
	p.Call("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{
		{"name": "prefers-color-scheme", "value": scheme}, {"name": "prefers-reduced-motion", "value": "reduce"},
	}}, nil)
}

// Eval evaluates an expression, a promise's outcome included, into out; nil discards.
func (p *Page) Eval(expression string, out any) {
	p.t.Helper()
	p.must(p.eval(expression, out))
}

func (p *Page) eval(expression string, out any) error {
	var r struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails json.RawMessage
	}
	err := p.b.call(p.session, "Runtime.evaluate", map[string]any{
		"expression": expression, "returnByValue": true, "awaitPromise": true, "userGesture": true,
	}, &r)
	switch {
	case err != nil:
		return err
	case r.ExceptionDetails != nil:
		return fmt.Errorf("%.200s: %s", expression, r.ExceptionDetails)
	case out == nil:
		return nil
	}
	if err := json.Unmarshal(r.Result.Value, out); err != nil {
		return fmt.Errorf("%.200s: %w: %s", expression, err, r.Result.Value)
	}
	return nil
}

// Until waits until an expression is true. It may fail before, as while a page loads.
func (p *Page) Until(limit time.Duration, what, expression string) {
	p.t.Helper()
	deadline := time.Now().Add(limit)
	for {
		var ok bool
		err := p.eval("Boolean("+expression+")", &ok)
		if ok {
			return
		}
		if time.Now().After(deadline) {
			var text string
			_ = p.eval("document.body.innerText", &text) // to be shown, if it can be
			p.t.Fatalf("not within %s: %s: %s: %v\nthe page says:\n%s\nits console: %q", limit, what, expression, err, text, p.Problems())
		}
		time.Sleep(15 * time.Millisecond)
	}
}

// keys are those that tests press, with the code that Chromium wants beside the name.
var keys = map[string]int{
	"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "PageUp": 33, "PageDown": 34, "End": 35, "Home": 36,
	"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40,
}

// Press presses keys one after the other; "Shift+Tab" is Tab with Shift.
func (p *Page) Press(names ...string) {
	p.t.Helper()
	for _, name := range names {
		key, shifted := strings.CutPrefix(name, "Shift+")
		code, ok := keys[key]
		if !ok {
			p.t.Fatalf("no key %q", name)
		}
		e := map[string]any{"type": "keyDown", "key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": 0}
		if shifted {
			e["modifiers"] = 8
		}
		switch key {
		case "Enter":
			e["text"] = "\r"
		case " ":
			e["text"], e["code"] = " ", "Space"
		}
		p.Call("Input.dispatchKeyEvent", e, nil)
		delete(e, "text")
		e["type"] = "keyUp"
		p.Call("Input.dispatchKeyEvent", e, nil)
	}
}

// Type enters text where the focus is.
func (p *Page) Type(text string) {
	p.t.Helper()
	p.Call("Input.insertText", map[string]any{"text": text}, nil)
}

// Picture writes what is seen as a PNG; whole: the page to its end, not the window.
func (p *Page) Picture(path string, whole bool) {
	p.t.Helper()
	var r struct{ Data []byte } // base64, as encoding/json has bytes
	params := map[string]any{"format": "png"}
	if whole {
		var m struct {
			CSSContentSize struct{ Width, Height float64 }
		}
		p.Call("Page.getLayoutMetrics", nil, &m)
		params["captureBeyondViewport"] = true
		params["clip"] = map[string]any{"x": 0, "y": 0, "width": m.CSSContentSize.Width, "height": m.CSSContentSize.Height, "scale": 1}
	}
	p.Call("Page.captureScreenshot", params, &r)
	p.must(os.MkdirAll(filepath.Dir(path), 0o755))
	p.must(os.WriteFile(path, r.Data, 0o644))
}

// Node is what assistive technology is told of an element.
type Node struct {
	Role, Name         string
	Focusable, Focused bool
}

// Tree returns the whole accessibility tree, without what it ignores.
func (p *Page) Tree() []Node {
	p.t.Helper()
	type value struct{ Value any }
	var r struct {
		Nodes []struct {
			Ignored    bool
			Role, Name value
			Properties []struct {
				Name  string
				Value value
			}
		}
	}
	p.Call("Accessibility.getFullAXTree", nil, &r)
	var out []Node
	for _, n := range r.Nodes {
		if n.Ignored {
			continue
		}
		node := Node{Role: text(n.Role.Value), Name: text(n.Name.Value)}
		for _, prop := range n.Properties {
			switch prop.Name {
			case "focusable":
				node.Focusable = prop.Value.Value == true
			case "focused":
				node.Focused = prop.Value.Value == true
			}
		}
		out = append(out, node)
	}
	return out
}

func text(v any) string {
	if v == nil {
		return ""
	}
	return fmt.Sprint(v)
}
