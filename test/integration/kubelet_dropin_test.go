//go:build integration && linux

package integration

import (
	"context"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keymount/api/provider/v1alpha1"
	"keymount/test/integration/driver"
	"keymount/test/integration/kubelet"
)

func metaIn(ns string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: ns, GenerateName: "pod-"}
}

// tokensOf writes tokens by audience as kubelet hands them over.
func tokensOf(byAudience map[string]string) string {
	type token struct {
		Token               string    `json:"token"`
		ExpirationTimestamp time.Time `json:"expirationTimestamp"`
	}
	out := map[string]token{}
	for audience, text := range byAudience {
		out[audience] = token{text, time.Now().Add(time.Hour).UTC().Truncate(time.Second)}
	}
	text, err := json.Marshal(out)
	if err != nil {
		panic(err) // strings
	}
	return string(text)
}

// attributes are what a provider was asked, decoded as the providers do.
func attributes(t *testing.T, req *v1alpha1.MountRequest) (attributes, secrets map[string]string) {
	t.Helper()
	if err := json.Unmarshal([]byte(req.Attributes), &attributes); err != nil {
		t.Error(err)
	}
	if err := json.Unmarshal([]byte(req.Secrets), &secrets); err != nil {
		t.Error(err)
	}
	return attributes, secrets
}

// Refusals: upstream's texts, as people find them in a FailedMount, with codes that let kubelet clean up.
func TestRootRefusals(t *testing.T) {
	claim(t, "12.6/class-not-found", "12.6/provider-not-found", "12.6/readonly", "2.6/removes-after-final", "2.6/backoff")
	r := newNode(t, driver.Options{})
	r.driver.Start()
	r.register()
	r.class("nobody", "nobody", nil, "key: value")
	for _, tc := range []struct {
		name, class string
		change      func(*corev1.Pod)
		code        codes.Code
		want        []string
	}{
		{"no such class", "absent", nil, codes.NotFound,
			[]string{"failed to get secretproviderclass " + r.ns + "/absent, error: ", "not found"}},
		{"no such provider", "nobody", nil, codes.NotFound, []string{"failed to mount secrets store objects for pod " + r.ns + "/pod-",
			`error connecting to provider "nobody": provider not found: provider "nobody"`}},
		{"not read-only", "nobody", func(p *corev1.Pod) { p.Spec.Volumes[0].CSI.ReadOnly = nil }, codes.InvalidArgument,
			[]string{"Readonly is not true in request"}},
		{"no class named", "", nil, codes.InvalidArgument, []string{"secretProviderClass is not set"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var changes []func(*corev1.Pod)
			if tc.change != nil {
				changes = append(changes, tc.change)
			}
			v := r.volume(tc.class, changes...)
			for _, wait := range []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second} {
				err := v.Publish(t.Context())
				if kubelet.OutcomeOf(err) != kubelet.Final || kubelet.Code(err) != tc.code || v.Wait() != wait {
					t.Errorf("got %v of code %v, then a wait of %v", err, kubelet.Code(err), v.Wait())
				}
				for _, want := range tc.want {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("%q is not in %v", want, err)
					}
				}
				if _, err := os.Lstat(filepath.Dir(v.Target)); !os.IsNotExist(err) || v.State() != kubelet.NotMounted {
					t.Errorf("the volume is %s, its folder: %v", v.State(), err)
				}
			}
		})
	}
	if got := driver.Mounts(r.driver.Kubelet); len(got) > 0 {
		t.Errorf("mounted: %v", got)
	}
}

// Kubelet comes again for a volume that it is unsure of: after a restart of its own, and after an answer that was lost.
func TestRootKubeletComesAgain(t *testing.T) {
	claim(t, "2.6/retry-is-safe", "2.6/unpublish-again")
	r := newNode(t, driver.Options{})
	r.driver.Start()
	r.register()
	r.class("app", "other", nil, "key: value")
	p := r.provide(r.driver.Providers, "other")
	pod := api.Pod(t, &corev1.Pod{ObjectMeta: metaIn(r.ns), Spec: corev1.PodSpec{ServiceAccountName: "default", NodeName: driver.Node,
		Volumes: []corev1.Volume{kubelet.Inline("secrets", driver.Name, map[string]string{"secretProviderClass": "app"})}}})
	v, err := r.kubelet.Volume(pod, "secrets")
	if err != nil {
		t.Fatal(err)
	}
	r.mustPublish(v)
	mount, link := r.mountAt(v), dataLink(v)
	again, err := r.kubelet.Reconstruct(pod, "secrets")
	if err != nil {
		t.Fatal(err)
	}
	r.mustPublish(again)
	if again.State() != kubelet.Mounted || r.mountAt(v) != mount || dataLink(v) != link || len(p.asked()) != 1 {
		t.Errorf("the volume is %s, asked for %d times", again.State(), len(p.asked()))
	}
	r.mustUnpublish(again)
	client := csi.NewNodeClient(r.driver.Dial())
	for range 2 {
		if _, err := client.NodeUnpublishVolume(t.Context(), &csi.NodeUnpublishVolumeRequest{VolumeId: v.ID, TargetPath: v.Target}); err != nil {
			t.Error(err)
		}
	}
	if err := r.kubelet.CleanUp(pod); err != nil {
		t.Error(err)
	}
}

