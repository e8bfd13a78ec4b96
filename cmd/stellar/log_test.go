package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"stellar.io/stellar/internal/config"
)

func TestJournalLines(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "journal")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	env := func(string) string { return fmt.Sprintf("%d:%d", st.Dev, st.Ino) }
	logger, _ := newLogger(f, config.DefaultConfig(), env)
	log := logger.With("component", "x")
	log.Debug("no")
	log.Info("attached", "ms", 3)
	log.WithGroup("g").Warn("again", "level", "mine")
	log.Error("broken")
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := "<6>msg=attached component=x ms=3\n<4>msg=again component=x g.level=mine\n<3>msg=broken component=x\n"
	if string(got) != want {
		t.Errorf("journal got\n%swant\n%s", got, want)
	}
}

func TestLogFormats(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, format, level, env string
		want                     string // first line begins so
	}{
		{"text", "text", "debug", "", "time="},
		{"json", "json", "debug", "", `{"time":`},
		{"auto on a terminal or a file", "auto", "debug", "", "time="},
		{"auto with another's journal", "auto", "debug", "1:2", "time="},
		{"level", "text", "warn", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg := config.DefaultConfig()
			cfg.Log.Format, cfg.Log.Level = tt.format, tt.level
			var buf bytes.Buffer
			log, _ := newLogger(&buf, cfg, func(string) string { return tt.env })
			log.Info("hello")
			if got := buf.String(); !strings.HasPrefix(got, tt.want) || (got == "") != (tt.want == "") {
				t.Errorf("line = %q, want %q…", got, tt.want)
			}
		})
	}
}
