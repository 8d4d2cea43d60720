package token

import (
	"log/slog"
	"strings"
	"sync"
	"unicode"
)

// maxLogged bounds what is repeated of an error of the API server.
const maxLogged = 512

// A trouble says that something stopped to work, and that it works again, once each.
type trouble struct {
	log          *slog.Logger
	begins, ends string

	saying sync.Mutex
	on     bool
}

// note takes the outcome of a try.
func (t *trouble) note(err error) {
	t.saying.Lock()
	defer t.saying.Unlock()
	switch {
	case err != nil && !t.on:
		t.on = true
		t.log.Warn(t.begins, "err", clean(err.Error()))
	case err == nil && t.on:
		t.on = false
		t.log.Info(t.ends)
	}
}

// clean bounds a text of the API server and takes out what could forge a line of a log.
func clean(text string) string {
	if len(text) > maxLogged {
		text = text[:maxLogged] + "..."
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
}
