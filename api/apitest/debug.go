package apitest

import (
	"context"
	"slices"

	"stellar.io/stellar/api"
)

// LogLevel implements server.Debug.
func (b *Backend) LogLevel(_ context.Context, level string) (now, before string, err error) {
	unlock, err := b.begin("LogLevel")
	defer unlock()
	if err != nil {
		return "", "", err
	}
	before = b.logLevel
	switch {
	case level == "":
	case slices.Contains([]string{"debug", "info", "warn", "error"}, level):
		b.logLevel = level
	default:
		return "", "", api.Errorf(api.CodeInvalid, "log level %q is not debug, info, warn or error", level)
	}
	return b.logLevel, before, nil
}

// SetReport makes Bugreport send a file.
func (b *Backend) SetReport(f api.ReportFile) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.report = append(b.report, f)
}

// Bugreport implements server.Debug.
func (b *Backend) Bugreport(_ context.Context, send func(api.ReportFile) error) error {
	unlock, err := b.begin("Bugreport")
	defer unlock()
	for _, f := range b.report {
		if err := send(f); err != nil {
			return err
		}
	}
	return err
}
