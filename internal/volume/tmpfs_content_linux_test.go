package volume_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"keymount/internal/provider"
	"keymount/internal/volume"
)

func TestRootFullVolumeKeepsTheOldContent(t *testing.T) {
	big := func(n int) []provider.File { return append(base(), file("big", strings.Repeat("x", n))) }
	many := base()
	for i := range 60 {
		many = append(many, file("new"+itoa(i), "x"))
	}
	for name, files := range map[string][]provider.File{"bytes": big(1 << 20), "inodes": many} {
		t.Run(name, func(t *testing.T) {
			root := target(t)
			must(t, volume.Tmpfs{Size: 256 << 10, Inodes: 60}.Mount(root))
			old := big(1000)
			mustWrite(t, root, old)
			_, err := volume.Write(root, files, volume.Options{})
			assertKind(t, err, provider.Internal, "no room", "raise its size")
			assertHolds(t, root, old)
			mustWrite(t, root, base())
			assertHolds(t, root, base())
			must(t, volume.Tmpfs{}.Unmount(root))
		})
	}
}

func TestRootGroup(t *testing.T) {
	t.Attr("conformance", "12.5/group")
	root := target(t)
	must(t, volume.Tmpfs{}.Mount(root))
	groups := func() (out []uint32) {
		must(t, filepath.Walk(root+"/..data/", func(path string, info os.FileInfo, err error) error {
			if err == nil {
				out = append(out, info.Sys().(*syscall.Stat_t).Gid)
			}
			return err
		}))
		slices.Sort(out)
		return slices.Compact(out)
	}
	for i, gid := range []int{4711, 4711, 0, 12} {
		change, err := volume.Write(root, base(), volume.Options{Group: &gid})
		must(t, err)
		if i == 1 != change.Empty() || i > 1 && len(change.Updated) != len(base()) {
			t.Errorf("group %d: change is %+v", gid, change)
		}
		if got := groups(); len(got) != 1 || int(got[0]) != gid {
			t.Errorf("groups are %v, want %d", got, gid)
		}
		assertHolds(t, root, base()) // modes are not widened
	}
	if change := mustWrite(t, root, base()); !change.Empty() {
		t.Errorf("no group asked for: %+v", change)
	}
	must(t, volume.Tmpfs{}.Unmount(root))
}

func TestRootPlantedDevice(t *testing.T) {
	root := target(t)
	must(t, volume.Tmpfs{}.Mount(root))
	mustWrite(t, root, base())
	name := generation(t, root) + "/a"
	must(t, os.Remove(name))
	must(t, unix.Mknod(name, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5)))) // zeros without end
	if g, err := volume.Read(root); err == nil {
		t.Errorf("a device was read: %v", g)
	}
	mustWrite(t, root, base())
	assertHolds(t, root, base())
	must(t, volume.Tmpfs{}.Unmount(root))
}

// upstreamVolume is what upstream's driver leaves: a tmpfs without options, its folder names, its links, sometimes its ..data_tmp.
func upstreamVolume(t *testing.T, root string, stale bool) (name string) {
	t.Helper()
	mountTmpfs(t, root)
	name = "..2024_01_31_10_00_00.123456789"
	for _, f := range base() {
		path := filepath.Join(root, name, f.Path)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, f.Contents, f.Mode))
		must(t, os.Chmod(path, f.Mode))
		first, _, _ := strings.Cut(f.Path, "/")
		os.Symlink("..data/"+first, root+"/"+first)
	}
	must(t, os.Symlink(name, root+"/..data"))
	if stale {
		must(t, os.MkdirAll(root+"/..2024_01_31_12_00_00.987654321/n", 0o755))
		must(t, os.Symlink("..2024_01_31_12_00_00.987654321", root+"/..data_tmp"))
	}
	return name
}

func TestRootAdoption(t *testing.T) {
	t.Attr("conformance", "12.5/adopted")
	for _, stale := range []bool{false, true} {
		t.Run(fmt.Sprintf("stale ..data_tmp %v", stale), func(t *testing.T) {
			root := target(t)
			name := upstreamVolume(t, root, stale)
			status := assertState(t, volume.Tmpfs{}, root, volume.Mounted)
			g, err := volume.Read(root)
			must(t, err)
			if status.Generation != name || g.Name != name {
				t.Errorf("generation is %q and %q, want %q", status.Generation, g.Name, name)
			}
			must(t, volume.Tmpfs{Size: 1 << 20}.Mount(root)) // no remount
			before := stamps(t, root)
			if change := mustWrite(t, root, base()); !change.Empty() {
				t.Errorf("the same content is a change: %+v", change)
			}
			if touched := !slices.Equal(before, stamps(t, root)); touched != stale {
				t.Errorf("touched: %v", touched)
			}
			assertHolds(t, root, base())
			next := append(base()[1:], file("new", "5"))
			mustWrite(t, root, next)
			assertHolds(t, root, next)
			if after := assertState(t, volume.Tmpfs{}, root, volume.Mounted); after.Device != status.Device {
				t.Error("it is another mount")
			}
			must(t, volume.Tmpfs{}.Unmount(root))
			assertGone(t, root)
		})
	}
}
