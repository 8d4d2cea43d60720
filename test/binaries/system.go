//go:build integration && linux

package binaries

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// What a build may need on each disk that it writes to. The first one fills the caches of modules and of the compiler.
const (
	gib        = 1 << 30
	firstBuild = 12 * gib
	laterBuild = 2 * gib
)

// checkDisk refuses a build that would fill a disk: a compiler that runs out of space says so in a hundred ways.
func (b *builder) checkDisk() error {
	need := uint64(firstBuild)
	if b.built() {
		need = laterBuild
	}
	out, err := exec.Command("go", "env", "GOCACHE", "GOMODCACHE").Output()
	if err != nil {
		return fmt.Errorf("asking go for its cache folders: %w", err)
	}
	for _, dir := range append(strings.Fields(string(out)), b.cache) {
		free, err := freeSpace(dir)
		if err != nil {
			return err
		}
		if free < need {
			return fmt.Errorf("building test binaries needs %d GiB free on the disk of %s, which has %.1f: free some, point GOCACHE, "+
				"GOMODCACHE and XDG_CACHE_HOME to a larger disk, or set %s to a folder with ready-made programs",
				need/gib, dir, float64(free)/gib, AssetsEnv)
		}
	}
	return nil
}

// freeSpace looks at the nearest folder that exists: caches are made at their first use.
func freeSpace(dir string) (uint64, error) {
	for {
		var fs syscall.Statfs_t
		err := syscall.Statfs(dir, &fs)
		if err == nil {
			return fs.Bavail * uint64(fs.Bsize), nil
		}
		if !errors.Is(err, syscall.ENOENT) || dir == filepath.Dir(dir) {
			return 0, fmt.Errorf("asking for the free space of %s: %w", dir, err)
		}
		dir = filepath.Dir(dir)
	}
}

// lock lets one process build at a time. The kernel drops the lock with the process, so a killed builder blocks nobody.
func lock(ctx context.Context, path string, log io.Writer) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("opening the build lock: %w", err)
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for said := false; ; {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { file.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			file.Close()
			return nil, fmt.Errorf("taking the build lock %s: %w", path, err)
		}
		if !said {
			fmt.Fprintf(log, "waiting for another build of test binaries (lock %s)\n", path)
			said = true
		}
		select {
		case <-ctx.Done():
			file.Close()
			return nil, fmt.Errorf("waiting for the build lock %s: %w", path, context.Cause(ctx))
		case <-tick.C:
		}
	}
}
