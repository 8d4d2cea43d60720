package vault

import (
	"context"
	"testing"
	"time"

	"keymount/internal/azure/identity"
)

// A caller can give up at the very moment of its turn. The turn is then not lost: thousands of mounts that are given up
// would otherwise leave a vault, for as long as anybody reads from it, that nobody else can read from.
func TestTurnsOfThoseWhoGiveUpComeBack(t *testing.T) {
	l := newLimits(2)
	if err := l.enter(t.Context(), "v", identity.Key{}); err != nil { // a read that goes on all the time
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	came, gaveUp := 0, 0
	for range 200 {
		// Its turn comes at once, and its end has come already: which of the two it sees is chance.
		if l.enter(ended, "v", identity.Key{}) == nil {
			l.leave("v", served, time.Now(), 0)
			came++
		} else {
			gaveUp++
		}
		if v := l.vaults["v"]; v.inFlight != 1 || v.users != 1 {
			t.Fatalf("%d in flight of %d users, after %d came and %d gave up; want one", v.inFlight, v.users, came, gaveUp)
		}
	}
	if came == 0 || gaveUp == 0 {
		t.Errorf("%d came, %d gave up: the test shows nothing", came, gaveUp)
	}
}
