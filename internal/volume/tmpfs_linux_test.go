package volume_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"keymount/internal/provider"
	"keymount/internal/volume"
	"keymount/internal/volume/volumetest"
)

func itoa(n int) string { return strconv.Itoa(n) }

// mountsAt returns the lines of the mount table at and below a folder.
func mountsAt(t testing.TB, dir string) []string {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	dir = strings.NewReplacer(" ", `\040`, "\n", `\012`, `\`, `\134`).Replace(dir)
	var lines []string
	for line := range strings.Lines(string(data)) {
		if point := strings.Fields(line)[4]; point == dir || strings.HasPrefix(point, dir+"/") {
			lines = append(lines, line)
		}
	}
	return lines
}

func mountTmpfs(t testing.TB, target string) {
	t.Helper()
	must(t, os.MkdirAll(target, 0o750))
	must(t, unix.Mount("tmpfs", target, "tmpfs", 0, ""))
}

func bind(t testing.TB, source, target string) {
	t.Helper()
	must(t, os.MkdirAll(target, 0o750))
	must(t, unix.Mount(source, target, "", unix.MS_BIND, ""))
}

// assertGone fails unless neither a mount nor a folder is left at target.
func assertGone(t testing.TB, target string) {
	t.Helper()
	if left := mountsAt(t, target); len(left) > 0 {
		t.Errorf("mounts are left: %q", left)
	}
	if _, err := os.Lstat(target); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is left: %v", err)
	}
}

func target(t testing.TB) string {
	volumetest.NeedRoot(t)
	return filepath.Join(t.TempDir(), "pods", "uid", "mount")
}

func TestRootTmpfsLife(t *testing.T) {
	for name, suffix := range map[string]string{"plain": "", "odd path": " blank\nline\\040 [a]*"} {
		t.Run(name, func(t *testing.T) {
			v := volume.Tmpfs{Size: 1 << 20, Inodes: 500}
			root := target(t) + suffix
			assertState(t, v, root, volume.Absent)
			for range 2 {
				must(t, v.Mount(root))
				if lines := mountsAt(t, root); len(lines) != 1 {
					t.Fatalf("mounts: %q", lines)
				}
			}
			first := assertState(t, v, root, volume.Mounted)
			if first.Generation != "" || first.Device == 0 || first.Bytes != 0 {
				t.Errorf("status of an empty volume: %+v", first)
			}
			mustWrite(t, root, base())
			assertHolds(t, root, base())
			second := assertState(t, v, root, volume.Mounted)
			if g, _ := volume.Read(root); second.Generation != g.Name || second.Device != first.Device ||
				second.Bytes < 4096 || second.Bytes > 1<<20 {
				t.Errorf("status %+v after %+v", second, first)
			}
			for range 2 {
				must(t, v.Unmount(root))
				assertGone(t, root)
			}
			assertState(t, v, root, volume.Absent)
		})
	}
}

func TestRootTmpfsOptions(t *testing.T) {
	t.Attr("conformance", "12.5/tmpfs")
	t.Attr("conformance", "10.3/tmpfs-flags")
	root := target(t)
	must(t, volume.Tmpfs{Size: 1 << 20, Inodes: 500}.Mount(root))
	line := mountsAt(t, root)[0]
	want := []string{"nosuid", "nodev", "size=1024k", "nr_inodes=500", "mode=755", "rw"}
	// Whether this kernel has noswap is asked by a mount, which is not how the product asks.
	probe := t.TempDir()
	if unix.Mount("tmpfs", probe, "tmpfs", 0, "noswap") == nil {
		must(t, unix.Unmount(probe, 0))
		want = append(want, "noswap")
	}
	have := strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == ',' || r == '\n' })
	for _, option := range want {
		if !slices.Contains(have, option) {
			t.Errorf("option %s is missing: %s", option, line)
		}
	}
	if slices.Contains(have, "noexec") {
		t.Errorf("noexec without being asked for: %s", line)
	}
	info, err := os.Stat(root)
	must(t, err)
	if info.Mode().Perm() != 0o755 || info.Mode()&os.ModeSticky != 0 {
		t.Errorf("mode of the root is %v", info.Mode())
	}
	must(t, volume.Tmpfs{}.Unmount(root))

	must(t, volume.Tmpfs{}.Mount(root))
	if line := mountsAt(t, root)[0]; !strings.Contains(line, "size=65536k,nr_inodes=32768") {
		t.Errorf("default bounds: %s", line)
	}
	must(t, volume.Tmpfs{}.Unmount(root))
}

func TestRootNoExec(t *testing.T) {
	script := []provider.File{file("run", "#!/bin/sh\n", 0o755)}
	for _, noexec := range []bool{false, true} {
		root := target(t)
		v := volume.Tmpfs{NoExec: noexec}
		must(t, v.Mount(root))
		mustWrite(t, root, script)
		err := exec.Command(root + "/run").Run()
		if refused := errors.Is(err, unix.EACCES); refused != noexec {
			t.Errorf("noexec %v: running a script gives %v", noexec, err)
		}
		must(t, v.Unmount(root))
	}
}

// Two publishes of one target without a lock, or a driver that died between them, stack mounts.
func TestRootUnmountStacked(t *testing.T) {
	root := target(t)
	for range 5 {
		mountTmpfs(t, root)
		mustWrite(t, root, base())
	}
	if got := len(mountsAt(t, root)); got != 5 {
		t.Fatalf("%d mounts", got)
	}
	must(t, volume.Tmpfs{}.Unmount(root))
	assertGone(t, root)
}

func TestRootUnmountBusy(t *testing.T) {
	root := target(t)
	must(t, volume.Tmpfs{}.Mount(root))
	mustWrite(t, root, base())
	user, err := os.Open(root + "/a")
	must(t, err)
	defer user.Close()
	if err := unix.Unmount(root, 0); !errors.Is(err, unix.EBUSY) {
		t.Fatalf("the mount is not in use: %v", err)
	}
	must(t, volume.Tmpfs{}.Unmount(root))
	assertGone(t, root)
}

// A copy of the mount, as a container with a hostPath volume has it, must not keep the contents.
func TestRootUnmountEmptiesCopies(t *testing.T) {
	root := target(t)
	must(t, volume.Tmpfs{}.Mount(root))
	mustWrite(t, root, base())
	copied := filepath.Join(t.TempDir(), "copy")
	bind(t, root, copied)
	defer unix.Unmount(copied, unix.MNT_DETACH)
	assertHolds(t, copied, base())
	must(t, volume.Tmpfs{}.Unmount(root))
	assertGone(t, root)
	if entries, err := os.ReadDir(copied); len(entries) != 0 || err != nil {
		t.Errorf("the copy holds %v, %v", entries, err)
	}
}

func TestRootUnmountOfWhatIsNotMounted(t *testing.T) {
	for name, make := range map[string]func(t *testing.T, root string){
		"never existed":  func(t *testing.T, root string) {},
		"empty folder":   func(t *testing.T, root string) { must(t, os.MkdirAll(root, 0o750)) },
		"volume on disk": func(t *testing.T, root string) { must(t, os.MkdirAll(root, 0o750)); mustWrite(t, root, base()) },
		"anything on disk": func(t *testing.T, root string) {
			must(t, os.MkdirAll(root+"/x/y", 0o750))
			must(t, os.WriteFile(root+"/x/y/z", nil, 0o600))
			must(t, syscall.Mkfifo(root+"/pipe", 0o600))
			must(t, os.Symlink("/etc", root+"/etc"))
		},
		"mounts below": func(t *testing.T, root string) {
			mountTmpfs(t, root+"/x/y")
			mountTmpfs(t, root+"/x/y/z")
			mountTmpfs(t, root+"/x/y")
		},
		"mounts below a mount": func(t *testing.T, root string) { mountTmpfs(t, root); mountTmpfs(t, root+"/x") },
	} {
		t.Run(name, func(t *testing.T) {
			root := target(t)
			make(t, root)
			for range 2 {
				must(t, volume.Tmpfs{}.Unmount(root))
				assertGone(t, root)
			}
		})
	}
}

// What is bound to the target or below it belongs to somebody else: the mount goes, its content stays.
func TestRootForeignMountsKeepTheirContent(t *testing.T) {
	volumetest.NeedRoot(t)
	tmp := filepath.Join(t.TempDir(), "run")
	mountTmpfs(t, tmp)
	defer unix.Unmount(tmp, unix.MNT_DETACH)
	must(t, os.WriteFile(tmp+"/daemon.pid", []byte("1"), 0o600))
	must(t, os.Symlink("daemon.pid", tmp+"/link"))
	must(t, os.MkdirAll(tmp+"/folder", 0o755))
	for name, below := range map[string]string{
		"at the target": "", "below": "/x", "in a leftover generation": "/..2024_01_01_00_00_00.1/n", "in the generation's way": "/a",
		"in ..data": "/..data/x", "at ..data_tmp": "/..data_tmp",
	} {
		t.Run(name, func(t *testing.T) {
			out, assertUntouched := outside(t)
			for _, source := range []string{out, tmp} {
				before := stamps(t, tmp)
				root := target(t)
				must(t, os.MkdirAll(root, 0o750))
				bind(t, source, root+below)
				if below != "" {
					change, err := volume.Write(root, base(), volume.Options{})
					if below != "/x" && err == nil && change.Leftover == nil {
						t.Error("a mount in the way was not reported")
					}
				}
				must(t, volume.Tmpfs{}.Unmount(root))
				assertGone(t, root)
				assertUntouched()
				if !slices.Equal(before, stamps(t, tmp)) {
					t.Error("the other tmpfs was touched")
				}
			}
		})
	}
}

func TestRootForeignMountIsRefused(t *testing.T) {
	root := target(t)
	must(t, os.MkdirAll(root, 0o750))
	must(t, unix.Mount("ramfs", root, "ramfs", 0, ""))
	assertState(t, volume.Tmpfs{}, root, volume.Foreign)
	if err := (volume.Tmpfs{}).Mount(root); err == nil || !strings.Contains(err.Error(), "something else is mounted") {
		t.Errorf("mounting there: %v", err)
	}
	if got := len(mountsAt(t, root)); got != 1 {
		t.Errorf("%d mounts", got)
	}
	must(t, volume.Tmpfs{}.Unmount(root))
	assertGone(t, root)
}

// A FUSE server that died leaves a mount on which every call fails.
func TestRootDeadMount(t *testing.T) {
	root := target(t)
	must(t, os.MkdirAll(root, 0o750))
	fuse, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		// Without FUSE in the kernel nothing can die here, but then the mount table must say so too.
		if data, _ := os.ReadFile("/proc/filesystems"); strings.Contains(string(data), "\tfuse\n") {
			t.Fatal(err)
		}
		return
	}
	must(t, unix.Mount("dead", root, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fuse.Fd())))
	fuse.Close()
	if _, err := os.ReadDir(root); err == nil {
		t.Fatal("the mount is alive")
	}
	assertState(t, volume.Tmpfs{}, root, volume.Foreign)
	must(t, volume.Tmpfs{}.Unmount(root))
	assertGone(t, root)
}

func TestRootTargetThatIsALink(t *testing.T) {
	real := target(t)
	must(t, volume.Tmpfs{}.Mount(real))
	mustWrite(t, real, base())
	link := filepath.Join(t.TempDir(), "link")
	dangling := filepath.Join(t.TempDir(), "dangling")
	must(t, os.Symlink(real, link))
	must(t, os.Symlink("nowhere", dangling))
	plain := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(plain, nil, 0o600))
	for _, name := range []string{link, link + "/", dangling, plain} {
		_, err := volume.Tmpfs{}.Inspect(name)
		for what, err := range map[string]error{"mount": volume.Tmpfs{}.Mount(name), "unmount": volume.Tmpfs{}.Unmount(name), "inspect": err} {
			if err == nil || !strings.Contains(err.Error(), "left alone") {
				t.Errorf("%s of %s: %v", what, name, err)
			}
		}
		if _, err := os.Lstat(strings.TrimSuffix(name, "/")); err != nil {
			t.Error(err)
		}
	}
	assertHolds(t, real, base())
	must(t, volume.Tmpfs{}.Unmount(real))
}

// A failed mount leaves no folder behind that was not there before.
func TestRootFailedMountLeavesNothing(t *testing.T) {
	root := target(t)
	if err := (volume.Tmpfs{Size: 1, Inodes: 1<<63 - 1}).Mount(root); err == nil {
		t.Fatal("no error")
	}
	assertGone(t, root)
	must(t, os.MkdirAll(root, 0o750))
	if err := (volume.Tmpfs{Size: 1, Inodes: 1<<63 - 1}).Mount(root); err == nil {
		t.Fatal("no error")
	}
	assertState(t, volume.Tmpfs{}, root, volume.NotMounted)
}

// Old kernels say what is mounted only through the mount table.
func TestRootMountTableAgreesWithStatx(t *testing.T) {
	root := target(t)
	assert := func(name string, want bool) {
		t.Helper()
		f, err := os.Open(name)
		must(t, err)
		defer f.Close()
		if got, err := volume.IsMountRootByTable(f); got != want || err != nil {
			t.Errorf("%q is a mount: %v, %v, want %v", name, got, err, want)
		}
	}
	odd := root + " odd\\040\n"
	for _, dir := range []string{root, odd} {
		must(t, os.MkdirAll(dir, 0o750))
		assert(dir, false)
		mountTmpfs(t, dir)
		assert(dir, true)
		must(t, volume.Tmpfs{}.Unmount(dir))
	}
}

// A volume that is written again and again holds a generation at every moment that somebody looks.
func TestRootInspectDuringWrites(t *testing.T) {
	v, root := volume.Tmpfs{}, target(t)
	must(t, v.Mount(root))
	defer v.Unmount(root)
	mustWrite(t, root, numbered(0))
	stop, stopped := make(chan struct{}), make(chan error)
	go func() {
		for {
			status, err := v.Inspect(root)
			if err == nil && status.Generation == "" {
				err = errors.New("no generation")
			}
			select {
			case <-stop:
				stopped <- err
				return
			default:
			}
			if err != nil {
				<-stop
				stopped <- err
				return
			}
		}
	}()
	for n := 1; n <= 300; n++ {
		mustWrite(t, root, numbered(n))
	}
	close(stop)
	must(t, <-stopped)
}