// Kubelet gives up on a call, or is restarted during it: the answer is lost, and what comes next finds nothing half done.
func TestRootAnswersThatAreLost(t *testing.T) {
	claim(t, "2.6/keeps-after-non-final", "2.6/retry-is-safe")
	r := newNode(t, driver.Options{})
	r.driver.Start()
	r.register()
	r.class("app", "other", nil, "key: value")
	p := r.provide(r.driver.Providers, "other")
	for name, next := range map[string]func(*rig, *kubelet.Volume){
		"the pod stays": func(r *rig, v *kubelet.Volume) {
			r.mustPublish(v)
			r.wantTree(v, map[string]string{"a": "a v1"})
			r.mountAt(v)
			r.mustUnpublish(v)
		},
		"the pod goes": func(r *rig, v *kubelet.Volume) { r.mustUnpublish(v) },
	} {
		t.Run(name, func(t *testing.T) {
			r := &rig{T: t, ns: r.ns, driver: r.driver, kubelet: r.kubelet}
			ctx, giveUp := context.WithCancel(t.Context())
			defer giveUp()
			p.do(func(ctx context.Context, _ *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
				giveUp()
				<-ctx.Done() // the driver does not go on for nobody
				return nil, ctx.Err()
			})
			v := r.volume("app")
			err := v.Publish(ctx)
			if kubelet.OutcomeOf(err) != kubelet.Uncertain || v.State() != kubelet.Unsure {
				t.Errorf("got %v, the volume is %s", err, v.State())
			}
			if _, err := os.Lstat(filepath.Dir(v.Target)); err != nil {
				t.Error(err)
			}
			p.say(content("v1", "a"))
			next(r, v)
			if got := driver.Mounts(r.driver.Kubelet); len(got) > 0 {
				t.Errorf("mounted: %v", got)
			}
		})
	}
}

// The pod's fsGroup owns the files; modes stay what the provider says.
func TestRootGroup(t *testing.T) {
	claim(t, "12.5/group", "12.5/modes", "12.5/tmpfs", "12.8/fsgroup")
	r := newNode(t, upstreamRotationOptions())
	r.driver.Start()
	r.register()
	r.class("app", "other", nil, "key: value")
	p := r.provide(r.driver.Providers, "other")
	p.say(join(object("sub/f", 0o440, "x", "f", "1"), object("g", 0o600, "x", "g", "1")))
	group := int64(2000)
	for _, want := range []*int64{&group, nil} {
		v := r.volume("app", func(p *corev1.Pod) { p.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: want} })
		r.mustPublish(v)
		r.mustRepublish(v)
		gid := uint32(0)
		if want != nil {
			gid = uint32(*want)
		}
		for _, name := range []string{"sub", "sub/f", "g"} {
			info, err := os.Stat(filepath.Join(v.Target, name))
			if err != nil {
				t.Fatal(err)
			}
			if st := info.Sys().(*syscall.Stat_t); st.Uid != 0 || st.Gid != gid {
				t.Errorf("%s belongs to %d:%d, want 0:%d", name, st.Uid, st.Gid, gid)
			}
		}
		wantMode(t, v.Target, "drwxr-xr-x")
		wantMode(t, filepath.Join(v.Target, "sub"), "drwxr-xr-x")
		wantMode(t, filepath.Join(v.Target, "sub/f"), "-r--r-----")
		wantMode(t, filepath.Join(v.Target, "g"), "-rw-------")
		if options := r.mountAt(v).options; !strings.Contains(options, "nosuid") || !strings.Contains(options, "nodev") || !strings.Contains(options, "size=") {
			t.Errorf("mounted with %s", options)
		}
		r.mustUnpublish(v)
	}
}

