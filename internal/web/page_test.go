package web_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"stellar.io/stellar/api"
	"stellar.io/stellar/internal/testx/chrome"
	"stellar.io/stellar/internal/web"
)

// The tests TestPage… look at the page with Chromium, as its users do. `make test-web`
// runs them.

// pictures is where `make test-web` leaves what the page looked like.
const pictures = "../../bin/pictures"

const patience = 30 * time.Second

var viewNames = []string{"map", "endpoints", "routes", "raft", "events"}

// drawn is true when a view has its data.
var drawn = map[string]string{
	"map":       `document.querySelectorAll(".tiles .tile").length > 0 && document.querySelectorAll("tbody tr").length > 0`,
	"endpoints": `document.querySelectorAll("tbody tr").length > 0`,
	"routes":    `document.querySelectorAll("tbody tr").length > 0 && document.querySelector(".verdict .chip")`,
	"raft":      `document.querySelectorAll(".voters li").length > 0`,
	"events":    `document.querySelectorAll(".events li").length > 0`,
}

const live = `document.getElementById("link").dataset.state === "live" && document.querySelector(".summary .chip")`

// open opens the page of a source on a size, and waits until it is live.
func open(t *testing.T, b *chrome.Browser, base string) *chrome.Page {
	t.Helper()
	p := b.Page(t)
	p.Scheme("light")
	p.Open(base + "/#token=" + token)
	p.Until(patience, "the page is live", live)
	return p
}

func show(p *chrome.Page, view string) {
	p.Eval(fmt.Sprintf(`location.hash = "#/%s"`, view), nil)
	p.Until(patience, view+" is drawn", drawn[strings.Split(view, "?")[0]]+` && document.querySelector("nav [aria-current]").hash.startsWith("#/`+strings.Split(view, "?")[0]+`")`)
}

// wrong returns what an inspection in the page has found.
func wrong(p *chrome.Page, inspection string) (found []string) {
	p.Eval("("+inspection+")()", &found)
	return found
}

// TestPageLooks: every view, on a phone and on a large screen, light and dark: text can
// be read, nothing sticks out, every control has a name; with pictures.
func TestPageLooks(t *testing.T) {
	small, _ := serve(t, cluster(3, 60), "127.0.0.1:0")
	large, _ := serve(t, cluster(1024, 10000), "127.0.0.1:0")
	b := chrome.Start(t, nil)
	for size, base := range map[string]string{"small": small, "large": large} {
		p := open(t, b, base)
		for _, view := range viewNames {
			show(p, view)
			for _, scheme := range []string{"light", "dark"} {
				for _, width := range []int{360, 1600} {
					name := fmt.Sprintf("%s-%s-%s-%d", size, view, scheme, width)
					t.Run(name, func(t *testing.T) {
						p.Scheme(scheme)
						p.Size(width, 900)
						for _, f := range slices.Concat(wrong(p, contrastOfText), wrong(p, sticksOut), nameless(p)) {
							t.Error(f)
						}
						p.Picture(filepath.Join(pictures, name+".png"), true)
					})
				}
			}
		}
		for _, problem := range p.Problems() {
			t.Errorf("the console says: %s", problem)
		}
		p.Scheme(map[string]string{"small": "dark", "large": "light"}[size])
		p.Size(1280, 800)
		show(p, "map")
		p.Eval(`document.activeElement.blur()`, nil)
		p.Picture(filepath.Join(pictures, "window-"+size+".png"), false)
	}
}

// nameless returns what can be focused and tells assistive technology nothing.
func nameless(p *chrome.Page) (found []string) {
	focusable := 0
	for _, n := range p.Tree() {
		if !n.Focusable || n.Role == "RootWebArea" || n.Role == "main" {
			continue
		}
		focusable++
		if strings.TrimSpace(n.Name) == "" {
			found = append(found, fmt.Sprintf("a %s has no name", n.Role))
		}
	}
	if focusable < 8 {
		found = append(found, fmt.Sprintf("only %d controls are in the accessibility tree", focusable))
	}
	return found
}

