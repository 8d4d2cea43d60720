package publish_test

import (
	"errors"
	"sync"
	"testing"

	"keymount/internal/provider"
	"keymount/internal/publish"
	"keymount/internal/volume"
)

// bounded is a store with room for so many files in all.
type bounded struct {
	volume.Folder
	room, reserved int
	asked          []string
}

func (b *bounded) Reserve(target string, files []provider.File) (func(), error) {
	b.asked = append(b.asked, target)
	if b.reserved+len(files) > b.room {
		return nil, &provider.Error{Kind: provider.Unavailable, Message: "no room"}
	}
	b.reserved += len(files)
	return sync.OnceFunc(func() { b.reserved -= len(files) }), nil
}

// Nothing is written for which there is no room, and what was reserved is given back however the call ends.
func TestRoomIsReservedBeforeAWrite(t *testing.T) {
	store := &bounded{room: 1}
	b := newBench(t, func(c *publish.Config) { c.Store = store })
	_, err := b.Publish(t.Context(), b.v)
	b.wantState(err, publish.Undone)
	if provider.KindOf(err) != provider.Unavailable {
		t.Errorf("got %v", err)
	}
	b.wantNothing()

	store.room = 2
	b.mustPublish()
	if store.reserved != 0 || len(store.asked) != 2 || store.asked[1] != b.v.Target {
		t.Errorf("%d still reserved, asked for %v", store.reserved, store.asked)
	}
	store.room = 0
	_, err = b.Refresh(t.Context(), b.v)
	b.wantState(err, publish.Kept)
	b.wantFiles(map[string]string{"a": "a v1", "sub/b": "sub/b v1"})

	store.room = 2
	bad := content("v2", "a", "b")
	bad.Files[1].Path = "../b"
	b.serve(bad)
	if _, err := b.Refresh(t.Context(), b.v); err == nil || store.reserved != 0 {
		t.Errorf("%d still reserved after %v", store.reserved, err)
	}
	b.fail(errors.New("down"))
	if _, err := b.Refresh(t.Context(), b.v); err == nil || store.reserved != 0 {
		t.Errorf("%d still reserved after %v", store.reserved, err)
	}
}
