//go:build integration && linux

package kubelet

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
)

// A row is one change to what kubelet finds, and what that changes in what the driver is told.
func TestWhatTheDriverIsTold(t *testing.T) {
	t.Attr("conformance", "2.6/call-timeout")
	t.Attr("conformance", "2.6/pod-information")
	const (
		vault  = `"token":"ns/sa for [\"vault\"], number 1","expirationTimestamp":"2026-01-02T04:04:05Z"`
		server = `"token":"ns/sa for [], number 1","expirationTimestamp":"2026-01-02T03:14:05Z"`
	)
	for _, tc := range []struct {
		name   string
		change func(*rig)
		want   func(*csi.NodePublishVolumeRequest)
	}{
		{"as it is", func(*rig) {}, func(*csi.NodePublishVolumeRequest) {}},
		{"no pod information", func(r *rig) { r.object.Spec.PodInfoOnMount = new(false) }, func(q *csi.NodePublishVolumeRequest) {
			q.VolumeContext = map[string]string{"secretProviderClass": "class"}
		}},
		{"an author who claims to be another pod", func(r *rig) {
			r.pod.Spec.Volumes[0].CSI.VolumeAttributes["csi.storage.k8s.io/pod.uid"] = "another"
		}, func(*csi.NodePublishVolumeRequest) {}},
		{"an author's tokens, none asked for", func(r *rig) {
			r.pod.Spec.Volumes[0].CSI.VolumeAttributes[TokensKey] = "forged"
		}, func(q *csi.NodePublishVolumeRequest) { q.VolumeContext[TokensKey] = "forged" }},
		{"no attributes", func(r *rig) { r.pod.Spec.Volumes[0].CSI.VolumeAttributes = nil }, func(q *csi.NodePublishVolumeRequest) {
			delete(q.VolumeContext, "secretProviderClass")
		}},
		{"tokens", func(r *rig) { r.object.Spec.TokenRequests = []storagev1.TokenRequest{{Audience: "vault"}} },
			func(q *csi.NodePublishVolumeRequest) { q.VolumeContext[TokensKey] = `{"vault":{` + vault + `}}` }},
		{"tokens over an author's", func(r *rig) {
			r.pod.Spec.Volumes[0].CSI.VolumeAttributes[TokensKey] = "forged"
			r.object.Spec.TokenRequests = []storagev1.TokenRequest{{Audience: "vault"}}
		}, func(q *csi.NodePublishVolumeRequest) { q.VolumeContext[TokensKey] = `{"vault":{` + vault + `}}` }},
		{"tokens in secrets", func(r *rig) {
			r.object.Spec.TokenRequests = []storagev1.TokenRequest{{Audience: "vault"}}
			r.object.Spec.ServiceAccountTokenInSecrets = new(true)
		}, func(q *csi.NodePublishVolumeRequest) {
			q.Secrets = map[string]string{TokensKey: `{"vault":{` + vault + `}}`}
		}},
		{"the API server's own audience", func(r *rig) {
			r.object.Spec.TokenRequests = []storagev1.TokenRequest{{Audience: "", ExpirationSeconds: new(int64(600))}}
		}, func(q *csi.NodePublishVolumeRequest) { q.VolumeContext[TokensKey] = `{"":{` + server + `}}` }},
		{"a secret", func(r *rig) {
			r.pod.Spec.Volumes[0].CSI.NodePublishSecretRef = &corev1.LocalObjectReference{Name: "creds"}
		}, func(q *csi.NodePublishVolumeRequest) { q.Secrets = map[string]string{"id": "me"} }},
		{"not read-only", func(r *rig) { r.pod.Spec.Volumes[0].CSI.ReadOnly = nil }, func(q *csi.NodePublishVolumeRequest) { q.Readonly = false }},
		{"a group the driver cannot set", func(r *rig) {
			r.pod.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: new(int64(2000))}
		}, func(*csi.NodePublishVolumeRequest) {}},
		{"a group", func(r *rig) {
			r.pod.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: new(int64(2000))}
			r.driver.abilities = []csi.NodeServiceCapability_RPC_Type{csi.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP}
		}, func(q *csi.NodePublishVolumeRequest) { q.VolumeCapability.GetMount().VolumeMountGroup = "2000" }},
		{"no group, which the driver could set", func(r *rig) {
			r.driver.abilities = []csi.NodeServiceCapability_RPC_Type{csi.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP}
		}, func(*csi.NodePublishVolumeRequest) {}},
		{"several writers", func(r *rig) {
			r.driver.abilities = []csi.NodeServiceCapability_RPC_Type{csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER}
		}, func(q *csi.NodePublishVolumeRequest) {
			q.VolumeCapability.AccessMode.Mode = csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER
		}},
		{"a file system", func(r *rig) { r.pod.Spec.Volumes[0].CSI.FSType = new("ext4") },
			func(q *csi.NodePublishVolumeRequest) { q.VolumeCapability.GetMount().FsType = "ext4" }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t)
			tc.change(r)
			want := &csi.NodePublishVolumeRequest{
				VolumeId:   "csi-11abf00fe9939f49a39b5f1546f1b1a694b7a6b68520043d87b4ec5e8392be6e", // sha256sum of pod-uidvol
				TargetPath: filepath.Join(r.kubelet.root, "pods/pod-uid/volumes/kubernetes.io~csi/vol/mount"),
				Readonly:   true,
				VolumeContext: map[string]string{
					"secretProviderClass":                    "class",
					"csi.storage.k8s.io/ephemeral":           "true",
					"csi.storage.k8s.io/pod.name":            "pod",
					"csi.storage.k8s.io/pod.namespace":       "ns",
					"csi.storage.k8s.io/pod.uid":             "pod-uid",
					"csi.storage.k8s.io/serviceAccount.name": "sa",
				},
				VolumeCapability: &csi.VolumeCapability{
					AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
					AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
				},
			}
			tc.want(want)
			v := r.mounted(t)
			if got := r.driver.last(); !proto.Equal(got, want) {
				t.Errorf("the driver was told\n%v\nwant\n%v", got, want)
			}
			if r.driver.deadline > PublishTimeout || r.driver.deadline < PublishTimeout/2 {
				t.Errorf("the driver was given %v", r.driver.deadline)
			}
			if v.State() != Mounted || v.Wait() != 0 {
				t.Errorf("the volume is %s, to be tried again after %v", v.State(), v.Wait())
			}
		})
	}
}

