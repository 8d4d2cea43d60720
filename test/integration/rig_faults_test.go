//go:build integration && linux

package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keymount/api/provider/v1alpha1"
	"keymount/internal/volume/volumetest"
	"keymount/test/integration/apiserver"
	"keymount/test/integration/driver"
	"keymount/test/integration/kubelet"
)

// filesOfANumber is how many files an answer of a numbered provider has: enough for a kill to fall between two of them.
const filesOfANumber = 24

// numbered is an answer whose files all hold the same number, so that a reader sees whether they belong together.
func numbered(n int64) *v1alpha1.MountResponse {
	resp := &v1alpha1.MountResponse{}
	text := fmt.Sprint(n)
	for i := range filesOfANumber {
		path := fmt.Sprintf("f%02d", i)
		if i%4 == 0 {
			path = "sub/" + path
		}
		resp.Files = append(resp.Files, &v1alpha1.File{Path: path, Mode: 0o644, Contents: []byte(text + strings.Repeat("\n", 4096))})
		resp.ObjectVersion = append(resp.ObjectVersion, &v1alpha1.ObjectVersion{Id: path, Version: text})
	}
	return resp
}

// counting makes a provider answer with the next number each time, after a pause.
func (p *scripted) counting(pause time.Duration) *atomic.Int64 {
	last := &atomic.Int64{}
	p.do(func(ctx context.Context, _ *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
		timer := time.NewTimer(pause)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		return numbered(last.Add(1)), nil
	})
	return last
}

var errNoGeneration = errors.New("there is no generation")

// readNumber reads a volume of a numbered provider as an application does that resolves ..data once, and returns the number.
// A generation that was replaced while it was read is read anew; whatever is not whole is an error.
func readNumber(target string) (string, error) {
	for {
		name, err := os.Readlink(filepath.Join(target, "..data"))
		if errors.Is(err, fs.ErrNotExist) {
			return "", errNoGeneration
		}
		if err != nil {
			return "", err
		}
		number, err := readGeneration(filepath.Join(target, name))
		now, linkErr := os.Readlink(filepath.Join(target, "..data"))
		if linkErr != nil || now == name {
			return number, err
		}
	}
}

func readGeneration(dir string) (number string, err error) {
	files := 0
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		got := strings.TrimSpace(string(text))
		if len(text) != len(got)+4096 || files > 0 && got != number {
			return fmt.Errorf("%s is of %q and has %d bytes, others are of %q", path, got, len(text), number)
		}
		number = got
		files++
		return nil
	})
	if err == nil && files != filesOfANumber {
		err = fmt.Errorf("%s has %d files", dir, files)
	}
	return number, err
}

// watch reads volumes again and again until stop, which says whether they were whole each time. Those that are added must
// hold a generation, and go on doing so until they are taken out.
type watch struct {
	mu      sync.Mutex
	targets map[string]bool
	reads   int
	err     error
	end     context.CancelFunc
	done    chan struct{}
}

func watchVolumes(t *testing.T, targets ...string) *watch {
	ctx, end := context.WithCancel(context.Background())
	w := &watch{targets: map[string]bool{}, end: end, done: make(chan struct{})}
	for _, target := range targets {
		w.targets[target] = true
	}
	go func() {
		defer close(w.done)
		tick := time.NewTicker(2 * time.Millisecond) // others need the processors, too
		defer tick.Stop()
		for ctx.Err() == nil {
			w.look()
			<-tick.C
		}
	}()
	t.Cleanup(func() { end(); <-w.done })
	return w
}

func (w *watch) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for target := range w.targets {
		w.reads++
		if _, err := readNumber(target); err != nil && w.err == nil {
			w.err = fmt.Errorf("a reader of %s found: %w", target, err)
		}
	}
}

func (w *watch) add(target string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.targets[target] = true
}

func (w *watch) remove(target string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.targets, target)
}

// stop ends the reading and returns what was found.
func (w *watch) stop() error {
	w.end()
	<-w.done
	if w.reads == 0 {
		return errors.New("nothing was read")
	}
	return w.err
}

