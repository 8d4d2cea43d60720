package daemon

import (
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"keymount/internal/provider"
	"keymount/internal/volume"
)

// A budget makes volumes until those of this node use their share of the memory that the process may use. The pages of a
// tmpfs count against the container that writes them: without a budget one more volume would have the driver killed, and
// all that is mounted later with it.
type budget struct {
	volume.Tmpfs
	limit   int64           // bytes that all volumes may use; 0 means that there is no limit
	targets func() []string // of all volumes of this node
}

// newBudget gives volumes half of the container's memory; the other half is the process's own.
func newBudget(store volume.Tmpfs, cgroup fs.FS, targets func() []string) budget {
	return budget{store, memoryLimit(cgroup) / 2, targets}
}

// Mount makes the volume if there is memory for one more. One that is there is left as it is.
func (b budget) Mount(target string) error {
	if b.limit > 0 {
		if used := b.used(); used >= b.limit {
			return &provider.Error{Kind: provider.Unavailable,
				Message: fmt.Sprintf("the volumes of this node use %d MiB, half of the driver's memory limit of %d MiB is %d",
					used>>20, b.limit>>19, b.limit>>20),
				Remedy: "raise the driver's memory limit (chart value linux.driver.resources.limits.memory), or mount less on this node"}
		}
	}
	return b.Tmpfs.Mount(target)
}

// used is how many bytes all volumes use; one that cannot be looked at counts nothing.
func (b budget) used() (bytes int64) {
	for _, target := range b.targets() {
		if status, err := b.Inspect(target); err == nil {
			bytes += status.Bytes
		}
	}
	return bytes
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
