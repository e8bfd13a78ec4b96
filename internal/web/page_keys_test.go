package web_test

import (
	"fmt"
	"testing"

	"stellar.io/stellar/internal/testx/chrome"
)

// focusedNow describes what has the focus and whether one sees that.
const focusedNow = `(() => {
  const e = document.activeElement;
  if (!e || e === document.body) return { what: "", seen: true };
  const s = getComputedStyle(e), r = e.getBoundingClientRect();
  return {
    what: e.tagName + "#" + e.id + "." + e.className + " " + (e.getAttribute("aria-label") ?? e.innerText ?? "").slice(0, 30),
    seen: s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 2 && r.width > 0 && r.bottom > 0 && r.top < innerHeight && r.right > 0 && r.left < innerWidth,
  };
})()`

type focused struct {
	What string
	Seen bool
}

// TestPageKeyboard: with Tab one gets everywhere, sees where one is, and out again.
func TestPageKeyboard(t *testing.T) {
	base, _ := serve(t, cluster(40, 300), "127.0.0.1:0")
	p := open(t, chrome.Start(t, nil), base)
	for _, view := range viewNames {
		show(p, view)
		p.Eval(`document.activeElement.blur(); window.getSelection().removeAllRanges(); document.getElementById("skip").focus()`, nil)
		var want int
		p.Eval(`[...document.querySelectorAll("a[href], button, input, select, summary, [tabindex]")].filter((e) => e.tabIndex >= 0 && !e.disabled && e.checkVisibility()).length`, &want)
		seen := map[string]bool{}
		stops := 1 // the skip link
		for range want + 10 {
			p.Press("Tab")
			var f focused
			p.Eval(focusedNow, &f)
			if f.What == "" || f.What == "A#skip.skip Skip to the content" {
				break // past the last: out of the page
			}
			stops++
			seen[f.What] = true
			if !f.Seen {
				t.Errorf("%s: nobody sees that %s has the focus", view, f.What)
			}
		}
		if stops != want {
			t.Errorf("%s: Tab stops %d times, there are %d controls", view, stops, want)
		}
		// The browser's own frame, which a headless one lacks, may be a stop.
		p.Press("Shift+Tab")
		var back focused
		if p.Eval(focusedNow, &back); back.What == "" {
			p.Press("Shift+Tab")
			p.Eval(focusedNow, &back)
		}
		if back.What == "" {
			t.Errorf("%s: there is no way back", view)
		}
	}
	if got := p.Problems(); len(got) > 0 {
		t.Errorf("the console says: %s", got)
	}
}

// TestPageKeys: what is done with a mouse is done with keys.
func TestPageKeys(t *testing.T) {
	base, _ := serve(t, cluster(40, 300), "127.0.0.1:0")
	p := open(t, chrome.Start(t, nil), base)
	text := func(selector string) (s string) {
		p.Eval(fmt.Sprintf(`document.querySelector(%q)?.innerText ?? ""`, selector), &s)
		return s
	}
	focus := func(selector string) { p.Eval(fmt.Sprintf(`document.querySelector(%q).focus()`, selector), nil) }

	p.Eval(`document.getElementById("skip").focus()`, nil)
	p.Press("Enter")
	p.Until(patience, "the skip link skips", `document.activeElement.id === "main"`)
	p.Until(patience, "and the view stays", `location.hash === "#/map"`)

	show(p, "map")
	focus(`.tile[tabindex="0"]`)
	at := `[...document.querySelectorAll(".tiles .tile")].indexOf(document.activeElement)`
	p.Press("ArrowRight", "ArrowRight")
	p.Until(patience, "arrows move on the map", at+" === 2")
	p.Until(patience, "the card is of the chosen one", `document.querySelector(".node-card h3").innerText.startsWith("node-0003")`)
	p.Press("ArrowDown")
	p.Until(patience, "and down by a row", at+" > 3")
	p.Press("ArrowUp", "End")
	p.Until(patience, "End is the last", at+" === 39")
	p.Press("Home", "ArrowLeft")
	p.Until(patience, "Home is the first", at+" === 0")
	p.Until(patience, "one tile alone is a stop", `document.querySelectorAll('.tile[tabindex="0"]').length === 1`)

	show(p, "endpoints")
	focus(`thead th:nth-child(3) .sort`)
	p.Press("Enter")
	p.Until(patience, "Enter sorts", `document.querySelector("thead th:nth-child(3)").ariaSort === "ascending" && document.querySelector("tbody td:nth-child(3)").innerText.includes("–")`)
	p.Press(" ")
	p.Until(patience, "again: the other way", `document.querySelector("thead th:nth-child(3)").ariaSort === "descending" && document.querySelector("tbody td:nth-child(3)").innerText.includes("172.16.")`)
	p.Until(patience, "the focus stays", `document.activeElement.closest("th")?.ariaSort === "descending"`)
	first := text("tbody tr .open")
	p.Eval(`[...document.querySelectorAll(".pager button")].find((b) => b.innerText === "Last").focus()`, nil)
	p.Press("Enter")
	p.Until(patience, "the last page", `document.querySelector(".place-in").innerText === "251–300 of 300"`)
	p.Until(patience, "the button keeps the focus", `document.activeElement.innerText === "Last"`)
	if got := text("tbody tr .open"); got == first {
		t.Errorf("the last page begins with %s, too", got)
	}
	p.Eval(`[...document.querySelectorAll(".listing input")][0].focus()`, nil)
	p.Type("node-0001 web")
	p.Until(patience, "what is typed is searched", `/^\d+ of 300/.test(document.querySelector(".listing .count").innerText)`)
	focus(`tbody .open`)
	p.Press("Enter")
	p.Until(patience, "Enter opens a row", `document.querySelector("tr.details")?.innerText.includes("The attach took 5.4 ms")`)
	p.Until(patience, "and says that it is open", `document.querySelector("tbody .open").ariaExpanded === "true"`)
	p.Press("Enter")
	p.Until(patience, "Enter closes it", `!document.querySelector("tr.details")`)
	if got := p.Problems(); len(got) > 0 {
		t.Errorf("the console says: %s", got)
	}
}
