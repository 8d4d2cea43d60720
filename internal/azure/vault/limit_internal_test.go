package vault

import (
	"context"
	"testing"
	"time"

	"keymount/internal/azure/identity"
)

// A caller can give up at the very moment of its turn. The turn is then not lost: thousands of mounts that are given up
// would otherwise leave a vault that nobody can read from.
func TestTurnsOfThoseWhoGiveUpComeBack(t *testing.T) {
	const most = 2
	l := newLimits(most)
	ended, cancel := context.WithCancel(context.Background())
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
		for _, v := range l.vaults {
			if v.inFlight != 0 || v.users != 0 {
				t.Fatalf("%d in flight, %d users, after %d came and %d gave up", v.inFlight, v.users, came, gaveUp)
			}
		}
		if len(l.vaults) != 0 {
			t.Fatal("the vault is not forgotten")
		}
		for range most { // all places are there
			if err := l.enter(t.Context(), "v", identity.Key{}); err != nil {
				t.Fatal(err)
			}
		}
		for range most {
			l.leave("v", served, time.Now(), 0)
		}
	}
	if came == 0 || gaveUp == 0 {
		t.Errorf("%d came, %d gave up: the test shows nothing", came, gaveUp)
	}
}
