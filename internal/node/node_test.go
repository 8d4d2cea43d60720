package node_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"keymount/internal/classes"
	"keymount/internal/node"
	"keymount/internal/provider"
	"keymount/internal/publish"
	"keymount/internal/token"
)

const traceLevel = slog.Level(-8)

// A world is a node service behind its socket, and what it works with.
type world struct {
	t *testing.T
	csi.NodeClient
	csi.IdentityClient
	log strings.Builder

	mu        sync.Mutex
	class     classes.Class
	lookup    error                        // of classes
	outcome   func(publish.Volume) error   // of Publish, after Prepare
	published []publish.Volume             // as they were after Prepare
	resting   bool                         // nothing is due, so there is no Prepare
	removed   map[string]string            // volume id -> target
	used      map[string]string            // volume id -> namespace/name
	accounts  map[string]map[string]string // namespace/name -> annotations
	refused   error                        // of Annotations
	proofs    []proof

	accountReads int
}

type proof struct {
	pod  provider.Pod
	text string
	from token.Origin
}

func (w *world) Publish(ctx context.Context, v publish.Volume) (publish.Result, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := v.Resolve(ctx, &v); err != nil {
		return publish.Result{}, stateError(publish.Undone, err)
	}
	if !w.resting {
		if err := v.Prepare(ctx, &v); err != nil {
			return publish.Result{}, stateError(publish.Undone, err)
		}
	}
	w.published = append(w.published, v)
	var err error
	if w.outcome != nil {
		err = w.outcome(v)
	}
	var failed *publish.Error
	if err == nil || errors.As(err, &failed) && failed.State == publish.Kept {
		v.Holds()
	}
	return publish.Result{}, err
}

// stateError is what a Publisher returns; only a real one can make it.
func stateError(state publish.State, cause error) error {
	return &publish.Error{State: state, Cause: cause}
}

func (w *world) Unpublish(_ context.Context, id, target string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.removed[id] = target
	return nil
}

func (w *world) Get(_ context.Context, namespace, name string) (*classes.Class, error) {
	if w.lookup != nil {
		return nil, w.lookup
	}
	c := w.class
	c.Namespace, c.Name = namespace, name
	return &c, nil
}

func (w *world) Use(id, namespace, name string) { w.used[id] = namespace + "/" + name }
func (w *world) Release(id string)              { delete(w.used, id) }

func (w *world) Prove(_ context.Context, pod provider.Pod, text string, from token.Origin) (map[string]provider.Token, error) {
	w.proofs = append(w.proofs, proof{pod, text, from})
	return map[string]provider.Token{"aud": {Value: provider.Sensitive(text), Proof: provider.ProvenByRequest}}, nil
}

func (w *world) Annotations(_ context.Context, namespace, name string, keys []string) (map[string]string, error) {
	w.accountReads++
	if w.refused != nil {
		return nil, w.refused
	}
	out := map[string]string{}
	for _, k := range keys {
		if v, ok := w.accounts[namespace+"/"+name][k]; ok {
			out[k] = v
		}
	}
	return out, nil
}

