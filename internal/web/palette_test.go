package web_test

import (
	"math"
	"os"
	"regexp"
	"strconv"
	"testing"
)

// TestPalette computes the contrast of the colours that stand on each other: text
// needs 4.5, a mark that means something 3 (WCAG 1.4.3 and 1.4.11).
func TestPalette(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("page/style.css")
	if err != nil {
		t.Fatal(err)
	}
	palette := map[string][2]string{}
	for _, m := range regexp.MustCompile(`--([a-z-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\);`).FindAllStringSubmatch(string(data), -1) {
		palette[m[1]] = [2]string{m[2], m[3]}
	}
	const text, mark = 4.5, 3
	surfaces := []string{"page", "card", "sunk"}
	tests := []struct {
		fore  string
		backs []string
		least float64
	}{
		{"ink", append(surfaces, "calm-back"), text},
		{"soft", surfaces, text},
		{"link", surfaces, text},
		{"card", []string{"ink"}, text},
		{"ok", []string{"ok-back", "card", "page"}, text},
		{"warn", []string{"warn-back", "card", "page"}, text},
		{"err", []string{"err-back", "card", "page"}, text},
		{"edge", []string{"card", "page"}, mark},
		{"focus", surfaces, mark},
		{"star", []string{"card"}, text},
		{"fill", surfaces, mark},
		{"fill-high", surfaces, mark},
		{"fill-full", surfaces, mark},
		{"fill-cooling", surfaces, mark},
	}
	used := map[string]bool{}
	for _, tt := range tests {
		used[tt.fore] = true
		for _, back := range tt.backs {
			used[back] = true
			for i, scheme := range []string{"light", "dark"} {
				if palette[tt.fore][i] == "" || palette[back][i] == "" {
					t.Fatalf("no colour %s or %s in the palette", tt.fore, back)
				}
				if got := contrast(t, palette[tt.fore][i], palette[back][i]); got < tt.least {
					t.Errorf("%s on %s, %s: %.2f, want %.1f", tt.fore, back, scheme, got, tt.least)
				}
			}
		}
	}
	for name := range palette {
		if !used[name] && name != "line" { // lines only part what space parts, too
			t.Errorf("nobody knows where %s is used", name)
		}
	}
	css, err := os.ReadFile("page/views.css")
	if err != nil {
		t.Fatal(err)
	}
	body := regexp.MustCompile(`(?s):root \{.*?\n\}`).ReplaceAllString(string(data), "")
	if m := regexp.MustCompile(`#[0-9a-fA-F]{3,8}\b|rgba?\(|hsl`).FindString(body + string(css)); m != "" {
		t.Errorf("the colour %s is not of the palette", m)
	}
}

// contrast is WCAG's ratio of two colours.
func contrast(t *testing.T, a, b string) float64 {
	x, y := luminance(t, a), luminance(t, b)
	return (max(x, y) + 0.05) / (min(x, y) + 0.05)
}

func luminance(t *testing.T, c string) (sum float64) {
	t.Helper()
	for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
		n, err := strconv.ParseUint(c[1+2*i:3+2*i], 16, 8)
		if err != nil {
			t.Fatal(err)
		}
		v := float64(n) / 255
		if v <= 0.03928 {
			v /= 12.92
		} else {
			v = math.Pow((v+0.055)/1.055, 2.4)
		}
		sum += weight * v
	}
	return sum
}
