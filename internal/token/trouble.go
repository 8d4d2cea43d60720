package token

import (
	"log/slog"
	"sync"

	"keymount/internal/provider"
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
		t.log.Warn(t.begins, "err", provider.OneLine(err.Error(), maxLogged))
	case err == nil && t.on:
		t.on = false
		t.log.Info(t.ends)
	}
}
