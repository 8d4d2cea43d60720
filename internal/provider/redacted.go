package provider

import (
	"fmt"
	"io"
	"log/slog"
)

const redacted = "[redacted]"

// What the two types below cannot do: package fmt asks no method of a value in an unexported field, so a struct that keeps
// one there is not to be printed, or has a String and Format of its own; and encoding/json writes keys of maps as they are,
// so they are values of maps and never keys.

// Contents are the bytes of a file. They print as "[redacted]" under every verb, in logs and in JSON.
type Contents []byte

// Sensitive is a credential. It prints as "[redacted]" under every verb, in logs and in JSON; use string(s) or Reveal
// where the value itself is needed, which is at the edge to a wire or a library only.
type Sensitive string

// Reveal returns the credential itself.
func (s Sensitive) Reveal() string { return string(s) }

// Format implements fmt.Formatter, which covers the verbs that String and GoString do not (%x, %d, ...).
func (Contents) Format(f fmt.State, _ rune)  { io.WriteString(f, redacted) }
func (Sensitive) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// String implements fmt.Stringer for those who call it directly.
func (Contents) String() string  { return redacted }
func (Sensitive) String() string { return redacted }

// LogValue implements slog.LogValuer.
func (Contents) LogValue() slog.Value  { return slog.StringValue(redacted) }
func (Sensitive) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON implements json.Marshaler.
func (Contents) MarshalJSON() ([]byte, error)  { return []byte(`"` + redacted + `"`), nil }
func (Sensitive) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// MarshalText implements encoding.TextMarshaler, which YAML and XML encoders use.
func (Contents) MarshalText() ([]byte, error)  { return []byte(redacted), nil }
func (Sensitive) MarshalText() ([]byte, error) { return []byte(redacted), nil }