// contrastOfText computes, for each text that is seen, the contrast with what is
// behind it: 4.5, or 3 for large text (WCAG 1.4.3).
const contrastOfText = `() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  canvas.canvas.width = canvas.canvas.height = 1;
  const rgba = (c) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1); const d = canvas.getImageData(0, 0, 1, 1).data; return [d[0], d[1], d[2], d[3] / 255]; };
  const over = (a, b) => [0, 1, 2].map((i) => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
  const light = (c) => { const [r, g, b] = c.map((v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = (e) => { const all = []; for (; e; e = e.parentElement) all.push(rgba(getComputedStyle(e).backgroundColor)); return all.reverse().reduce((under, c) => over(c, under), [255, 255, 255, 1]); };
  const found = new Set();
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let n, seen = 0;
  while ((n = walk.nextNode())) {
    const e = n.parentElement;
    if (!n.data.trim() || !e.checkVisibility({ visibilityProperty: true, opacityProperty: true }) || e.closest("script, noscript, option")) continue;
    const s = getComputedStyle(e), back = behind(e);
    let fore = rgba(s.color);
    for (let o = e; o; o = o.parentElement) fore[3] *= Number(getComputedStyle(o).opacity);
    fore = over(fore, back);
    const [a, b] = [light(fore), light(back)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05), size = parseFloat(s.fontSize);
    const needed = size >= 24 || (size >= 18.66 && Number(s.fontWeight) >= 700) ? 3 : 4.5;
    seen++;
    if (ratio < needed) found.add(ratio.toFixed(2) + ": " + JSON.stringify(n.data.slice(0, 40)) + " in " + e.className);
  }
  if (seen < 20) found.add("only " + seen + " texts were seen");
  return [...found];
}`

// sticksOut finds what is wider than the window and cannot be scrolled to in a part
// of its own, and text that is cut off.
const sticksOut = `() => {
  const found = [];
  const width = document.documentElement.clientWidth;
  if (document.scrollingElement.scrollWidth > width) found.push("the page is " + document.scrollingElement.scrollWidth + " wide in a window of " + width);
  for (const e of document.querySelectorAll("main *")) {
    const r = e.getBoundingClientRect();
    if (r.width && r.right > width + 1 && !e.closest(".rows")) found.push(e.tagName + "." + e.className + " reaches to " + Math.round(r.right) + " of " + width);
  }
  return found.slice(0, 5);
}`

// TestPageTheme: the button goes before the system, and is remembered.
func TestPageTheme(t *testing.T) {
	base, _ := serve(t, cluster(3, 10), "127.0.0.1:0")
	p := open(t, chrome.Start(t, nil), base)
	back := func() (c string) {
		p.Eval(`getComputedStyle(document.body).backgroundColor`, &c)
		return c
	}
	light := back()
	p.Scheme("dark")
	dark := back()
	if light == dark {
		t.Fatalf("light and dark are both %s", light)
	}
	press := func() { p.Eval(`document.getElementById("theme").click()`, nil) }
	press()
	if back() != light {
		t.Error("the theme light is not light")
	}
	p.Eval(`window.before = true; location.reload()`, nil)
	p.Until(patience, "the page is live again, the token not forgotten", "!window.before && "+live)
	if back() != light {
		t.Error("the choice was forgotten")
	}
	p.Scheme("light")
	press()
	if back() != dark {
		t.Error("the theme dark is not dark")
	}
	press()
	if back() != light {
		t.Error("as the system is not as the system")
	}
}

// TestPageToken: the token leaves the address bar at once; without it the page asks.
func TestPageToken(t *testing.T) {
	base, _ := serve(t, cluster(3, 10), "127.0.0.1:0")
	b := chrome.Start(t, nil)
	p := open(t, b, base)
	var url string
	p.Eval(`location.href`, &url)
	if strings.Contains(url, token) {
		t.Errorf("the address is %s", url)
	}
	var cookies string
	p.Eval(`document.cookie`, &cookies)
	if cookies != "" {
		t.Errorf("cookies: %s", cookies)
	}
	var history struct {
		Entries []struct{ URL string }
	}
	p.Call("Page.getNavigationHistory", nil, &history)
	for _, e := range history.Entries {
		if strings.Contains(e.URL, token) {
			t.Errorf("the tab's history has %s", e.URL)
		}
	}
	other := b.Page(t)
	other.Open(base)
	other.Until(patience, "the page asks for its token", `document.activeElement === document.getElementById("token")`)
	other.Scheme("light")
	for _, f := range slices.Concat(wrong(other, sticksOut), nameless(other)) {
		if !strings.HasPrefix(f, "only ") {
			t.Error(f)
		}
	}
	other.Picture(filepath.Join(pictures, "token.png"), false)
	other.Type("wrongwrongwrongwrongwrongwrong")
	other.Press("Enter")
	other.Until(patience, "a wrong token is asked for again", `document.getElementById("token")?.value === ""`)
	other.Type(token)
	other.Press("Enter")
	other.Until(patience, "the page is live", live)
	other.Eval(`location.hash = "#token=wrongwrongwrong"`, nil)
	other.Until(patience, "another address with a wrong token asks", `document.getElementById("token")`)
	other.Eval(`location.hash = "#token=`+token+`"`, nil)
	other.Until(patience, "one with the right token opens", live)
}

