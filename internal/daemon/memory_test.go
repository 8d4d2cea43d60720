package daemon

import (
	"runtime/debug"
	"testing"
	"testing/fstest"
)

func TestMemoryLimit(t *testing.T) {
	for _, tc := range []struct {
		name, file, text string
		want             int64
	}{
		{"version 2", "memory.max", "209715200\n", 200 << 20},
		{"version 2 without", "memory.max", "max\n", 0},
		{"version 1", "memory/memory.limit_in_bytes", "209715200\n", 200 << 20},
		{"version 1 without", "memory/memory.limit_in_bytes", "9223372036854771712\n", 0},
		{"neither", "other", "1", 0},
		{"garbage", "memory.max", "-5", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := memoryLimit(fstest.MapFS{tc.file: {Data: []byte(tc.text)}}); got != tc.want {
				t.Errorf("got %d, want %d", got, tc.want)
			}
		})
	}
}

// What is alive may take half of the container's memory, and so may what is no longer, together.
func TestKeepToShare(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
	cgroup := fstest.MapFS{"memory.max": {Data: []byte("4294967296\n")}}
	t.Setenv("GOMEMLIMIT", "1GiB")
	keepToShare(cgroup)
	if got := debug.SetMemoryLimit(-1); got != before {
		t.Errorf("the limit is %d, although GOMEMLIMIT is set", got)
	}
	t.Setenv("GOMEMLIMIT", "")
	keepToShare(fstest.MapFS{})
	if got := debug.SetMemoryLimit(-1); got != before {
		t.Errorf("the limit is %d, although the container has none", got)
	}
	keepToShare(cgroup)
	if got := debug.SetMemoryLimit(-1); got != 2<<30 {
		t.Errorf("the limit is %d, want half of 4 GiB", got)
	}
}
