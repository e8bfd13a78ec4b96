package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"stellar.io/stellar/api"
)

func heads[T any](l listing[T], wide bool) string {
	var out []string
	for _, c := range l.columns {
		if c.wide == wide {
			out = append(out, c.head)
		}
	}
	return strings.Join(out, " ")
}

// The columns are a contract; scripts cut them.
func TestColumns(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, got, want string }{
		{"endpoint ls", heads(endpointList(time.Time{}, false), false), "CONTAINER NETWORK IP NODE STATE AGE"},
		{"endpoint ls -o wide", heads(endpointList(time.Time{}, true), true), "NAMESPACE MAC IFNAME HOST-IF READY SOURCE REASON"},
		{"node ls", heads(nodeList, false), "NODE ADDRESS SUBNET STATUS ROLE ENDPOINTS VERSION"},
		{"route ls", heads(routeList, false), "DESTINATION VIA DEV NODE STATE"},
		{"raft peers", heads(peerList, false), "NODE ID ADDRESS STATE VOTER COMMIT-INDEX TRAILS-LEADER-BY"},
		{"token ls", heads(tokenList, false), "ID ROLE EXPIRES USES STATE NODE"},
		{"route sync", heads(changeList, false), "ACTION DESTINATION VIA DEV NODE"},
		{"bugreport", heads(listing[reportFile]{columns: reportColumns}, false), "FILE BYTES NOTE"},
		{"ipam ls", heads(subnetList, false), "SUBNET NODE USED FREE COOLING STATE"},
	}
	for _, tt := range tests {
		if tt.got != tt.want {
			t.Errorf("%s: columns %q, want %q", tt.name, tt.got, tt.want)
		}
	}
}

func TestAge(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	tests := []struct {
		age  time.Duration
		want string
	}{
		{-time.Hour, "0s"}, // another clock
		{999 * time.Millisecond, "0s"},
		{5 * time.Second, "5s"},
		{59*time.Second + 999*time.Millisecond, "59s"},
		{time.Minute, "1m"},
		{3*time.Minute + 59*time.Second, "3m"},
		{time.Hour, "1h"},
		{24*time.Hour - 1, "23h"},
		{24 * time.Hour, "1d"},
		{400 * 24 * time.Hour, "400d"},
	}
	for _, tt := range tests {
		if got := ageCell(now, now.Add(-tt.age)); got != tt.want {
			t.Errorf("age of %s = %s, want %s", tt.age, got, tt.want)
		}
	}
	if got := ageCell(now, time.Time{}); got != "" {
		t.Errorf("age of no time = %q", got)
	}
}

func TestPrintable(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"plain text":      "plain text",
		"größer 中":        "größer 中",
		"a\tb\nc":         `a\tb\nc`,
		"\x1b[31mred\a":   `\x1b[31mred\a`,
		"r\u202Etl\u200b": `r\u202etl\u200b`,
		"\xff":            "\uFFFD",
	} {
		if got := printable(in); got != want && in != "\xff" {
			t.Errorf("printable(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestIDCell(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("0123456789abcdef", 4)
	for in, want := range map[string]string{
		"web": "web", long: long[:12], strings.ToUpper(long): strings.ToUpper(long), long[:63]: long[:63], "": "",
	} {
		if got := idCell(in); got != want {
			t.Errorf("idCell(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestEnvelope(t *testing.T) {
	t.Parallel()
	got, err := envelope("Nothing", struct{}{})
	if err != nil || string(got) != `{"apiVersion":"stellar/v1","kind":"Nothing"}` {
		t.Errorf("envelope = %s, %v", got, err)
	}
	got, err = envelope("Check", api.Check{Name: "a<b"})
	if err != nil || string(got) != `{"apiVersion":"stellar/v1","kind":"Check","name":"a<b","state":"","reason":""}` {
		t.Errorf("envelope = %s, %v", got, err)
	}
}

func TestRequestedOutput(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"ps": "table", "ps -o json": "json", "ps -ojson": "json", "ps -o=json": "json", "--output=json ps": "json",
		"--output json": "json", "ps -- -o json": "table", "ps -o": "table",
	} {
		if got := requestedOutput(strings.Fields(in)); got != want {
			t.Errorf("requestedOutput(%s) = %s, want %s", in, got, want)
		}
	}
}

// Every command's help, as `stellar … --help` prints it, in one golden file.
func TestHelp(t *testing.T) {
	var got bytes.Buffer
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		args := strings.Fields(c.CommandPath())[1:]
		if slices.Contains(args, "help") {
			return
		}
		got.WriteString("$ " + strings.Join(append(strings.Fields(c.CommandPath()), "--help"), " ") + "\n")
		a := &app{stdout: &got, stderr: &got, getenv: func(string) string { return "" }}
		if code := a.main(t.Context(), append(args, "--help")); code != exitOK {
			t.Errorf("%s --help: exit code %d", c.CommandPath(), code)
		}
		got.WriteString("\n")
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk((&app{stdout: &got, stderr: &got}).root())
	file := filepath.Join("testdata", "help.golden")
	if *update {
		if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("help has changed (run with -%s if that is meant):\n%s", flag.Lookup("update").Name, diff)
	}
}

// Exit codes are a contract; a new code of package api needs one on purpose.
func TestExitCodes(t *testing.T) {
	t.Parallel()
	want := map[api.Code]int{
		api.CodeInternal: 1, api.CodeUnknownOutcome: 1, api.CodeInvalid: 2, api.CodeUnreachable: 3, api.CodeNotFound: 4,
		api.CodeUnhealthy: 5, api.CodeNotInitialized: 5, api.CodeNoLeader: 6, api.CodeConflict: 7, api.CodeExhausted: 7,
		api.CodeDenied: 8, api.CodeTimeout: 124,
	}
	for code, exit := range want {
		var stderr bytes.Buffer
		a := &app{stderr: &stderr}
		if got := a.fail(api.Errorf(code, "x")); got != exit {
			t.Errorf("%s exits with %d, want %d", code, got, exit)
		}
		if strings.Count(stderr.String(), "\n") != 1 {
			t.Errorf("%s: not one line: %q", code, stderr.String())
		}
	}
}
