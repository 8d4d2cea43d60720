package provider_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"keymount/internal/provider"
)

func TestOneLine(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"plain", "as it is", "as it is"},
		{"at the limit", "0123456789", "0123456789"},
		{"beyond it", "0123456789a", "0123456..."},
		{"cut within a character", "012345äöü", "012345..."},
		{"lines and escapes", "a\nb\x1b[1m", "a b [1m"},
		{"a line of C1", "a\u0085b", "a b"},
		{"not UTF-8", "a\xffb", "a?b"},
		{"nothing", "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := provider.OneLine(tc.text, 10); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
	hostile := strings.Repeat("\xff\u0000ä\n", 1000)
	if got := provider.OneLine(hostile, 100); len(got) > 100 || !utf8.ValidString(got) || strings.ContainsAny(got, "\n\x00") {
		t.Errorf("%d bytes: %q", len(got), got)
	}
}