func TestFoldersAndDataFile(t *testing.T) {
	r := newRig(t)
	v := r.mounted(t)
	text, err := os.ReadFile(filepath.Join(filepath.Dir(v.Target), "vol_data.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"specVolID":"vol"`, `"volumeHandle":"` + v.ID + `"`, `"driverName":"` + driverName + `"`, `"nodeName":"node"`,
		`"attachmentID":"csi-735d9c72a08b59d83fe7fcee97fa64fc7d96ab8652bd05d3d27936ddcf54c32d"`, `"volumeLifecycleMode":"Ephemeral"`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("vol_data.json has no %s: %s", want, text)
		}
	}
	info, err := os.Stat(filepath.Dir(v.Target))
	if err != nil || info.Mode().Perm() != 0o750 {
		t.Errorf("the volume's folder: %v, %v", info.Mode(), err)
	}
}

// Every code there is, for a first mount and for a mounted volume.
func TestCodes(t *testing.T) {
	t.Attr("conformance", "2.6/which-codes-are-final")
	t.Attr("conformance", "2.6/removes-after-final")
	t.Attr("conformance", "2.6/keeps-after-non-final")
	t.Attr("conformance", "2.6/republish-failure")
	open := map[codes.Code]bool{
		codes.Canceled: true, codes.DeadlineExceeded: true, codes.Unavailable: true, codes.ResourceExhausted: true, codes.Aborted: true,
	}
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		t.Run(code.String(), func(t *testing.T) {
			r := newRig(t)
			r.driver.answer = status.Error(code, "no")
			v := r.volume(t)
			err := v.Publish(t.Context())
			outcome, state := Final, NotMounted
			if open[code] {
				outcome, state = Uncertain, Unsure
			}
			if OutcomeOf(err) != outcome || Code(err) != code || v.State() != state || exists(v.Target) != open[code] {
				t.Errorf("first: %v (%s), the volume is %s, its folder there: %v", err, Code(err), v.State(), exists(v.Target))
			}
			if exists(filepath.Dir(v.Target)) != open[code] || v.Wait() != 500*time.Millisecond {
				t.Errorf("first: folder there %v, next try after %v", !open[code], v.Wait())
			}
			r.driver.answer = nil
			if err := v.Publish(t.Context()); err != nil || v.State() != Mounted || v.Wait() != 0 {
				t.Fatalf("tried again: %v, %s, %v", err, v.State(), v.Wait())
			}
			r.driver.answer = status.Error(code, "no")
			err = v.Republish(t.Context())
			if OutcomeOf(err) != outcome || v.State() != Mounted || !exists(v.Target) {
				t.Errorf("again: %v, the volume is %s, its folder there: %v", err, v.State(), exists(v.Target))
			}
		})
	}
}

