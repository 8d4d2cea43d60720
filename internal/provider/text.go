package provider

import (
	"strings"
	"unicode"
)

// OneLine makes a foreign text fit for a log, an Event or an error: valid UTF-8 of at most limit bytes, its end cut off with
// "..." where it is longer, and blanks for control characters, which could forge a line or drive a terminal. limit is more
// than 3.
func OneLine(text string, limit int) string {
	const more = "..."
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit-len(more)], "") + more
	}
	// A "?" is no longer than the byte that it stands for, and a blank no longer than a control character.
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
}