func newWorld(t *testing.T, change ...func(*node.Config)) *world {
	t.Helper()
	w := &world{t: t, removed: map[string]string{}, used: map[string]string{},
		class: classes.Class{Provider: "azure", Parameters: map[string]string{"objects": "of the class", "keyvaultName": "kv"}}}
	cfg := node.Config{DriverName: "secrets-store.csi.k8s.io", Version: "v1", NodeID: "node-1", Publisher: w, Classes: w, Tokens: w, Accounts: w,
		Rotation: node.Rotation{Interval: 2 * time.Minute, MinInterval: 30 * time.Second}}
	for _, c := range change {
		c(&cfg)
	}
	logger := slog.New(slog.NewTextHandler(&w.log, &slog.HandlerOptions{Level: traceLevel}))
	server := grpc.NewServer(grpc.UnaryInterceptor(node.Interceptor(logger, traceLevel)))
	service := node.New(cfg)
	csi.RegisterIdentityServer(server, service)
	csi.RegisterNodeServer(server, service)
	path := filepath.Join(t.TempDir(), "csi.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	conn, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); server.Stop(); <-served })
	w.NodeClient, w.IdentityClient = csi.NewNodeClient(conn), csi.NewIdentityClient(conn)
	return w
}

// valid is the request that every row changes in one place.
func valid() *csi.NodePublishVolumeRequest {
	return &csi.NodePublishVolumeRequest{
		VolumeId: "csi-1", TargetPath: "/var/lib/kubelet/pods/uid-1/volumes/kubernetes.io~csi/secrets/mount", Readonly: true,
		VolumeCapability: &csi.VolumeCapability{
			AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
			AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
		},
		VolumeContext: map[string]string{
			"secretProviderClass":                    "db",
			"csi.storage.k8s.io/pod.name":            "web-1",
			"csi.storage.k8s.io/pod.namespace":       "shop",
			"csi.storage.k8s.io/pod.uid":             "uid-1",
			"csi.storage.k8s.io/serviceAccount.name": "reader",
			"csi.storage.k8s.io/ephemeral":           "true",
		},
	}
}

func (w *world) publish(change func(*csi.NodePublishVolumeRequest)) error {
	w.t.Helper()
	req := valid()
	if change != nil {
		change(req)
	}
	_, err := w.NodePublishVolume(w.t.Context(), req)
	return err
}

// last publishes and returns what the Publisher was asked.
func (w *world) last(change func(*csi.NodePublishVolumeRequest)) publish.Volume {
	w.t.Helper()
	if err := w.publish(change); err != nil {
		w.t.Fatal(err)
	}
	return w.published[len(w.published)-1]
}

// Every reason to refuse a request, told before anything is looked up.
func TestRefusals(t *testing.T) {
	t.Attr("conformance", "12.6/arguments")
	t.Attr("conformance", "12.6/readonly")
	attribute := func(key, value string) func(*csi.NodePublishVolumeRequest) {
		return func(r *csi.NodePublishVolumeRequest) {
			if r.VolumeContext[key] = value; value == "" {
				delete(r.VolumeContext, key)
			}
		}
	}
	mountOf := func(r *csi.NodePublishVolumeRequest) *csi.VolumeCapability_MountVolume {
		return r.VolumeCapability.GetMount()
	}
	for _, tc := range []struct {
		name, row string
		change    func(*csi.NodePublishVolumeRequest)
		want      string
	}{
		{"capability", "driver 2.1", func(r *csi.NodePublishVolumeRequest) { r.VolumeCapability = nil }, "Volume capability missing in request"},
		{"volume id", "driver 2.1", func(r *csi.NodePublishVolumeRequest) { r.VolumeId = "" }, "Volume ID missing in request"},
		{"target", "driver 2.1", func(r *csi.NodePublishVolumeRequest) { r.TargetPath = "" }, "Target path missing in request"},
		{"attributes", "driver 2.1", func(r *csi.NodePublishVolumeRequest) { r.VolumeContext = nil }, "Volume attributes missing in request"},
		{"read-only", "driver 2.1", func(r *csi.NodePublishVolumeRequest) { r.Readonly = false }, "Readonly is not true in request"},
		{"class", "driver 2.1", attribute("secretProviderClass", ""), "secretProviderClass is not set"},
		{"pod name", "", attribute("csi.storage.k8s.io/pod.name", ""), "podInfoOnMount"},
		{"pod namespace", "", attribute("csi.storage.k8s.io/pod.namespace", ""), "podInfoOnMount"},
		{"pod uid", "", attribute("csi.storage.k8s.io/pod.uid", ""), "podInfoOnMount"},
		{"block", "", func(r *csi.NodePublishVolumeRequest) {
			r.VolumeCapability.AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
		}, "Block volumes"},
		{"group is no number", "", func(r *csi.NodePublishVolumeRequest) { mountOf(r).VolumeMountGroup = "staff" }, `"staff" is not a group id`},
		{"group is negative", "", func(r *csi.NodePublishVolumeRequest) { mountOf(r).VolumeMountGroup = "-1" }, "not a group id"},
		{"group is too large", "", func(r *csi.NodePublishVolumeRequest) { mountOf(r).VolumeMountGroup = "4294967295" }, "not a group id"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			w.lookup = errors.New("looked up")
			err := w.publish(tc.change)
			if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), tc.want) || len(w.published) > 0 {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
	w := newWorld(t)
	for want, req := range map[string]*csi.NodeUnpublishVolumeRequest{
		"Volume ID missing in request":   {TargetPath: "/t"},
		"Target path missing in request": {VolumeId: "v"},
	} {
		if _, err := w.NodeUnpublishVolume(t.Context(), req); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if len(w.removed) > 0 {
		t.Error("something was removed")
	}
}

func TestWhatThePublisherIsAsked(t *testing.T) {
	w := newWorld(t)
	v := w.last(func(r *csi.NodePublishVolumeRequest) {
		r.VolumeCapability.GetMount().VolumeMountGroup = "2000"
		r.Secrets = map[string]string{"clientid": "id", "clientsecret": "hunter2"}
	})
	if v.ID != "csi-1" || v.Target != valid().TargetPath || v.Provider != "azure" || v.Class != (publish.Class{Namespace: "shop", Name: "db"}) ||
		v.Group == nil || *v.Group != 2000 || v.Once || v.Due != (publish.Due{Every: 2 * time.Minute}) {
		t.Errorf("volume %+v", v)
	}
	want := provider.Pod{Namespace: "shop", Name: "web-1", UID: "uid-1", ServiceAccount: "reader"}
	if v.Request.Pod != want || v.Request.DefaultMode != 0o644 || v.Request.Tokens != nil ||
		!maps.Equal(v.Request.Secrets, map[string]provider.Sensitive{"clientid": "id", "clientsecret": "hunter2"}) {
		t.Errorf("request %+v", v.Request)
	}
	if !maps.Equal(v.Request.Parameters, map[string]string{"objects": "of the class", "keyvaultName": "kv",
		"secretProviderClass": "db", "csi.storage.k8s.io/ephemeral": "true"}) {
		t.Errorf("parameters %v", v.Request.Parameters)
	}
	if w.used["csi-1"] != "shop/db" {
		t.Errorf("classes in use: %v", w.used)
	}
	if _, err := w.NodeUnpublishVolume(t.Context(), &csi.NodeUnpublishVolumeRequest{VolumeId: "csi-1", TargetPath: v.Target}); err != nil {
		t.Fatal(err)
	}
	if w.removed["csi-1"] != v.Target || len(w.used) > 0 {
		t.Errorf("removed %v, in use %v", w.removed, w.used)
	}
}

// The attributes of the volume go over the parameters of the class; nobody writes what is kubelet's or the driver's.
func TestOverlay(t *testing.T) {
	t.Attr("conformance", "10.3/parameters-can-be-locked")
	w := newWorld(t)
	w.class.Parameters["csi.storage.k8s.io/pod.name"] = "forged"
	w.class.Parameters["csi.storage.k8s.io/serviceAccount.tokens"] = "forged"
	w.class.Parameters["csi.storage.k8s.io/ephemeral"] = "forged"
	w.class.Parameters["keymount.dev/service-account-annotations"] = "forged"
	v := w.last(func(r *csi.NodePublishVolumeRequest) {
		r.VolumeContext["keyvaultName"] = "of the pod"
		r.VolumeContext["keymount.dev/service-account-annotations"] = "forged"
		r.VolumeContext["keymount.dev/anything"] = "forged"
	})
	if !maps.Equal(v.Request.Parameters, map[string]string{"objects": "of the class", "keyvaultName": "of the pod",
		"secretProviderClass": "db", "csi.storage.k8s.io/ephemeral": "true"}) {
		t.Errorf("parameters %v", v.Request.Parameters)
	}

	w.class.LockParameters = true
	v = w.last(func(r *csi.NodePublishVolumeRequest) { // kubelet's own attributes are no override, and what looks like one is none
		r.VolumeContext["csi.storage.k8s.io/anything"] = "of the pod"
	})
	if !maps.Equal(v.Request.Parameters, map[string]string{"objects": "of the class", "keyvaultName": "kv",
		"secretProviderClass": "db", "csi.storage.k8s.io/ephemeral": "true"}) {
		t.Errorf("parameters of a locked class %v", v.Request.Parameters)
	}
	err := w.publish(func(r *csi.NodePublishVolumeRequest) { r.VolumeContext["keyvaultName"] = "of the pod" })
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "keyvaultName") || !strings.Contains(err.Error(), "shop/db") {
		t.Errorf("got %v", err)
	}
}

// Tokens come in the secrets or the volume context; where both are, what no Secret can hold counts.
func TestTokens(t *testing.T) {
	t.Attr("conformance", "12.8/tokens-in-secrets")
	const key = "csi.storage.k8s.io/serviceAccount.tokens"
	w := newWorld(t)
	v := w.last(func(r *csi.NodePublishVolumeRequest) { r.VolumeContext[key] = "context" })
	if _, there := v.Request.Parameters[key]; there || len(v.Request.Tokens) != 1 {
		t.Errorf("parameters %v, tokens %v", v.Request.Parameters, v.Request.Tokens)
	}
	v = w.last(func(r *csi.NodePublishVolumeRequest) {
		r.VolumeContext[key] = "context"
		r.Secrets = map[string]string{key: "secrets"}
	})
	if v.Request.Secrets != nil {
		t.Errorf("the tokens are among the secrets: %d", len(v.Request.Secrets))
	}
	pod := provider.Pod{Namespace: "shop", Name: "web-1", UID: "uid-1", ServiceAccount: "reader"}
	if len(w.proofs) != 2 || w.proofs[0] != (proof{pod, "context", token.InVolumeContext}) || w.proofs[1] != (proof{pod, "secrets", token.InSecrets}) {
		t.Errorf("proofs asked for: %+v", w.proofs)
	}
}

// Kubelet calls for every volume about once a minute: as long as nothing is due, no token is read and nobody is asked.
func TestNothingDueCostsNothing(t *testing.T) {
	w := newWorld(t, func(c *node.Config) { c.AccountAnnotations = []string{"azure.workload.identity/client-id"} })
	w.resting = true
	w.last(func(r *csi.NodePublishVolumeRequest) {
		r.VolumeContext["csi.storage.k8s.io/serviceAccount.tokens"] = "context"
	})
	if len(w.proofs) > 0 || w.accountReads > 0 {
		t.Errorf("%d proofs asked for, %d accounts read", len(w.proofs), w.accountReads)
	}
}

func TestAccountAnnotations(t *testing.T) {
	w := newWorld(t, func(c *node.Config) { c.AccountAnnotations = []string{"azure.workload.identity/client-id", "other"} })
	if v := w.last(nil); v.Request.Parameters[node.AccountAnnotations] != "" {
		t.Errorf("annotations %q of an account that has none", v.Request.Parameters[node.AccountAnnotations])
	}
	w.accounts = map[string]map[string]string{"shop/reader": {"azure.workload.identity/client-id": "c", "secret": "x"}}
	if v := w.last(nil); v.Request.Parameters[node.AccountAnnotations] != `{"azure.workload.identity/client-id":"c"}` {
		t.Errorf("annotations %q", v.Request.Parameters[node.AccountAnnotations])
	}
	// Without the right, what does not need annotations is served; an API server that is away is another matter.
	w.refused = &provider.Error{Kind: provider.Denied, Message: "reading annotations"}
	if v := w.last(nil); v.Request.Parameters[node.AccountAnnotations] != "" {
		t.Errorf("annotations %q without the right", v.Request.Parameters[node.AccountAnnotations])
	}
	w.refused = &provider.Error{Kind: provider.Unavailable, Message: "reading annotations"}
	if err := w.publish(nil); err == nil || !strings.Contains(err.Error(), "reading annotations") {
		t.Errorf("got %v", err)
	}
}

// When a volume is refreshed: by flag, by class, never faster than the flag's bound, and not at all without rotation.
func TestRotation(t *testing.T) {
	for _, tc := range []struct {
		name      string
		interval  time.Duration // by flag
		class     time.Duration
		wantOnce  bool
		wantEvery time.Duration
	}{
		{"by flag", 2 * time.Minute, 0, false, 2 * time.Minute},
		{"by class, shorter", 2 * time.Minute, 45 * time.Second, false, 45 * time.Second},
		{"by class, longer", 2 * time.Minute, time.Hour, false, time.Hour},
		{"by class, too short", 2 * time.Minute, time.Second, false, 30 * time.Second},
		{"off", 0, 0, true, 0},
		{"off, whatever the class says", 0, time.Minute, true, time.Minute},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, func(c *node.Config) { c.Rotation.Interval = tc.interval })
			w.class.RotationPollInterval, w.class.Refresh = tc.class, "now"
			v := w.last(nil)
			if v.Once != tc.wantOnce || v.Due != (publish.Due{Every: tc.wantEvery, Mark: "now"}) {
				t.Errorf("once %v, due %+v", v.Once, v.Due)
			}
			if warned := len(v.Warnings) > 0; warned != (tc.class > 0 && tc.class < 30*time.Second) {
				t.Errorf("warnings %q", v.Warnings)
			}
			if inUse := len(w.used) > 0; inUse == tc.wantOnce {
				t.Errorf("classes watched: %v", w.used)
			}
		})
	}
}

