//go:build integration && linux

package kubelet

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
)

// State is what kubelet believes of a volume (operationexecutor VolumeMountState).
type State string

const (
	NotMounted State = "not mounted"
	Mounted    State = "mounted"
	Unsure     State = "uncertain"
)

// A Volume is an inline CSI volume of one pod.
type Volume struct {
	ID     string // of the CSI calls
	Target string // where the driver mounts it
	Name   string // in the pod

	kubelet       *Kubelet
	pod           *corev1.Pod
	source        *corev1.CSIVolumeSource // kubelet's own copy; see attributes
	state         State
	reconstructed bool // found on disk by a kubelet that was restarted
	retry         Backoff
}

// Inline returns an inline volume for a pod, read-only as drivers of secrets demand it.
func Inline(name, driver string, attributes map[string]string) corev1.Volume {
	readOnly := true
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
		CSI: &corev1.CSIVolumeSource{Driver: driver, ReadOnly: &readOnly, VolumeAttributes: attributes},
	}}
}

// Volume returns the pod's volume of that name, not yet mounted. The pod is as the API server holds it, uid included.
func (k *Kubelet) Volume(pod *corev1.Pod, name string) (*Volume, error) {
	if pod.UID == "" {
		return nil, fmt.Errorf("pod %s/%s has no uid: create it first", pod.Namespace, pod.Name)
	}
	for _, v := range pod.Spec.Volumes {
		if v.Name != name || v.CSI == nil {
			continue
		}
		return &Volume{
			// csi_mounter.go makeVolumeHandle
			ID:      fmt.Sprintf("csi-%x", sha256.Sum256([]byte(string(pod.UID)+name))),
			Target:  k.targetDir(pod, name),
			Name:    name,
			kubelet: k, pod: pod.DeepCopy(), source: v.CSI.DeepCopy(), state: NotMounted,
		}, nil
	}
	return nil, fmt.Errorf("pod %s/%s has no inline CSI volume %q", pod.Namespace, pod.Name, name)
}

// Wait returns how long kubelet would now wait before it tries again what has failed; 0 if nothing has.
func (v *Volume) Wait() time.Duration { return v.retry.wait }

// State returns what kubelet believes of the volume now.
func (v *Volume) State() State { return v.state }

// Publish mounts a volume that is not mounted, or whose last attempt left that open: it makes the folders, collects what the
// CSIDriver object asks for, and calls the driver (csi_mounter.go SetUpAt). After a final error the folder is removed.
func (v *Volume) Publish(ctx context.Context) error {
	if v.state == Mounted {
		return errors.New("kubelet does not publish a mounted volume anew: republish it")
	}
	return v.setUp(ctx, false)
}

// Republish calls the driver for a mounted volume once more, as kubelet does about once a minute if the CSIDriver object has
// requiresRepublish (csi_plugin.go RequiresRemount). Whatever the answer, the volume stays mounted and its folder stays
// (csi_mounter.go SetUpAt with IsRemount; operation_generator.go markVolumeErrorState).
func (v *Volume) Republish(ctx context.Context) error {
	if v.state != Mounted {
		return fmt.Errorf("kubelet does not republish a volume that is %s", v.state)
	}
	object, err := v.kubelet.api.CSIDriver(ctx, v.source.Driver)
	if err != nil {
		return err
	}
	if object.Spec.RequiresRepublish == nil || !*object.Spec.RequiresRepublish {
		return fmt.Errorf("kubelet does not republish: CSIDriver %s does not have requiresRepublish", v.source.Driver)
	}
	return v.setUp(ctx, true)
}

func (v *Volume) setUp(ctx context.Context, again bool) error {
	ctx, cancel := context.WithTimeout(ctx, PublishTimeout)
	defer cancel()
	err := v.mount(ctx, again)
	v.retry.done("mount", err)
	switch outcome := OutcomeOf(err); {
	case err == nil:
		v.state, v.reconstructed = Mounted, false
	case outcome == Uncertain && v.state == NotMounted:
		v.state = Unsure
	case outcome == Final && v.state == Unsure && !v.reconstructed:
		v.state = NotMounted
	}
	return err
}

func (v *Volume) mount(ctx context.Context, again bool) error {
	registered, ok := v.kubelet.driver(v.source.Driver)
	if !ok {
		return &Error{Transient, fmt.Errorf("driver name %s not found in the list of registered CSI drivers", v.source.Driver)}
	}
	object, err := v.csiDriver(ctx)
	if err != nil {
		return &Error{Transient, err}
	}
	if err := v.makeFolders(); err != nil {
		return err
	}
	request, err := v.request(ctx, registered, object)
	if err != nil {
		return &Error{Transient, err}
	}
	if err := v.saveData(); err != nil {
		return errors.Join(err, v.removeMountDir())
	}
	err = registered.publish(ctx, request)
	if OutcomeOf(err) == Final && !again && !v.reconstructed {
		if removeErr := v.removeMountDir(); removeErr != nil {
			// kubelet logs it and goes on; here a test must see it, and still see the driver's answer.
			return &Error{Final, errors.Join(err.(*Error).Err, removeErr)}
		}
	}
	return err
}