// TestPageUntrusted: names that others chose are text and nothing else.
func TestPageUntrusted(t *testing.T) {
	f := cluster(3, 5)
	const evil = `<img src=x onerror="window.pwned=1"><script>window.pwned=1</script>`
	f.endpoints[0].Container, f.endpoints[0].Reason = evil, "right\u202eto left\u0007"
	f.nodes[1].Name, f.routes[1].Reason, f.routes[1].State = evil, evil, api.RouteConflict
	f.status.Checks[2].Reason = evil
	f.happen("attach", evil, evil)
	base, _ := serve(t, f, "127.0.0.1:0")
	p := open(t, chrome.Start(t, nil), base)
	for _, view := range viewNames {
		show(p, view)
		var bad bool
		p.Eval(`Boolean(window.pwned || document.querySelector("main img, main script"))`, &bad)
		if bad {
			t.Errorf("%s: a name has become HTML", view)
		}
	}
	show(p, "endpoints")
	p.Until(patience, "the name is shown as it is", `document.querySelector("main").innerText.includes("<img src=x onerror=")`)
	p.Until(patience, "what cannot be seen is shown", `document.querySelector("main").innerText.includes("right\\u202eto left\\u0007")`)
	if got := p.Problems(); len(got) > 0 {
		t.Errorf("the console says: %s", got)
	}
}

// TestPageStates: nothing there, no cluster, the agent slow, broken, gone, back.
func TestPageStates(t *testing.T) {
	f := newFake()
	f.status = api.StatusReport{Node: "alpha", Checks: []api.Check{{Name: api.CheckReady, State: api.Warn, Reason: "waiting for `stellar cluster init`"}}}
	none := api.Errorf(api.CodeNotInitialized, "this node belongs to no cluster yet").WithHint("make one: stellar cluster init")
	methods := []string{"Nodes", "Subnets", "ClusterEndpoints", "Routes", "RouteDrift", "RaftStats", "RaftPeers", "Events"}
	for _, m := range methods {
		f.fail[m] = none
	}
	base, stop := serve(t, f, "127.0.0.1:0")
	b := chrome.Start(t, nil)
	p := open(t, b, base)
	says := func(what string) string {
		return fmt.Sprintf(`document.querySelector("main").textContent.includes(%q)`, what)
	}
	for _, view := range []string{"map", "endpoints", "routes", "raft"} {
		p.Eval(`location.hash = "#/`+view+`"`, nil)
		p.Until(patience, view+" says why it is empty", says("belongs to no cluster")+" && "+says("stellar cluster init"))
	}
	p.Picture(filepath.Join(pictures, "no-cluster.png"), false)

	full := cluster(3, 20)
	f.set(func() {
		f.fail = map[string]error{}
		f.status, f.nodes, f.subnets, f.stats, f.peers = full.status, full.nodes, full.subnets, full.stats, full.peers
	})
	p.Until(patience, "a cluster that comes is seen without a reload", says("Leader answers"))
	p.Eval(`location.hash = "#/endpoints"`, nil)
	p.Until(patience, "no endpoints yet", says("No endpoints yet")+" && "+says("stellar.io/network=true"))
	for _, problem := range wrong(p, contrastOfText) {
		t.Error(problem)
	}
	p.Picture(filepath.Join(pictures, "empty.png"), false)
	p.Eval(`location.hash = "#/routes"`, nil)
	p.Until(patience, "no routes yet", says("No routes yet"))
	p.Eval(`location.hash = "#/events"`, nil)
	p.Until(patience, "no events yet", says("No events yet"))

	f.set(func() { f.fail["RaftStats"] = api.Errorf(api.CodeInternal, "the disk is gone") })
	p.Eval(`location.hash = "#/raft"`, nil)
	p.Until(patience, "an error is shown", says("the disk is gone"))
	f.set(func() { delete(f.fail, "RaftStats"); f.endpoints = full.endpoints })
	p.Eval(`document.querySelector(".state button").click()`, nil)
	p.Until(patience, "trying again helps", drawn["raft"])

	show(p, "endpoints")
	stop()
	p.Until(patience, "the agent is seen to be gone", `document.getElementById("link").dataset.state === "gone" && !document.getElementById("banner").hidden`)
	p.Until(time.Second, "what was known stays", drawn["endpoints"])
	for _, problem := range wrong(p, contrastOfText) {
		t.Error(problem)
	}
	p.Picture(filepath.Join(pictures, "gone.png"), false)
	p.Eval(`location.hash = "#/raft"`, nil)
	p.Until(patience, "a view that has no data yet says that, too", says("does not answer"))
	p.Eval(`location.hash = "#/endpoints"`, nil)
	serve(t, f, strings.TrimPrefix(base, "http://"))
	p.Until(patience, "it comes back by itself", live+` && document.getElementById("banner").hidden && `+drawn["endpoints"])
	f.happen("attach", "default/after", "the restart")
	p.Eval(`location.hash = "#/events"`, nil)
	p.Until(patience, "events go on", says("default/after"))
}