// Final codes exactly if nothing is left, whatever the cause.
func TestCodes(t *testing.T) {
	t.Attr("conformance", "2.6/final-when-undone")
	t.Attr("conformance", "2.6/non-final-when-left")
	t.Attr("conformance", "12.8/final-codes")
	kinds := map[provider.Kind]codes.Code{
		provider.Invalid: codes.InvalidArgument, provider.NotFound: codes.NotFound, provider.Denied: codes.PermissionDenied,
		provider.Throttled: codes.FailedPrecondition, provider.Unavailable: codes.FailedPrecondition, provider.Internal: codes.Internal,
	}
	isFinal := func(c codes.Code) bool {
		switch c {
		case codes.Canceled, codes.DeadlineExceeded, codes.Unavailable, codes.ResourceExhausted, codes.Aborted:
			return false
		}
		return true
	}
	w := newWorld(t)
	for kind, want := range kinds {
		cause := &provider.Error{Kind: kind, Message: "reading secret x", Remedy: "do y"}
		for state, wanted := range map[publish.State]codes.Code{publish.Undone: want, publish.Left: codes.Unavailable, publish.Kept: codes.OK} {
			t.Run(fmt.Sprint(kind, " ", state), func(t *testing.T) {
				w.outcome = func(publish.Volume) error { return stateError(state, cause) }
				err := w.publish(nil)
				got := status.Code(err)
				if got != wanted || (state == publish.Left) == isFinal(got) && state != publish.Kept {
					t.Errorf("got %v, want %v", got, wanted)
				}
				if err != nil && !strings.Contains(err.Error(), "reading secret x (do y)") {
					t.Errorf("text %v", err)
				}
			})
		}
	}
	for cause, want := range map[error]codes.Code{context.DeadlineExceeded: codes.DeadlineExceeded, context.Canceled: codes.Canceled} {
		w.outcome = func(publish.Volume) error {
			return stateError(publish.Left, &provider.Error{Kind: provider.Unavailable, Message: "waiting", Cause: cause})
		}
		if got := status.Code(w.publish(nil)); got != want {
			t.Errorf("%v gives %v", cause, got)
		}
	}
	w.outcome = func(publish.Volume) error {
		return stateError(publish.Undone, errors.New(strings.Repeat("ä\xff", 1<<20)))
	}
	if err := w.publish(nil); status.Code(err) != codes.Internal || len(err.Error()) > 5000 {
		t.Errorf("a text of megabytes gives %d bytes of %v", len(err.Error()), status.Code(err))
	}
}

