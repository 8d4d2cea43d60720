package vault_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"keymount/internal/azure/identity"
	"keymount/internal/azure/vault"
)

// Requests are counted where they are sent: tries too, reads that another serves not; failures serve nobody.
func TestCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tries atomic.Int32
		f := newFake(func(req *http.Request, _ int) (*http.Response, error) {
			time.Sleep(time.Second) // so that all who ask are there before the first answer
			switch {
			case strings.Contains(req.URL.Path, "absent"):
				return respond(req, 404, `{"error":{"code":"SecretNotFound","message":"no"}}`), nil
			case tries.Add(1) <= 2:
				return throttled(req), nil
			}
			return secret(req, "value"), nil
		})
		source, client := f.client()
		who := principal(t, source, "c", "s")
		var reads []chan result
		for range 10 {
			reads = append(reads, get(t.Context(), client, who, "one")) // two tries are throttled
			reads = append(reads, get(t.Context(), client, who, "absent"))
		}
		for _, r := range reads {
			<-r
		}
		<-get(t.Context(), client, who, "one") // the read that has just ended
		if got, want := client.Counts(), (vault.Counts{Requests: 4, Throttled: 2, Shared: 10}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if n := uint64(len(f.requests(""))); n != client.Counts().Requests {
			t.Errorf("%d requests came", n)
		}
		if got, want := source.Counts(), (identity.Counts{Fetched: 1}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}