func TestFinalErrorEndsUncertainty(t *testing.T) {
	r := newRig(t)
	v := r.volume(t)
	for _, step := range []struct {
		code codes.Code
		want State
	}{{codes.Unavailable, Unsure}, {codes.Internal, NotMounted}} {
		r.driver.answer = status.Error(step.code, "no")
		if _ = v.Publish(t.Context()); v.State() != step.want {
			t.Errorf("after %s the volume is %s, want %s", step.code, v.State(), step.want)
		}
	}
}

// A driver that answers finally and leaves something is broken: the test must see it.
func TestFinalErrorWithSomethingLeft(t *testing.T) {
	t.Attr("conformance", "2.6/final-with-something-left")
	r := newRig(t)
	r.driver.answer, r.driver.leave = status.Error(codes.NotFound, "no"), true
	v := r.volume(t)
	err := v.Publish(t.Context())
	if OutcomeOf(err) != Final || !strings.Contains(err.Error(), "directory not empty") {
		t.Errorf("got %v", err)
	}
}

func TestWhatKeepsKubeletFromCalling(t *testing.T) {
	t.Attr("conformance", "2.6/not-called")
	for _, tc := range []struct {
		name   string
		change func(*rig)
		want   string
	}{
		{"driver not registered", func(r *rig) { r.kubelet.drivers = map[string]driver{} }, "not found in the list of registered CSI drivers"},
		{"no CSIDriver object", func(r *rig) { r.api.drivers = nil }, "not found"},
		{"not for inline volumes", func(r *rig) {
			r.object.Spec.VolumeLifecycleModes = []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecyclePersistent}
		}, "not supported"},
		{"no group policy", func(r *rig) { r.object.Spec.FSGroupPolicy = nil }, "fsGroupPolicy"},
		{"no secret", func(r *rig) {
			r.pod.Spec.Volumes[0].CSI.NodePublishSecretRef = &corev1.LocalObjectReference{Name: "none"}
		}, "NodePublishSecretRef ns/none"},
		{"API server away", func(r *rig) { r.api.away = errors.New("away") }, "away"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t)
			tc.change(r)
			v := r.volume(t)
			err := v.Publish(t.Context())
			if OutcomeOf(err) != Transient || !strings.Contains(err.Error(), tc.want) || v.State() != NotMounted || len(r.driver.published) > 0 {
				t.Errorf("got %v, the volume is %s, the driver was called %d times", err, v.State(), len(r.driver.published))
			}
		})
	}
}

func TestRepublishNeedsAMountAndTheObjectsWish(t *testing.T) {
	r := newRig(t)
	v := r.volume(t)
	if err := v.Republish(t.Context()); err == nil {
		t.Error("a volume that is not mounted was republished")
	}
	v = r.mounted(t)
	if err := v.Publish(t.Context()); err == nil {
		t.Error("a mounted volume was published anew")
	}
	r.object.Spec.RequiresRepublish = new(false)
	if err := v.Republish(t.Context()); err == nil || len(r.driver.published) != 1 {
		t.Errorf("republished against the object's wish: %v, %d calls", err, len(r.driver.published))
	}
}

func TestUnpublish(t *testing.T) {
	t.Attr("conformance", "2.6/unpublish-failure")
	r := newRig(t)
	v := r.mounted(t)
	r.driver.answer = status.Error(codes.Internal, "busy")
	if err := v.Unpublish(t.Context()); Code(err) != codes.Internal || v.State() != Unsure || !exists(v.Target) {
		t.Fatalf("refused: %v, %s", err, v.State())
	}
	r.driver.answer, r.driver.leave = nil, true // kubelet removes an empty target itself
	if err := v.Unpublish(t.Context()); err != nil || v.State() != NotMounted || exists(filepath.Dir(v.Target)) {
		t.Fatalf("got %v, %s; the folder is there: %v", err, v.State(), exists(filepath.Dir(v.Target)))
	}
	if got := r.driver.removed[1]; got.VolumeId != v.ID || got.TargetPath != v.Target {
		t.Errorf("the driver was told %v", got)
	}
	if err := v.Unpublish(t.Context()); err == nil || len(r.driver.removed) != 2 {
		t.Errorf("unpublished what is not mounted: %v", err)
	}
	if err := r.kubelet.CleanUp(r.pod); err != nil || exists(r.kubelet.PodDir(r.pod)) {
		t.Errorf("cleaning up: %v", err)
	}
	if err := r.kubelet.CleanUp(r.pod); err != nil {
		t.Errorf("cleaning up what is clean: %v", err)
	}
}

