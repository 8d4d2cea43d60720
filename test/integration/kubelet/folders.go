//go:build integration && linux

package kubelet

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	corev1 "k8s.io/api/core/v1"
)

// volData is the file beside the target by which kubelet finds its way back after a restart and at the unmount
// (csi_mounter.go volDataKey).
type volData struct {
	SpecVolID           string `json:"specVolID"`
	VolumeHandle        string `json:"volumeHandle"`
	DriverName          string `json:"driverName"`
	NodeName            string `json:"nodeName"`
	AttachmentID        string `json:"attachmentID"`
	VolumeLifecycleMode string `json:"volumeLifecycleMode"`
}

func (v *Volume) dataFile() string { return filepath.Join(filepath.Dir(v.Target), "vol_data.json") }

// makeFolders makes those of the pod (kubelet_pods.go makePodDataDirs) and all above the target. The target itself is the
// driver's to make (csi_mounter.go SetUpAt).
func (v *Volume) makeFolders() error {
	for _, dir := range []string{filepath.Join(v.kubelet.PodDir(v.pod), "plugins"), filepath.Dir(v.Target)} {
		if err := os.MkdirAll(dir, 0o750); err != nil {
			return err
		}
	}
	return nil
}

func (v *Volume) saveData() error {
	text, err := json.Marshal(volData{
		SpecVolID: v.Name, VolumeHandle: v.ID, DriverName: v.source.Driver, NodeName: v.kubelet.node,
		// csi_attacher.go getAttachmentName
		AttachmentID:        fmt.Sprintf("csi-%x", sha256.Sum256([]byte(v.ID+v.source.Driver+v.kubelet.node))),
		VolumeLifecycleMode: "Ephemeral",
	})
	if err != nil {
		return err
	}
	return os.WriteFile(v.dataFile(), append(text, '\n'), 0o644)
}

func (v *Volume) loadData() (volData, error) {
	var data volData
	text, err := os.ReadFile(v.dataFile())
	if err == nil {
		err = json.Unmarshal(text, &data)
	}
	return data, err
}

// removeMountDir removes an unmounted target, which must be empty, the data file and the volume's folder; of a target that is
// mounted it touches nothing (csi_mounter.go removeMountDir).
func (v *Volume) removeMountDir() error {
	mounted, err := isMountPoint(v.Target)
	if mounted || err != nil {
		return err
	}
	for _, path := range []string{v.Target, v.dataFile(), filepath.Dir(v.Target)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// isMountPoint tells whether the folder lies on another device than its parent (mount-utils IsLikelyNotMountPoint). What is
// not there is not mounted; a mount whose server is gone is an error.
func isMountPoint(dir string) (bool, error) {
	var here, above syscall.Stat_t
	if err := syscall.Stat(dir, &here); err != nil {
		if errors.Is(err, syscall.ENOENT) {
			return false, nil
		}
		return false, &fs.PathError{Op: "stat", Path: dir, Err: err}
	}
	if err := syscall.Lstat(filepath.Dir(dir), &above); err != nil {
		return false, err
	}
	return here.Dev != above.Dev, nil
}

// Unpublish unmounts a volume that is mounted or may be (operation_generator.go GenerateUnmountVolumeFunc, csi_mounter.go
// TearDownAt). Driver and volume id come from the data file. Should it fail, it is to be called again; any error leaves the
// volume uncertain.
func (v *Volume) Unpublish(ctx context.Context) error {
	if v.state == NotMounted {
		return fmt.Errorf("kubelet does not unpublish a volume that is %s", v.state)
	}
	ctx, cancel := context.WithTimeout(ctx, PublishTimeout)
	defer cancel()
	err := v.tearDown(ctx)
	v.retry.done("unmount", err)
	if err != nil {
		v.state = Unsure
		return err
	}
	v.state, v.reconstructed = NotMounted, false
	return nil
}

func (v *Volume) tearDown(ctx context.Context) error {
	data, err := v.loadData()
	if err != nil {
		return fmt.Errorf("unmounter failed to load volume data file: %w", err)
	}
	registered, ok := v.kubelet.driver(data.DriverName)
	if !ok {
		return &Error{Transient, fmt.Errorf("driver name %s not found in the list of registered CSI drivers", data.DriverName)}
	}
	if err := registered.unpublish(ctx, data.VolumeHandle, v.Target); err != nil {
		return err
	}
	return v.removeMountDir()
}

// Reconstruct returns a volume that a kubelet which was restarted finds on its disk: uncertain, to be published again if the
// pod still wants it, whatever the driver answers then (volumemanager/reconciler reconstruct.go; csi_mounter.go SetUpAt with
// ReconstructedVolume).
func (k *Kubelet) Reconstruct(pod *corev1.Pod, name string) (*Volume, error) {
	v, err := k.Volume(pod, name)
	if err != nil {
		return nil, err
	}
	if _, err := v.loadData(); err != nil {
		return nil, fmt.Errorf("reconstructing volume %s: %w", name, err)
	}
	v.state, v.reconstructed = Unsure, true
	return v, nil
}

// CleanUp removes the folders of a pod that is gone, and says what keeps it from that: a mount, or a file. It never removes
// a file (kubelet_volumes.go cleanupOrphanedPodDirs, removeOrphanedPodVolumeDirs).
func (k *Kubelet) CleanUp(pod *corev1.Pod) error {
	var dirs []string
	err := filepath.WalkDir(k.PodDir(pod), func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case !entry.IsDir():
			return fmt.Errorf("orphaned pod %s: %s is in the way", pod.UID, path)
		}
		dirs = append(dirs, path)
		if path == k.PodDir(pod) { // the tests' root may well be a mount
			return nil
		}
		if mounted, err := isMountPoint(path); mounted || err != nil {
			return errors.Join(fmt.Errorf("orphaned pod %s: %s is mounted", pod.UID, path), err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, dir := range slices.Backward(dirs) {
		if err := os.Remove(dir); err != nil {
			return err
		}
	}
	return nil
}
