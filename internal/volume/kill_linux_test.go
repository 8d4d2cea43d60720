//go:build killtest

package volume_test

// The kill tests take half a minute, so that they have a build tag:
//
//	go test -tags killtest -run Kill ./internal/volume

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"keymount/internal/provider"
	"keymount/internal/volume"
	"keymount/internal/volume/volumetest"
)

// mutating are the system calls that change something on disk, opens being told apart by their flags.
const mutating = "mkdir,mkdirat,open,openat,openat2,creat,write,pwrite64,writev,pwritev,pwritev2,copy_file_range,splice,sendfile,ftruncate,truncate," +
	"fallocate,chmod,fchmod,fchmodat,fchmodat2,chown,lchown,fchown,fchownat,symlink,symlinkat,link,linkat,rename,renameat,renameat2,unlink,unlinkat," +
	"rmdir,mknod,mknodat,utimensat,setxattr,fsetxattr,mount,umount2,move_mount,fsmount,fsconfig,mount_setattr,open_tree"

// traced lets strace ignore names that it, or this machine, does not know.
func traced() string { return "?" + strings.ReplaceAll(mutating, ",", ",?") }

// A call is one system call of a writer's life.
type call struct {
	name  string
	nth   int // among those of its name on the writer's thread, from 1, as strace counts
	phase int
	text  string
}

// traceLine is "pid name(arguments...".
var traceLine = regexp.MustCompile(`^(\d+)\s+(\w+)\((.*)`)

// runLife runs one life under strace and returns its trace. inject is strace's option that kills it, "" for none.
func runLife(t *testing.T, storeName, target, inject string) (trace []call, killed bool) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "trace")
	args := []string{"-f", "-qq", "-s", "16", "-o", out, "-e", "signal=none", "-e", "trace=" + traced()}
	if inject != "" {
		args = append(args, "-e", "inject="+inject)
	}
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Fatal("strace is not installed: the package of that name has it (apt-get install strace)")
	}
	cmd := exec.Command(strace, append(args, "/proc/self/exe", "life", storeName, target)...)
	cmd.Args[len(cmd.Args)-4] = testBinary(t)
	cmd.Env = childEnv()
	output, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if err != nil && inject == "" {
		t.Fatalf("the writer failed: %v\n%s", err, output)
	}
	data, rerr := os.ReadFile(out)
	must(t, rerr)
	// strace ends as its tracee did.
	status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
	return parseTrace(t, data), status.Signaled() && status.Signal() == syscall.SIGKILL
}

// childEnv makes the test binary the writer. One processor, so that Go starts few threads.
func childEnv() []string {
	return append(os.Environ(), killChildEnv+"=1", "GOMAXPROCS=1", "GODEBUG=asyncpreemptoff=1")
}

func testBinary(t *testing.T) string {
	t.Helper()
	name, err := os.Executable()
	must(t, err)
	return name
}

// parseTrace returns the mutating calls of the thread that made the marks. strace counts per thread, and so does nth; the writer
// is locked to its thread.
func parseTrace(t *testing.T, data []byte) []call {
	t.Helper()
	lines := bufio.NewScanner(bytes.NewReader(data))
	writer := ""
	for lines.Scan() {
		if m := traceLine.FindStringSubmatch(lines.Text()); m != nil && strings.Contains(m[3], killMark) {
			writer = m[1]
			break
		}
	}
	var calls []call
	counts := map[string]int{}
	phase := 0
	marked := false
	lines = bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		m := traceLine.FindStringSubmatch(lines.Text())
		if m == nil || m[1] != writer {
			continue
		}
		name, text := m[2], m[3]
		counts[name]++
		if strings.Contains(text, killMark) {
			if !marked { // os.Remove makes two calls
				phase++
			}
			marked = true
			continue
		}
		marked = false
		reads := strings.HasPrefix(name, "open") && !strings.Contains(text, "O_CREAT")
		if phase == 0 || reads {
			continue
		}
		calls = append(calls, call{name, counts[name], phase, text})
	}
	must(t, lines.Err())
	return calls
}

// assertAfterKill checks what a kill in the phase may leave, then that the next writes succeed and leave nothing behind.
func assertAfterKill(t *testing.T, s store, target string, phase int) {
	t.Helper()
	status, err := s.Inspect(target)
	must(t, err)
	old, young := "no generation", "no generation"
	if status.Generation != "" {
		old, young = wrong(target, oldContent()), wrong(target, newContent())
	}
	none := status.Generation == ""
	ok := map[int]bool{
		phaseMount: none, phaseFirst: none || old == "", phaseSecond: old == "" || young == "", phaseUnmount: none || young == "", phaseOver: none,
	}[phase]
	if !ok {
		t.Errorf("killed in phase %d: the volume is neither the old content (%s) nor the new (%s), status %+v", phase, old, young, status)
	}
	if _, err := os.Lstat(target + "/..data_tmp"); err == nil {
		t.Error("..data_tmp is left, which upstream's writer never gets past")
	}
	must(t, s.Mount(target))
	for _, files := range [][]provider.File{newContent(), oldContent()} {
		mustWrite(t, target, files)
		assertHolds(t, target, files)
	}
	must(t, s.Unmount(target))
	assertGone(t, target)
}

