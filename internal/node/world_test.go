package node_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

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
