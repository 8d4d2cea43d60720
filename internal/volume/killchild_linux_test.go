package volume_test

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"keymount/internal/provider"
	"keymount/internal/volume"
)

// A store is a way to mount, as internal/publish uses it.
type store interface {
	Mount(string) error
	Unmount(string) error
	inspector
}

// killStores are the stores on which writers are killed, by the name that the child is given.
func killStores() map[string]store {
	return map[string]store{"folder": volume.Folder{}, "tmpfs": volume.Tmpfs{Size: 4 << 20}}
}

// oldContent and newContent differ in every way that two generations can: added, removed, changed and unchanged files, a mode alone,
// a file that becomes a folder and the reverse, nested ones, and one that takes several writes.
func oldContent() []provider.File {
	return []provider.File{
		file("same", "s"), file("changed", "1"), file("mode", "m", 0o600), file("removed", "r"), file("gone/deep/x", "x"),
		file("n/changed", "1"), file("n/removed", "r"), file("swap", "file"), file("pws/y", "y"),
	}
}

func newContent() []provider.File {
	return []provider.File{
		file("same", "s"), file("changed", "22"), file("mode", "m", 0o640), file("added", strings.Repeat("a", 100_000)), file("fresh/deep/x", "x"),
		file("n/changed", "22"), file("n/added", "a"), file("swap/z", "z"), file("pws", "file"),
	}
}

// The test binary as the writer. "life STORE TARGET" is one life of a volume with a mark before each phase: mount, first generation,
// second generation, unmount. "turns TARGET" changes the content to and fro until it is killed.
func killChild(args []string) error {
	runtime.LockOSThread() // strace counts calls by thread
	switch {
	case len(args) == 3 && args[0] == "life":
		return life(killStores()[args[1]], args[2])
	case len(args) == 2 && args[0] == "turns":
		fmt.Println("ready")
		for i := 0; ; i++ {
			files := [][]provider.File{oldContent(), newContent()}[i%2]
			if _, err := volume.Write(args[1], files, volume.Options{}); err != nil {
				return err
			}
		}
	}
	return fmt.Errorf("unknown arguments %q", args)
}

// Phases of a life, by how many marks the trace has.
const (
	phaseMount = iota + 1
	phaseFirst
	phaseSecond
	phaseUnmount
	phaseOver
)

func life(s store, target string) error {
	group := os.Getgid()
	write := func(files []provider.File) func() error {
		return func() error {
			_, err := volume.Write(target, files, volume.Options{Group: &group})
			return err
		}
	}
	for _, step := range []func() error{
		func() error { return s.Mount(target) }, write(oldContent()), write(newContent()), func() error { return s.Unmount(target) },
	} {
		os.Remove(killMark) // never there: a system call that the trace shows
		if err := step(); err != nil {
			return err
		}
	}
	os.Remove(killMark)
	return nil
}

const killMark = "/keymount-test-mark"
