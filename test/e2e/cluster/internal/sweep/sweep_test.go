//go:build integration && linux

package sweep

import (
	"context"
	"errors"
	"testing"

	"keymount/test/e2e/cluster/internal/layout"
)

func TestOneHoldsTheFolder(t *testing.T) {
	dir := layout.Dir(t.TempDir())
	first, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(dir); !errors.Is(err, ErrLocked) {
		t.Errorf("a second lock: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	cancel(enough)
	if _, err := AwaitLock(ctx, dir); !errors.Is(err, ErrLocked) || !errors.Is(err, enough) {
		t.Errorf("waiting in vain: %v", err)
	}
	first.Close()
	second, err := AwaitLock(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	second.Close()
	if _, err := Lock(layout.Dir(dir.Path("missing"))); err == nil || errors.Is(err, ErrLocked) {
		t.Errorf("a folder that is not there: %v", err)
	}
}