// csiDriver returns the driver's object if it lets the volume be mounted (csi_mounter.go supportsVolumeLifecycleMode,
// getFSGroupPolicy).
func (v *Volume) csiDriver(ctx context.Context) (*storagev1.CSIDriver, error) {
	object, err := v.kubelet.api.CSIDriver(ctx, v.source.Driver)
	if err != nil {
		return nil, fmt.Errorf("volume mode %q not supported by driver %s: %w", storagev1.VolumeLifecycleEphemeral, v.source.Driver, err)
	}
	for _, mode := range object.Spec.VolumeLifecycleModes {
		if mode == storagev1.VolumeLifecycleEphemeral {
			if object.Spec.FSGroupPolicy == nil || *object.Spec.FSGroupPolicy == "" {
				return nil, errors.New("expected valid fsGroupPolicy, received nil value or empty string")
			}
			return object, nil
		}
	}
	return nil, fmt.Errorf("volume mode %q not supported by driver %s (only %q)", storagev1.VolumeLifecycleEphemeral, v.source.Driver, object.Spec.VolumeLifecycleModes)
}

// request collects what the driver is told (csi_mounter.go SetUpAt), but the access mode, which is asked for last.
func (v *Volume) request(ctx context.Context, registered driver, object *storagev1.CSIDriver) (*csi.NodePublishVolumeRequest, error) {
	secrets, err := v.secrets(ctx)
	if err != nil {
		return nil, err
	}
	attributes, err := v.attributes(ctx, object, secrets)
	if err != nil {
		return nil, err
	}
	mount := &csi.VolumeCapability_MountVolume{}
	if v.source.FSType != nil {
		mount.FsType = *v.source.FSType
	}
	grouped, err := registered.supports(ctx, csi.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP)
	if err != nil {
		return nil, err
	}
	// Without the ability kubelet would change the files' group itself, but never those of a read-only volume
	// (csi_mounter.go supportsFSGroup), so here nothing is done.
	if context := v.pod.Spec.SecurityContext; grouped && context != nil && context.FSGroup != nil {
		mount.VolumeMountGroup = fmt.Sprint(*context.FSGroup)
	}
	return &csi.NodePublishVolumeRequest{
		VolumeId:         v.ID,
		TargetPath:       v.Target,
		Readonly:         v.source.ReadOnly != nil && *v.source.ReadOnly, // csi_plugin.go NewMounter
		VolumeContext:    attributes,
		Secrets:          secrets,
		VolumeCapability: &csi.VolumeCapability{AccessType: &csi.VolumeCapability_Mount{Mount: mount}},
	}, nil
}

// secrets returns the content of nodePublishSecretRef, read anew each time (csi_util.go getCredentialsFromSecret).
func (v *Volume) secrets(ctx context.Context) (map[string]string, error) {
	secrets := map[string]string{}
	if v.source.NodePublishSecretRef == nil {
		return secrets, nil
	}
	found, err := v.kubelet.api.Secret(ctx, v.pod.Namespace, v.source.NodePublishSecretRef.Name)
	if err != nil {
		return nil, fmt.Errorf("fetching NodePublishSecretRef %s/%s failed: %w", v.pod.Namespace, v.source.NodePublishSecretRef.Name, err)
	}
	for key, value := range found.Data {
		secrets[key] = string(value)
	}
	return secrets, nil
}

// attributes returns the volume context: the author's attributes, overwritten by what the CSIDriver object asks kubelet for.
// Tokens go into secrets instead where the object says so. kubelet merges into its own copy of the author's attributes, which
// lives as long as the volume (csi_mounter.go mergeMap), so what was once merged stays although the object has changed.
func (v *Volume) attributes(ctx context.Context, object *storagev1.CSIDriver, secrets map[string]string) (map[string]string, error) {
	attributes := v.source.VolumeAttributes
	if attributes == nil {
		attributes = map[string]string{} // of this call only
	}
	if object.Spec.PodInfoOnMount != nil && *object.Spec.PodInfoOnMount { // csi_plugin.go podInfoEnabled
		maps.Copy(attributes, podInfo(v.pod))
	}
	tokens, err := v.tokens(ctx, object)
	if err != nil {
		return nil, err
	}
	if tokens != "" {
		if object.Spec.ServiceAccountTokenInSecrets != nil && *object.Spec.ServiceAccountTokenInSecrets {
			secrets[TokensKey] = tokens
		} else {
			attributes[TokensKey] = tokens
		}
	}
	return maps.Clone(attributes), nil
}
