package daemon

import (
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"

	"keymount/internal/provider"
	"keymount/internal/volume"
)

// cgroupFolder is where a container sees its own limits.
const cgroupFolder = "/sys/fs/cgroup"

// A budget makes and fills volumes until those of this node use their share of the memory that the process may use. The
// pages of a tmpfs count against the container that writes them: without a budget one more volume would have the driver
// killed, and all that is mounted later with it.
type budget struct {
	volume.Tmpfs
	limit   int64           // bytes that all volumes may use; 0 means that there is no limit
	targets func() []string // of all volumes of this node

	mu sync.Mutex
	// reserved is what is about to be written, or was written to volumes that targets does not name yet.
	reserved int64
}

// newBudget gives volumes half of the container's memory; the other half is the process's own.
func newBudget(store volume.Tmpfs, cgroup fs.FS, targets func() []string) *budget {
	return &budget{Tmpfs: store, limit: memoryLimit(cgroup) / 2, targets: targets}
}

// Mount makes the volume if there is memory for one more. One that is there is left as it is.
func (b *budget) Mount(target string) error {
	b.mu.Lock()
	err := b.room(1, b.limit)
	b.mu.Unlock()
	if err != nil {
		return err
	}
	return b.Tmpfs.Mount(target)
}

// Reserve implements publish.Reserver: many volumes that are made at the same time, or that grow, must not use together what
// each of them could have. What a volume holds already is its own, so that one that does not grow is always refreshed;
// and one that grows may use half of what is kept for the process, since it is better to refuse a new pod than to leave a
// running one with what is out of date.
func (b *budget) Reserve(target string, files []provider.File) (release func(), err error) {
	release = func() {}
	if b.limit <= 0 {
		return release, nil
	}
	status, err := b.Inspect(target)
	if err != nil {
		return release, err
	}
	more, limit := pagesOf(files)-status.Bytes, b.limit
	if status.Generation != "" {
		limit += b.limit / 2
	}
	if more <= 0 {
		return release, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.room(more, limit); err != nil {
		return release, err
	}
	b.reserved += more
	return sync.OnceFunc(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.reserved -= more
	}), nil
}

// pagesOf is the memory that files take in a tmpfs.
func pagesOf(files []provider.File) (bytes int64) {
	const page = 4096
	for _, f := range files {
		bytes += (int64(len(f.Contents)) + page - 1) / page * page
	}
	return bytes
}

// room says whether volumes may use so much more, up to limit. b.mu is held.
func (b *budget) room(more, limit int64) error {
	if b.limit <= 0 {
		return nil
	}
	used := b.used() + b.reserved
	if used+more <= limit {
		return nil
	}
	return &provider.Error{Kind: provider.Unavailable,
		Message: fmt.Sprintf("the volumes of this node use %d MiB, half of the driver's memory limit of %d MiB is %d, and this one needs %d KiB",
			used>>20, b.limit>>19, b.limit>>20, (more+1023)>>10),
		Remedy: "raise the driver's memory limit (chart value linux.driver.resources.limits.memory), or mount less on this node"}
}

// used is how many bytes all volumes use; one that cannot be looked at counts nothing.
func (b *budget) used() (bytes int64) {
	for _, target := range b.targets() {
		if status, err := b.Inspect(target); err == nil {
			bytes += status.Bytes
		}
	}
	return bytes
}

// keepToShare has the Go runtime keep to the half of the container's memory that volumes do not use: it would else let garbage
// grow to the size of what is alive, which is too much where answers of providers come together. Whoever sets GOMEMLIMIT
// knows better.
func keepToShare(cgroup fs.FS) {
	if limit := memoryLimit(cgroup); limit > 0 && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(limit / 2)
	}
}

// memoryLimit is the container's in bytes, 0 if it has none, from the file of either version of cgroups (kernel
// documentation, admin-guide/cgroup-v2 and cgroup-v1/memory).
func memoryLimit(cgroup fs.FS) int64 {
	for _, name := range []string{"memory.max", "memory/memory.limit_in_bytes"} {
		text, err := fs.ReadFile(cgroup, name)
		if err != nil {
			continue
		}
		limit, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		const none = 1 << 60 // version 1 writes a number near the largest, version 2 the word max
		if err == nil && limit > 0 && limit < none {
			return limit
		}
	}
	return 0
}
