package identity

import (
	"context"
	"testing"
	"testing/synctest"
)

func TestFetchesAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBank()
		b.answer = func(_ context.Context, proof byte) (AccessToken, error) {
			switch proof {
			case 0:
				return AccessToken{}, errDenied
			case 1:
				panic("a defect")
			}
			return b.hour(), nil
		}
		for _, proof := range []byte{0, 1, 2, 3} { // the last is served what the third fetched
			<-ask(t.Context(), b.holder(proof))
		}
		if got, want := b.tokens.counts.read(), (Counts{Fetched: 1, Failed: 2}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}
