package api

import (
	"fmt"
	"io"
	"log/slog"
)

// Secret is text that must not reach a log, an error or a terminal by accident:
// however it is printed, logged or put into JSON, it reads "[secret]". Only
// Reveal gives it away.
type Secret string

const redacted = "[secret]"

// Reveal returns the text.
func (s Secret) Reveal() string { return string(s) }

// Format hides the text whatever the verb is, %q, %x and %#v included.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// String hides the text.
func (s Secret) String() string { return redacted }

// LogValue hides the text.
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText hides the text, in JSON, too.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
