//go:build integration && linux

package integration

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"keymount/api/provider/v1alpha1"
	"keymount/test/integration/driver"
)

// upstream is a stand-in for upstream's driver as far as what it leaves on a node and in the cluster goes: a tmpfs without
// options, files by its atomic writer, a status object by create, else a whole update. It asks no provider: the test says
// what one answered, and has files of a provider's own written by write.
type upstream struct {
	csi.UnimplementedNodeServer
	r     *rig
	trims bool // 1.5.6 cuts white space off ids and versions

	mu     sync.Mutex
	answer *v1alpha1.MountResponse
	write  func(target string) error
}

// upstream serves in the driver's place until stop is called.
func (r *rig) upstream(trims bool, answer *v1alpha1.MountResponse) (u *upstream, stop func()) {
	r.Helper()
	u = &upstream{r: r, trims: trims, answer: answer}
	l, err := net.Listen("unix", r.driver.Endpoint)
	if err != nil {
		r.Fatal(err)
	}
	server := grpc.NewServer()
	csi.RegisterNodeServer(server, u)
	go server.Serve(l)
	r.Cleanup(server.Stop)
	unregister := r.registrar()
	return u, func() { unregister(); server.Stop() }
}

func (u *upstream) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	return &csi.NodeGetCapabilitiesResponse{Capabilities: []*csi.NodeServiceCapability{{Type: &csi.NodeServiceCapability_Rpc{
		Rpc: &csi.NodeServiceCapability_RPC{Type: csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME}}}}}, nil
}

func (u *upstream) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: driver.Node}, nil
}

func (u *upstream) NodePublishVolume(ctx context.Context, req *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	target := req.TargetPath
	if _, err := os.Stat(target); errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(target, 0o750); err != nil {
			return nil, err
		}
		if err := unix.Mount("tmpfs", target, "tmpfs", 0, ""); err != nil {
			return nil, err
		}
	}
	if u.write != nil {
		if err := u.write(target); err != nil {
			return nil, err
		}
	}
	if len(u.answer.Files) > 0 {
		if err := atomicWrite(target, u.answer.Files); err != nil {
			return nil, err
		}
	}
	return &csi.NodePublishVolumeResponse{}, u.status(ctx, req)
}

func (u *upstream) NodeUnpublishVolume(_ context.Context, req *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	entries, _ := filepath.Glob(filepath.Join(req.TargetPath, "*"))
	for _, e := range entries {
		os.RemoveAll(e)
	}
	if err := unix.Unmount(req.TargetPath, 0); err != nil {
		return nil, err
	}
	return &csi.NodeUnpublishVolumeResponse{}, os.Remove(req.TargetPath)
}

// status creates the volume's status object, else replaces what it says and whose it is.
func (u *upstream) status(ctx context.Context, req *csi.NodePublishVolumeRequest) error {
	attributes := req.VolumeContext
	pod, ns, class := attributes["csi.storage.k8s.io/pod.name"], attributes["csi.storage.k8s.io/pod.namespace"], attributes["secretProviderClass"]
	var objects []any
	for _, o := range u.answer.ObjectVersion { // the tests' are sorted
		id, version := o.Id, o.Version
		if u.trims {
			id, version = strings.TrimSpace(id), strings.TrimSpace(version)
		}
		objects = append(objects, map[string]any{"id": id, "version": version})
	}
	content := map[string]any{"podName": pod, "secretProviderClassName": class, "mounted": true, "targetPath": req.TargetPath, "objects": objects}
	owners := []any{map[string]any{"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": attributes["csi.storage.k8s.io/pod.uid"]}}
	object := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "secrets-store.csi.x-k8s.io/v1", "kind": "SecretProviderClassPodStatus",
		"metadata": map[string]any{"name": pod + "-" + ns + "-" + class, "namespace": ns, "ownerReferences": owners,
			"labels": map[string]any{"internal.secrets-store.csi.k8s.io/node-name": driver.Node}},
		"status": content,
	}}
	client := api.Client().Resource(statusGVR).Namespace(ns)
	_, err := client.Create(ctx, object, metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	found, err := client.Get(ctx, object.GetName(), metav1.GetOptions{})
	if err != nil {
		return err
	}
	labels := found.GetLabels()
	labels["internal.secrets-store.csi.k8s.io/node-name"] = driver.Node // upstream dies here if there are none
	found.SetLabels(labels)
	found.SetOwnerReferences(object.GetOwnerReferences())
	found.Object["status"] = content
	_, err = client.Update(ctx, found, metav1.UpdateOptions{})
	return err
}

// atomicWrite makes files the volume's content, step by step as upstream's writer does: it knows a volume by its layout only.
func atomicWrite(target string, files []*v1alpha1.File) error {
	want := map[string]*v1alpha1.File{}
	for _, f := range files {
		want[f.Path] = f
		top := filepath.Join(target, firstComponent(f.Path))
		if info, err := os.Lstat(top); err == nil && info.Mode()&fs.ModeSymlink == 0 {
			if err := os.RemoveAll(top); err != nil { // what a provider wrote itself
				return err
			}
		}
	}
	old, err := os.Readlink(filepath.Join(target, "..data"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	gone, same, err := compareWithOld(target, old, want)
	if err != nil || same {
		return err
	}
	generation, err := writeGeneration(target, want)
	if err != nil {
		return err
	}
	for path := range want {
		top := firstComponent(path)
		if err := os.Symlink(filepath.Join("..data", top), filepath.Join(target, top)); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	// Upstream fails for ever if somebody left this name; so does this writer.
	if err := os.Symlink(filepath.Base(generation), filepath.Join(target, "..data_tmp")); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(target, "..data_tmp"), filepath.Join(target, "..data")); err != nil {
		return err
	}
	for _, top := range gone {
		if err := os.Remove(filepath.Join(target, top)); err != nil {
			return err
		}
	}
	if old != "" {
		return os.RemoveAll(filepath.Join(target, old))
	}
	return nil
}

func firstComponent(path string) string {
	top, _, _ := strings.Cut(path, "/")
	return top
}

// compareWithOld compares contents, but no modes, and returns the top-level names that fall away.
func compareWithOld(target, old string, want map[string]*v1alpha1.File) (gone []string, same bool, err error) {
	if old == "" {
		return nil, false, nil
	}
	same = true
	dir := filepath.Join(target, old)
	tops := map[string]bool{}
	for path, f := range want {
		tops[firstComponent(path)] = true
		have, err := os.ReadFile(filepath.Join(dir, path))
		same = same && err == nil && bytes.Equal(have, f.Contents)
	}
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			rel, _ := filepath.Rel(dir, path)
			same = same && want[rel] != nil
		}
		return err
	})
	if err != nil {
		return nil, false, err
	}
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if !tops[e.Name()] {
			gone = append(gone, e.Name())
		}
	}
	return gone, same, err
}

func writeGeneration(target string, want map[string]*v1alpha1.File) (string, error) {
	dir, err := os.MkdirTemp(target, time.Now().UTC().Format("..2006_01_02_15_04_05."))
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", err
	}
	for path, f := range want {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			return "", err
		}
		if err := os.WriteFile(path, f.Contents, fs.FileMode(f.Mode)); err != nil {
			return "", err
		}
		if err := os.Chmod(path, fs.FileMode(f.Mode)); err != nil {
			return "", err
		}
	}
	return dir, nil
}
