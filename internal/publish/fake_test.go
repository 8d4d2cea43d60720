package publish_test

import (
	"strings"
	"testing"

	"keymount/internal/provider"
	"keymount/internal/provider/providertest"
	"keymount/internal/publish"
)

// The life of a volume on a provider that passes the suite: what the contract promises is all that publish relies on.
func TestLifeOfAVolume(t *testing.T) {
	b := newBench(t)
	fake := providertest.NewFake()
	b.provider = fake
	b.v.Request = *fake.Request(providertest.Alice, "db", "web")
	fake.Set("db", "one")

	_, err := b.Publish(t.Context(), b.v)
	b.wantState(err, publish.Undone)
	if provider.KindOf(err) != provider.NotFound || !strings.Contains(err.Error(), "web") {
		t.Errorf("got %v", err)
	}
	b.wantNothing()

	fake.Set("web", "two")
	if res := b.mustPublish(); !res.First {
		t.Errorf("result %+v", res)
	}
	b.wantFiles(map[string]string{"db": "one", "web": "two"})
	if calls := fake.Calls(); calls != 2 {
		t.Errorf("%d fetches, want 2", calls)
	}

	fake.Set("db", "three")
	fake.Break("web", provider.Throttled)
	_, err = b.Refresh(t.Context(), b.v)
	b.wantState(err, publish.Kept)
	b.wantFiles(map[string]string{"db": "one", "web": "two"}) // all of it, or nothing

	fake.Mend("web")
	res, err := b.Refresh(t.Context(), b.v)
	if err != nil || len(res.Change.Updated) != 1 || res.Files[0].Version != "2" {
		t.Errorf("result %+v, %v", res, err)
	}
	b.wantFiles(map[string]string{"db": "three", "web": "two"})

	reached, release := fake.Hold("db")
	defer release()
	refresh := background(func() (publish.Result, error) { return b.Refresh(t.Context(), b.v) })
	<-reached
	b.must(b.Unpublish(t.Context(), b.v.ID, b.v.Target))
	b.wantNothing()
	if o := <-refresh; provider.KindOf(o.err) != provider.Unavailable {
		t.Errorf("the refresh ended with %v", o.err)
	}
}