func TestCleanUpRemovesNoFile(t *testing.T) {
	t.Attr("conformance", "2.6/removes-no-file")
	r := newRig(t)
	v := r.mounted(t)
	if err := r.kubelet.CleanUp(r.pod); err == nil || !strings.Contains(err.Error(), "vol_data.json") || !exists(v.dataFile()) {
		t.Errorf("got %v", err)
	}
}

func TestMountsAreLeftAlone(t *testing.T) {
	if mounted, err := isMountPoint("/proc"); err != nil || !mounted {
		t.Errorf("/proc is mounted: %v, %v", mounted, err)
	}
	if mounted, err := isMountPoint(t.TempDir()); err != nil || mounted {
		t.Errorf("a new folder is mounted: %v, %v", mounted, err)
	}
	v := &Volume{Target: "/proc"}
	if err := v.removeMountDir(); err != nil {
		t.Errorf("touched a mount: %v", err)
	}
}

func TestReconstructedVolumeStaysUncertain(t *testing.T) {
	t.Attr("conformance", "2.6/retry-is-safe")
	r := newRig(t)
	if _, err := r.kubelet.Reconstruct(r.pod, "vol"); err == nil {
		t.Error("a volume was found that is not on the disk")
	}
	before := r.mounted(t)
	v, err := r.kubelet.Reconstruct(r.pod, "vol")
	if err != nil || v.ID != before.ID || v.State() != Unsure {
		t.Fatalf("got %+v, %v", v, err)
	}
	r.driver.answer = status.Error(codes.NotFound, "no")
	if err := v.Publish(t.Context()); OutcomeOf(err) != Final || v.State() != Unsure || !exists(v.Target) {
		t.Errorf("after %v the volume is %s, its folder there: %v", err, v.State(), exists(v.Target))
	}
	r.driver.answer = nil
	if err := v.Publish(t.Context()); err != nil || v.State() != Mounted {
		t.Errorf("then: %v, %s", err, v.State())
	}
}

func TestBackoff(t *testing.T) {
	t.Attr("conformance", "2.6/backoff")
	failed := errors.New("failed")
	var b Backoff
	for _, want := range []time.Duration{500, 1000, 2000, 4000, 8000, 16000, 32000, 64000, 122000, 122000} {
		if b.done("mount", failed); b.wait != want*time.Millisecond {
			t.Errorf("got %v, want %v ms", b.wait, int(want))
		}
	}
	if b.done("unmount", failed); b.wait != firstWait {
		t.Errorf("another operation waits %v", b.wait)
	}
	if b.done("unmount", nil); b.wait != 0 {
		t.Errorf("after success %v", b.wait)
	}
}

func TestTokensAreKept(t *testing.T) {
	t.Attr("conformance", "2.6/tokens-are-kept")
	r := newRig(t)
	r.object.Spec.TokenRequests = []storagev1.TokenRequest{{Audience: "vault"}}
	v := r.mounted(t)
	number := func() string {
		t.Helper()
		if err := v.Republish(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, after, _ := strings.Cut(r.driver.last().VolumeContext[TokensKey], "number ")
		return after[:1]
	}
	for _, step := range []struct {
		name string
		pass time.Duration
		away error
		want string
	}{
		{"at once", 0, nil, "1"},
		{"at four fifths of its life", 48 * time.Minute, nil, "1"},
		{"after that, API server away", time.Minute, errors.New("away"), "1"},
		{"after that", 0, nil, "2"},
	} {
		r.clock = r.clock.Add(step.pass)
		r.api.away = step.away
		if got := number(); got != step.want {
			t.Errorf("%s: token %s, want %s", step.name, got, step.want)
		}
	}
	r.clock, r.api.away = r.clock.Add(2*time.Hour), errors.New("away")
	if err := v.Republish(t.Context()); OutcomeOf(err) != Transient {
		t.Errorf("with an expired token and no other: %v", err)
	}
}

// kubelet merges into its own copy of the attributes: tokens that were once there stay.
func TestMergedAttributesStay(t *testing.T) {
	t.Attr("conformance", "2.6/merged-attributes")
	r := newRig(t)
	r.object.Spec.TokenRequests = []storagev1.TokenRequest{{Audience: "vault"}}
	v := r.mounted(t)
	r.object.Spec.ServiceAccountTokenInSecrets = new(true)
	if err := v.Republish(t.Context()); err != nil {
		t.Fatal(err)
	}
	last := r.driver.last()
	if last.Secrets[TokensKey] == "" || last.VolumeContext[TokensKey] == "" {
		t.Errorf("the driver was told %v", last)
	}
	if _, leaked := r.pod.Spec.Volumes[0].CSI.VolumeAttributes[TokensKey]; leaked {
		t.Error("the test's own pod was changed")
	}
}