func TestClassErrors(t *testing.T) {
	t.Attr("conformance", "12.6/class-not-found")
	t.Attr("conformance", "12.6/class-incomplete")
	w := newWorld(t)
	w.lookup = &provider.Error{Kind: provider.NotFound, Message: `failed to get secretproviderclass shop/db, error: not found`}
	if err := w.publish(nil); status.Code(err) != codes.NotFound || !strings.Contains(err.Error(), "failed to get secretproviderclass shop/db, error: not found") {
		t.Errorf("got %v", err)
	}
	w.lookup = nil
	w.class.Provider = ""
	if err := w.publish(nil); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "provider not set in shop/db") {
		t.Errorf("got %v", err)
	}
	w.class.Provider, w.class.Parameters = "azure", nil
	if err := w.publish(nil); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "parameters not set in shop/db") {
		t.Errorf("got %v", err)
	}
}

// A defect ends one call, not the process, and is not final: something may be left.
func TestPanic(t *testing.T) {
	w := newWorld(t)
	w.outcome = func(publish.Volume) error { panic("hunter2") }
	err := w.publish(nil)
	if status.Code(err) != codes.Unavailable || strings.Contains(err.Error(), "hunter2") || strings.Contains(w.log.String(), "hunter2") {
		t.Errorf("got %v", err)
	}
}