// stateFolder is a folder for a driver's state, a tiny file system of its own.
func stateFolder(t *testing.T) string {
	t.Helper()
	volumetest.NeedRoot(t)
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k,mode=0700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// remount changes the flags of a mount.
func remount(t *testing.T, dir string, flags uintptr) {
	t.Helper()
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|flags, ""); err != nil {
		t.Fatal(err)
	}
}

// fill writes a file until its file system is full.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

// podOf makes a pod with a volume of the class, and returns both.
func (r *rig) podOf(class string) (*corev1.Pod, *kubelet.Volume) {
	r.Helper()
	pod := api.Pod(r.T, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: r.ns, GenerateName: "pod-"},
		Spec: corev1.PodSpec{ServiceAccountName: "default", NodeName: driver.Node,
			Volumes: []corev1.Volume{kubelet.Inline("secrets", driver.Name, map[string]string{"secretProviderClass": class})}},
	})
	v, err := r.kubelet.Volume(pod, "secrets")
	if err != nil {
		r.Fatal(err)
	}
	return pod, v
}

// mountsAt counts the mounts that lie on a target.
func (r *rig) mountsAt(target string) int {
	n := 0
	for _, point := range driver.Mounts(r.driver.Root) {
		if point == target {
			n++
		}
	}
	return n
}

// wantNothing checks that nothing of a volume is left on the node.
func (r *rig) wantNothing(v *kubelet.Volume) {
	r.Helper()
	if n := r.mountsAt(v.Target); n != 0 {
		r.Errorf("%d mounts are left at %s", n, v.Target)
	}
	for _, path := range []string{v.Target, filepath.Dir(v.Target)} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			r.Errorf("%s is left: %v", path, err)
		}
	}
}

// device is that of the file system of the target.
func (r *rig) device(target string) uint64 {
	r.Helper()
	var stat syscall.Stat_t
	if err := syscall.Stat(target, &stat); err != nil {
		r.Fatal(err)
	}
	return stat.Dev
}

// recordsFolder is where the driver keeps its records, below the state folder.
const recordsFolder = "keymount-volumes"

// records returns the ids of the volumes of which the state folder has a record, sorted, and each as text. Whatever else is
// there fails the test.
func (r *rig) records(state string) (ids []string, byPath map[string]map[string]any) {
	r.Helper()
	folder := filepath.Join(state, recordsFolder)
	entries, err := os.ReadDir(folder)
	if err != nil {
		r.Fatal(err)
	}
	byPath = map[string]map[string]any{}
	for _, entry := range entries {
		path := filepath.Join(folder, entry.Name())
		text, err := os.ReadFile(path)
		if err != nil {
			r.Fatal(err)
		}
		record := map[string]any{}
		if err := json.Unmarshal(text, &record); err != nil || record["volume"] == nil {
			r.Errorf("%s is no record (%v): %s", path, err, text)
			continue
		}
		byPath[path] = record
		ids = append(ids, record["volume"].(string))
	}
	slices.Sort(ids)
	return ids, byPath
}

// rewriteRecords changes every record. The driver must not run.
func (r *rig) rewriteRecords(change func(record map[string]any)) {
	r.Helper()
	_, records := r.records(r.driver.State)
	if len(records) == 0 {
		r.Error("there are no records")
	}
	for path, record := range records {
		change(record)
		text, err := json.Marshal(record)
		if err != nil {
			r.Fatal(err)
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			r.Fatal(err)
		}
	}
}

// asked counts what the driver asked of the API server about classes and status objects.
func (r *rig) askedOfServer() (classes, statuses int) {
	r.Helper()
	for _, q := range api.Requests(r.T, apiserver.User(driver.Namespace, driver.ServiceAccount)) {
		switch {
		case q.Namespace != r.ns:
		case strings.HasPrefix(q.Resource, "secretproviderclasses."):
			classes++
		case strings.HasPrefix(q.Resource, "secretproviderclasspodstatuses."):
			statuses++
		}
	}
	return classes, statuses
}
