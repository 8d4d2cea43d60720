package volume_test

import (
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"keymount/internal/volume"
)

// A watcher is an application that waits for new content by inotify, as it does with Secret volumes.
type watcher struct {
	t  *testing.T
	fd int
}

func watch(t *testing.T, root string) *watcher {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	_, err = unix.InotifyAddWatch(fd, root, unix.IN_MOVED_TO|unix.IN_CREATE|unix.IN_DELETE|unix.IN_ATTRIB)
	must(t, err)
	return &watcher{t, fd}
}

// moved returns the names that something was moved to since the last call, and whether anything else happened.
func (w *watcher) moved() (names []string, other bool) {
	w.t.Helper()
	buf := make([]byte, 64<<10)
	n, err := unix.Read(w.fd, buf)
	if errors.Is(err, unix.EAGAIN) {
		return nil, false
	}
	must(w.t, err)
	for buf = buf[:n]; len(buf) > 0; {
		mask, size := binary.NativeEndian.Uint32(buf[4:]), binary.NativeEndian.Uint32(buf[12:])
		name := strings.TrimRight(string(buf[unix.SizeofInotifyEvent:unix.SizeofInotifyEvent+size]), "\x00")
		if mask&unix.IN_MOVED_TO != 0 {
			names = append(names, name)
		} else {
			other = true
		}
		buf = buf[unix.SizeofInotifyEvent+size:]
	}
	return names, other
}

// Applications that watch a volume see one rename of ..data per change, and nothing at all without one.
func TestWatchersSeeTheSwap(t *testing.T) {
	t.Attr("conformance", "12.5/watchers")
	root := folderVolume(t)
	mustWrite(t, root, base())
	w := watch(t, root)
	mustWrite(t, root, base())
	if names, other := w.moved(); len(names) > 0 || other {
		t.Errorf("the same content: %v, %v", names, other)
	}
	for _, files := range [][]string{{"a", "new"}, {"a"}} {
		var next = base()[:0:0]
		for _, name := range files {
			next = append(next, file(name, "of "+strings.Join(files, " ")))
		}
		mustWrite(t, root, next)
		if names, _ := w.moved(); !slices.Equal(names, []string{"..data"}) {
			t.Errorf("moved to %v", names)
		}
		if _, err := volume.Read(root); err != nil {
			t.Error(err)
		}
	}
}
