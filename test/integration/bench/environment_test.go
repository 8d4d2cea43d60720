//go:build integration && linux

package bench

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"keymount/internal/emulator"
	"keymount/internal/emulator/emulatortest"
	"keymount/test/integration/apiserver"
	"keymount/test/integration/driver"
)

const (
	vaultName = "benchvault"
	secrets   = 20

	vaultLatency     = 20 * time.Millisecond
	tokenLatency     = 80 * time.Millisecond
	discoveryLatency = 30 * time.Millisecond
	// shareFor is how long before a call a read may have started that serves it: the product's default.
	shareFor = 5 * time.Second
)

// user is whom the API server knows the driver as.
var user = apiserver.User(driver.Namespace, driver.ServiceAccount)

// An environment is what is around the drivers: an API server, and an emulator with one application that the service account
// "default" of one namespace may be.
type environment struct {
	api *apiserver.Server
	emu *emulatortest.Emulator
	ns  string
}

func newEnvironment(b *testing.B) *environment {
	b.Helper()
	e := &environment{api: apiserver.Start(b)}
	e.api.Apply(b, "../../../api/crds/*.yaml", "../../../deploy/rbac/*.yaml")
	e.ns = e.api.Namespace(b)
	seed := emulatortest.DefaultSeed(vaultName)
	seed.Tenants[0].Apps[0].Federated[0].Subject = "system:serviceaccount:" + e.ns + ":default"
	e.emu = emulatortest.Start(b, seed)
	for i := range secrets {
		e.emu.PutSecret(vaultName, fmt.Sprintf("secret-%d", i), fmt.Sprintf("the value of secret %d", i))
	}
	for group, latency := range map[string]time.Duration{emulator.GroupVault: vaultLatency, emulator.GroupToken: tokenLatency, emulator.GroupDiscovery: discoveryLatency} {
		if err := e.emu.Server.SetLatency(group, latency); err != nil {
			b.Fatal(err)
		}
	}
	return e
}

// class makes the class with all secrets, by a name of its own.
func (e *environment) class(b testing.TB, name string, synced []any) {
	b.Helper()
	objects := "array:\n"
	for i := range secrets {
		objects += fmt.Sprintf("- |\n  objectName: secret-%d\n  objectType: secret\n", i)
	}
	text, err := json.Marshal(map[string]any{
		"apiVersion": "secrets-store.csi.x-k8s.io/v1", "kind": "SecretProviderClass",
		"metadata": map[string]string{"name": name, "namespace": e.ns},
		"spec": map[string]any{"provider": "azure", "secretObjects": append([]any{}, synced...), "parameters": map[string]string{
			"keyvaultName": vaultName, "tenantID": emulatortest.Tenant, "clientID": emulatortest.ClientID, "objects": objects}},
	})
	if err != nil {
		b.Fatal(err)
	}
	e.api.ApplyText(b, string(text))
}

// A pod asks for one volume. Without a uid it is one of which the API server knows nothing.
type pod struct{ namespace, name, uid string }

// publish is what kubelet asks for the pod's volume. The token is where only kubelet can put it, so it proves the pod's
// identity by itself.
func (p pod) publish(class, target string, emu *emulatortest.Emulator) *csi.NodePublishVolumeRequest {
	uid := cmp.Or(p.uid, p.name+"-uid")
	lifetime := time.Hour
	tokens, err := json.Marshal(map[string]any{emulatortest.Audience: map[string]any{
		"token":               emu.ServiceAccountToken(p.namespace, "default", p.name, uid, emulatortest.Audience, lifetime),
		"expirationTimestamp": time.Now().Add(lifetime).UTC().Format(time.RFC3339),
	}})
	if err != nil {
		panic(err) // strings
	}
	return &csi.NodePublishVolumeRequest{
		VolumeId: fmt.Sprintf("csi-%x", sha256.Sum256([]byte(uid))), TargetPath: target, Readonly: true,
		VolumeCapability: &csi.VolumeCapability{AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}}},
		Secrets:          map[string]string{"csi.storage.k8s.io/serviceAccount.tokens": string(tokens)},
		VolumeContext: map[string]string{
			"secretProviderClass": class, "csi.storage.k8s.io/ephemeral": "true",
			"csi.storage.k8s.io/pod.name": p.name, "csi.storage.k8s.io/pod.namespace": p.namespace, "csi.storage.k8s.io/pod.uid": uid,
			"csi.storage.k8s.io/serviceAccount.name": "default",
		},
	}
}

// A process is one driver with the volumes that kubelet asked it for.
type process struct {
	*testing.B
	*environment
	driver  *driver.Driver
	client  csi.NodeClient
	class   string
	volumes []*csi.NodePublishVolumeRequest
	seen    int // requests to the API server before what is counted
}

// start starts a driver that knows nothing yet, with a class of its own, which may have secretObjects.
func (e *environment) start(b *testing.B, class, interval string, synced ...any) *process {
	b.Helper()
	d := driver.Start(b, e.api, driver.Options{
		Plain: true,
		Args: []string{"-v=0", "--builtin-providers=azure", "--enable-secret-rotation", "--rotation-poll-interval=" + interval,
			"--min-rotation-poll-interval=1s", "--share-reads-for=" + shareFor.String()},
		Env: append(e.emu.Env(), "NO_PROXY=127.0.0.1,localhost", "no_proxy=127.0.0.1,localhost"),
	})
	e.class(b, class, synced)
	p := &process{B: b, environment: e, driver: d, client: csi.NewNodeClient(d.Dial()), class: class}
	p.reset()
	return p
}

// reset begins to count anew.
func (p *process) reset() {
	p.emu.Server.ResetRequests()
	p.seen = len(p.api.Requests(p, user))
}

// asked returns what the API server was asked since reset, by "verb resource".
func (p *process) asked() map[string]int {
	p.Helper()
	return apiserver.Counts(p.api.Requests(p, user)[p.seen:])
}

// publish mounts so many more volumes at once and returns how long each call took.
func (p *process) publish(n int) []time.Duration {
	p.Helper()
	first := len(p.volumes)
	for range n {
		name := fmt.Sprintf("%s-%d", p.class, len(p.volumes))
		target := filepath.Join(p.driver.Kubelet, "pods", name, "mount")
		p.volumes = append(p.volumes, pod{namespace: p.ns, name: name}.publish(p.class, target, p.emu))
	}
	return p.call(p.volumes[first:])
}

// republish asks for all volumes at once, once more.
func (p *process) republish() []time.Duration {
	p.Helper()
	return p.call(p.volumes)
}

func (p *process) call(requests []*csi.NodePublishVolumeRequest) []time.Duration {
	p.Helper()
	took, errs := make([]time.Duration, len(requests)), make([]error, len(requests))
	var group sync.WaitGroup
	for i, req := range requests {
		group.Go(func() {
			ctx, cancel := context.WithTimeout(p.Context(), time.Minute)
			defer cancel()
			start := time.Now()
			_, errs[i] = p.client.NodePublishVolume(ctx, req)
			took[i] = time.Since(start)
		})
	}
	group.Wait()
	for _, err := range errs {
		if err != nil {
			p.Fatal(err)
		}
	}
	return took
}

// end stops the driver well.
func (p *process) end() {
	p.Helper()
	p.driver.Stop()
}