// killEverywhere kills a life at each of its mutating system calls.
func killEverywhere(t *testing.T, storeName string) {
	dir := t.TempDir()
	s := killStores()[storeName]
	calls, _ := runLife(t, storeName, filepath.Join(dir, "uninjured"), "")
	kinds := map[string]int{}
	for _, c := range calls {
		kinds[c.name]++
	}
	// What a life without which the enumeration would be wrong must have.
	want := []string{"mkdirat", "openat", "write", "fchmod", "fchown", "fchownat", "symlinkat", "renameat", "unlinkat"}
	if storeName == "tmpfs" {
		want = append(want, "mount", "umount2")
	}
	for _, name := range want {
		if kinds[name] == 0 {
			t.Errorf("the trace has no %s: %v", name, kinds)
		}
	}
	t.Logf("%d mutating system calls: %v", len(calls), kinds)
	for i, c := range calls {
		if strings.HasPrefix(c.name, "syscall_") {
			t.Fatalf("%s is newer than this strace, which cannot kill at it: use another call, or a newer strace", c.name)
		}
		target := filepath.Join(dir, fmt.Sprint(i))
		trace, killed := runLife(t, storeName, target, fmt.Sprintf("%s:signal=KILL:when=%d", c.name, c.nth))
		if !killed || len(trace) != i+1 || trace[i].name != c.name || trace[i].phase != c.phase {
			t.Fatalf("the kill at %s %d (%s) came elsewhere: killed %v, after %d calls, want %d", c.name, c.nth, c.text, killed, len(trace), i+1)
		}
		assertAfterKill(t, s, target, c.phase)
		if t.Failed() {
			t.Fatalf("after a kill at %s(%s", c.name, c.text)
		}
	}
}

func TestKillAtEverySystemCallInFolder(t *testing.T) {
	t.Parallel()
	killEverywhere(t, "folder")
}

func TestRootKillAtEverySystemCallOnTmpfs(t *testing.T) {
	volumetest.NeedRoot(t)
	t.Parallel()
	killEverywhere(t, "tmpfs")
}

// killAtRandom kills writers at random moments, all on the same volume, which must be whole after each.
func killAtRandom(t *testing.T, root string) {
	t.Helper()
	const kills = 500
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	mustWrite(t, root, oldContent())
	seen := map[string]int{}
	for i := range kills {
		cmd := exec.Command(testBinary(t), "turns", root)
		cmd.Env = childEnv()
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		stdout, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		_, err = bufio.NewReader(stdout).ReadString('\n') // it writes from here on
		must(t, err)
		// Not a wait for something: the moment is to be any, within about two changes.
		<-time.After(time.Duration(random.IntN(3000)) * time.Microsecond)
		must(t, cmd.Process.Kill())
		if err := cmd.Wait(); cmd.ProcessState.Exited() {
			t.Fatalf("the writer ended by itself: %v\n%s", err, stderr.Bytes())
		}
		old, young := wrong(root, oldContent()), wrong(root, newContent())
		switch {
		case old == "":
			seen["old"]++
			seen["left"] += min(1, len(leftovers(root, oldContent())))
		case young == "":
			seen["new"]++
			seen["left"] += min(1, len(leftovers(root, newContent())))
		default:
			t.Fatalf("kill %d: neither the old content (%s) nor the new (%s)", i, old, young)
		}
		files := [][]provider.File{oldContent(), newContent()}[i%2]
		mustWrite(t, root, files)
		assertHolds(t, root, files)
		if t.Failed() {
			t.Fatalf("after kill %d", i)
		}
	}
	t.Logf("%v of %d kills", seen, kills)
	if slices.Contains([]int{seen["old"], seen["new"], seen["left"]}, 0) {
		t.Errorf("kills came at no varied moments: %v", seen)
	}
}

func TestKillAtRandomMomentsInFolder(t *testing.T) {
	t.Parallel()
	killAtRandom(t, folderVolume(t))
}

func TestRootKillAtRandomMomentsOnTmpfs(t *testing.T) {
	root := target(t)
	t.Parallel()
	must(t, volume.Tmpfs{Size: 4 << 20}.Mount(root))
	killAtRandom(t, root)
	must(t, volume.Tmpfs{}.Unmount(root))
	assertGone(t, root)
}