// TestPageComesWhole: what a browser breaks off (Chromium does when the network of its
// machine changes) is loaded again; a page without a part would be dead.
func TestPageComesWhole(t *testing.T) {
	base, _ := serve(t, cluster(3, 10), "127.0.0.1:0")
	b := chrome.Start(t, nil)
	for _, part := range []string{"app.js", "raft.js", "views.css"} {
		p := b.Page(t)
		p.Call("Network.enable", nil, nil)
		p.Call("Network.setBlockedURLs", map[string]any{"urls": []string{"*/" + part}}, nil)
		p.Open(base + "/#token=" + token)
		p.Until(patience, "it was seen that "+part+" is missing", `sessionStorage.getItem("stellar-boots") === "1"`)
		p.Call("Network.setBlockedURLs", map[string]any{"urls": []string{}}, nil)
		p.Until(patience, "the page came whole", live+` && !sessionStorage.getItem("stellar-boots")`)
	}
}

// TestPageEvents: events come by themselves, once, and can be held and searched.
func TestPageEvents(t *testing.T) {
	f := cluster(3, 60)
	base, stop := serve(t, f, "127.0.0.1:0")
	p := open(t, chrome.Start(t, nil), base)
	show(p, "events")
	count := func(n int) string { return fmt.Sprintf(`document.querySelectorAll(".events li").length === %d`, n) }
	p.Until(patience, "what was before", count(40))
	start := time.Now()
	f.happen("attach", "default/fresh", "just now")
	p.Until(2*time.Second, "a new one is on top", `document.querySelector(".events li").innerText.includes("default/fresh")`)
	t.Logf("an event is seen after %s", time.Since(start).Round(time.Millisecond))
	click := func(words string) {
		p.Eval(fmt.Sprintf(`[...document.querySelectorAll("main button")].find((b) => b.innerText === %q).click()`, words), nil)
	}
	click("Pause")
	f.happen("attach", "default/held", "while paused")
	p.Until(patience, "a pause tells what waits", `document.querySelector("main .count").innerText.includes("1 new")`)
	p.Until(time.Second, "and shows nothing new", count(41))
	click("Go on")
	p.Until(patience, "then all is shown", count(42))
	p.Eval(`document.getElementById("events-q").focus()`, nil)
	p.Type("FRESH")
	p.Until(patience, "a search finds", count(1))
	p.Eval(`const q = document.getElementById("events-q"); q.value = ""; q.dispatchEvent(new Event("input"))`, nil)
	p.Until(patience, "all again", count(42))
	stop()
	p.Until(patience, "gone", `document.getElementById("link").dataset.state === "gone"`)
	serve(t, f, strings.TrimPrefix(base, "http://"))
	p.Until(patience, "back", live)
	f.happen("attach", "default/last", "after the return")
	p.Until(patience, "none is doubled by a reconnect, none lost", count(43))
}

var _ web.Source = (*fake)(nil)
