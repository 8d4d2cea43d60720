package registry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// lockFile is beside the records' folder, or wherever the caller keeps its state.
const lockFile = "keymount.lock"

// A Lock keeps other processes from the same state folder. The system releases it when the process ends, however it ends.
type Lock struct{ file *os.File }

// AcquireLock waits until no other process holds the lock of the folder, which it makes (0700) if it does not exist. Two daemons
// overlap during an upgrade: the new one waits here. It returns ctx's error once that is done. The lock also excludes other
// callers in this process.
func AcquireLock(ctx context.Context, folder string) (*Lock, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, fmt.Errorf("making state folder: %w", err)
	}
	f, err := openLock(filepath.Join(folder, lockFile))
	if err != nil {
		return nil, fmt.Errorf("opening lock: %w", err)
	}
	// Asking again and again, because a wait in the system could not be ended by ctx.
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := tryLock(f)
		if err == nil {
			return &Lock{f}, nil
		}
		if !errors.Is(err, errLocked) {
			f.Close()
			return nil, fmt.Errorf("locking %s: %w", folder, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("waiting for the process that holds %s: %w", folder, ctx.Err())
		case <-tick.C:
		}
	}
}

var errLocked = errors.New("locked by another process")

// Release lets the next one in.
func (l *Lock) Release() error {
	// Closing alone would not do: a process that is being started has a copy of the handle for a moment, and the lock with it.
	return errors.Join(unlock(l.file), l.file.Close())
}