// Tokens reach a provider behind a socket under the same key whichever way kubelet hands them over, and only those that it
// may have.
func TestRootTokensForProviders(t *testing.T) {
	claim(t, "12.4/tokens", "12.4/attributes", "12.4/secrets", "12.8/tokens-in-secrets")
	args := []string{"--provider-audiences=vault=vault", "--service-account-annotations=azure.workload.identity/client-id"}
	r := newNode(t, driver.Options{Args: args})
	r.driver.Start()
	r.register()
	api.ServiceAccount(t, r.ns, "annotated", map[string]string{"azure.workload.identity/client-id": "id", "another": "secret"})
	api.ApplyText(t, "apiVersion: v1\nkind: Secret\nmetadata: {name: creds, namespace: "+r.ns+"}\nstringData: {user: me}\n")
	for _, tc := range []struct {
		name, object string
		inSecrets    bool
	}{
		{"volume context", ", tokenRequests: [{audience: vault}, {audience: aws}]", false},
		{"secrets", ", tokenRequests: [{audience: vault}, {audience: aws}], serviceAccountTokenInSecrets: true", true},
	} {
		applyCSIDriver(t, tc.object)
		for provider, audiences := range map[string][]string{"vault": {"vault"}, "aws": {"aws", "vault"}} {
			for _, secret := range []string{"", "creds"} {
				t.Run(tc.name+" to "+provider+" with "+secret, func(t *testing.T) {
					r := &rig{T: t, ns: r.ns, driver: r.driver, kubelet: r.kubelet}
					class := "class-of-" + provider
					r.class(class, provider, nil, "key: of the class", "keymount.dev/service-account-annotations: forged")
					p := r.provide(r.driver.Providers, provider)
					v := r.volume(class, func(p *corev1.Pod) {
						p.Spec.ServiceAccountName = "annotated"
						p.Spec.Volumes[0].CSI.VolumeAttributes["own"] = "of the pod"
						if secret != "" {
							withSecret(secret)(p)
						}
					})
					r.mustPublish(v)
					r.wantRequest(p.asked()[0], class, audiences, secret, tc.inSecrets)
					r.mustUnpublish(v)
				})
			}
		}
	}
	applyCSIDriver(t, "")
}

func (r *rig) wantRequest(req *v1alpha1.MountRequest, class string, audiences []string, secret string, inSecrets bool) {
	r.Helper()
	have, secrets := attributes(r.T, req)
	var byAudience map[string]struct{ Token, ExpirationTimestamp string }
	tokens := have[kubelet.TokensKey]
	if err := json.Unmarshal([]byte(tokens), &byAudience); err != nil {
		r.Errorf("tokens: %v", err)
	}
	if got := slices.Sorted(maps.Keys(byAudience)); !slices.Equal(got, audiences) || byAudience["vault"].Token == "" || byAudience["vault"].ExpirationTimestamp == "" {
		r.Errorf("tokens for %v, want %v", got, audiences)
	}
	for key, want := range map[string]string{"secretProviderClass": class, "csi.storage.k8s.io/ephemeral": "true",
		"csi.storage.k8s.io/pod.namespace": r.ns, "csi.storage.k8s.io/serviceAccount.name": "annotated", "key": "of the class", "own": "of the pod",
		"keymount.dev/service-account-annotations": `{"azure.workload.identity/client-id":"id"}`} {
		if have[key] != want {
			r.Errorf("attribute %s is %q, want %q", key, have[key], want)
		}
	}
	if have["csi.storage.k8s.io/pod.name"] == "" || have["csi.storage.k8s.io/pod.uid"] == "" || len(have) != 10 {
		r.Errorf("attributes are %v", slices.Sorted(maps.Keys(have)))
	}
	want := map[string]string{}
	if secret != "" {
		want["user"] = "me"
	}
	if inSecrets {
		want[kubelet.TokensKey] = tokens
	}
	if !maps.Equal(secrets, want) || len(want) == 0 && req.Secrets != "null" {
		r.Errorf("secrets have the keys %v, want %v", slices.Sorted(maps.Keys(secrets)), slices.Sorted(maps.Keys(want)))
	}
	if req.Permission != "420" || !strings.HasPrefix(req.TargetPath, r.driver.Kubelet+"/pods/") {
		r.Errorf("permission %q, target path %q", req.Permission, req.TargetPath)
	}
}
