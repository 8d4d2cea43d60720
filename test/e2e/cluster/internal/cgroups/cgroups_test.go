//go:build integration && linux

package cgroups

import (
	"slices"
	"strings"
	"testing"
)

const (
	legacy = `30 20 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,xattr,memory
33 30 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/lib/systemd/agent,name=systemd
34 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
35 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
36 20 0:31 / /srv/other/cgroup rw - cgroup cgroup rw,memory
37 20 8:1 / / rw,relatime shared:1 - ext4 /dev/vda rw
`
	unified = `30 20 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate
37 20 8:1 / / rw - ext4 /dev/vda rw
`
)

func TestHierarchiesOfAMachine(t *testing.T) {
	found, err := parse(strings.NewReader(legacy))
	want := Hierarchies{
		{mount: "/sys/fs/cgroup/cpu,cpuacct", options: "cpu,cpuacct"},
		{mount: "/sys/fs/cgroup/memory", options: "memory"},
		{mount: "/sys/fs/cgroup/systemd", options: "name=systemd"},
		{mount: "/sys/fs/cgroup/unified", v2: true},
	}
	if err != nil || !slices.Equal(found, want) || found.unified() {
		t.Errorf("version 1: %+v, %v; want %+v", found, err, want)
	}
	found, err = parse(strings.NewReader(unified))
	if err != nil || !slices.Equal(found, Hierarchies{{mount: "/sys/fs/cgroup", v2: true}}) || !found.unified() {
		t.Errorf("version 2: %+v, %v", found, err)
	}
	if found, err = parse(strings.NewReader("nonsense\n\n")); err != nil || len(found) > 0 {
		t.Errorf("nonsense: %+v, %v", found, err)
	}
}