// Nothing that a request brings in confidence is logged, at whatever level.
func TestLogsHoldNoSecret(t *testing.T) {
	w := newWorld(t)
	w.last(func(r *csi.NodePublishVolumeRequest) {
		r.Secrets = map[string]string{"clientsecret": "hunter2", "csi.storage.k8s.io/serviceAccount.tokens": "hunter2"}
		r.VolumeContext["csi.storage.k8s.io/serviceAccount.tokens"] = "hunter2"
		r.VolumeContext["password"] = "hunter2"
	})
	if log := w.log.String(); strings.Contains(log, "hunter2") || !strings.Contains(log, "call done") || !strings.Contains(log, "password") {
		t.Errorf("logged: %s", log)
	}
}

func TestIdentityAndCapabilities(t *testing.T) {
	t.Attr("conformance", "12.2/csidriver-name")
	t.Attr("conformance", "12.8/fsgroup")
	t.Attr("conformance", "12.8/no-staging")
	w := newWorld(t)
	info, err := w.GetPluginInfo(t.Context(), &csi.GetPluginInfoRequest{})
	if err != nil || info.Name != "secrets-store.csi.k8s.io" || info.VendorVersion != "v1" {
		t.Errorf("%v, %v", info, err)
	}
	caps, err := w.GetPluginCapabilities(t.Context(), &csi.GetPluginCapabilitiesRequest{})
	if err != nil || len(caps.Capabilities) != 0 {
		t.Errorf("%v, %v", caps, err)
	}
	if _, err := w.Probe(t.Context(), &csi.ProbeRequest{}); err != nil {
		t.Error(err)
	}
	self, err := w.NodeGetInfo(t.Context(), &csi.NodeGetInfoRequest{})
	if err != nil || self.NodeId != "node-1" || self.AccessibleTopology != nil || self.MaxVolumesPerNode != 0 {
		t.Errorf("%v, %v", self, err)
	}
	has, err := w.NodeGetCapabilities(t.Context(), &csi.NodeGetCapabilitiesRequest{})
	if err != nil || len(has.Capabilities) != 1 || has.Capabilities[0].GetRpc().GetType() != csi.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP {
		t.Errorf("%v, %v", has, err)
	}
	for name, call := range map[string]func() error{
		"expand": func() error { _, err := w.NodeExpandVolume(t.Context(), &csi.NodeExpandVolumeRequest{}); return err },
		"stats": func() error {
			_, err := w.NodeGetVolumeStats(t.Context(), &csi.NodeGetVolumeStatsRequest{})
			return err
		},
	} {
		if status.Code(call()) != codes.Unimplemented {
			t.Errorf("%s: %v", name, call())
		}
	}
}
