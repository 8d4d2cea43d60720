//go:build integration && linux

package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"keymount/api/provider/v1alpha1"
	"keymount/test/integration/kubelet"
)

// An awsStore answers as the AWS provider does by default: it writes the files itself, by a rename each, and answers with
// versions only. What it is told is mounted at the newest version, it reads back from the volume rather than fetch it.
type awsStore struct {
	mu      sync.Mutex
	values  map[string]string
	fetched int
	reread  int
}

func (s *awsStore) put(name, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values[name] = value
}

func (s *awsStore) mount(_ context.Context, req *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
	var attributes map[string]string
	if err := json.Unmarshal([]byte(req.Attributes), &attributes); err != nil {
		return nil, err
	}
	if attributes["csi.storage.k8s.io/pod.namespace"] == "" || attributes["csi.storage.k8s.io/serviceAccount.name"] == "" || req.TargetPath == "" {
		return nil, errors.New("namespace, service account or target path is missing")
	}
	var mode os.FileMode
	if err := json.Unmarshal([]byte(req.Permission), &mode); err != nil || mode != 0o644 {
		return nil, fmt.Errorf("failed to unmarshal file permission %q: %v", req.Permission, err)
	}
	current := map[string]string{}
	for _, o := range req.CurrentObjectVersion {
		current[o.Id] = o.Version
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, value := range s.values {
		if current[name] == "of "+value {
			s.reread++
			if _, err := os.ReadFile(filepath.Join(req.TargetPath, name)); err != nil {
				return nil, fmt.Errorf("Failed to fetch secret from all regions: %v", err)
			}
			continue
		}
		s.fetched++
		if err := writeOwn(req.TargetPath, name, value); err != nil {
			return nil, err
		}
	}
	return s.versionsLocked(), nil
}

func (s *awsStore) versions() *v1alpha1.MountResponse {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.versionsLocked()
}

func (s *awsStore) versionsLocked() *v1alpha1.MountResponse {
	resp := &v1alpha1.MountResponse{}
	for name, value := range s.values {
		resp.ObjectVersion = append(resp.ObjectVersion, &v1alpha1.ObjectVersion{Id: name, Version: "of " + value})
	}
	return resp
}

// writeOwn replaces a file as a provider does.
func writeOwn(target, name, value string) error {
	temp, err := os.CreateTemp(target, name)
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	_, err = temp.WriteString(value)
	if err := errors.Join(err, temp.Chmod(0o644), temp.Close()); err != nil {
		return err
	}
	return os.Rename(temp.Name(), filepath.Join(target, name))
}

func TestRootAWSWritesItself(t *testing.T) {
	claim(t, "12.4/files-absent", "12.4/current-versions", "12.4/target-path")
	r := newNode(t, upstreamRotationOptions())
	r.driver.Start()
	r.register()
	r.class("app", "aws", nil, "objects: some")
	store := &awsStore{values: map[string]string{"a": "one", "b": "two"}}
	r.provide(r.driver.Providers, "aws").do(store.mount)
	v := r.volume("app")
	r.mustPublish(v)
	r.wantTree(v, store.values)
	wantMode(t, filepath.Join(v.Target, "a"), "-rw-r--r--")
	r.mustRepublish(v)
	if store.fetched != 2 || store.reread != 2 {
		t.Errorf("fetched %d and read back %d: the provider is told what is there on a refresh, and not before", store.fetched, store.reread)
	}
	store.put("a", "three")
	r.mustRepublish(v)
	r.wantTree(v, store.values)
	if store.fetched != 3 {
		t.Errorf("%d values were fetched", store.fetched)
	}
	// Without a file that is said to be there the provider fails for ever: a volume that was mounted anew holds nothing.
	r.mustUnpublish(v)
	r.mustPublish(v)
	r.wantTree(v, store.values)
	if store.fetched != 5 {
		t.Errorf("%d values were fetched", store.fetched)
	}
	r.mustUnpublish(v)
}

// A step is what a provider answers from now on, and what a volume then holds and its status lists.
type step struct {
	answer  func(*v1alpha1.MountRequest) (*v1alpha1.MountResponse, error)
	files   map[string]string
	objects string
}

func answers(resp *v1alpha1.MountResponse) func(*v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
	return func(*v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) { return resp, nil }
}

// object is one file and its object.
func object(path string, mode int32, text, id, version string) *v1alpha1.MountResponse {
	return &v1alpha1.MountResponse{Files: []*v1alpha1.File{{Path: path, Mode: mode, Contents: []byte(text)}},
		ObjectVersion: []*v1alpha1.ObjectVersion{{Id: id, Version: version}}}
}

// join makes one answer of several.
func join(all ...*v1alpha1.MountResponse) *v1alpha1.MountResponse {
	resp := &v1alpha1.MountResponse{}
	for _, one := range all {
		resp.Files = append(resp.Files, one.Files...)
		resp.ObjectVersion = append(resp.ObjectVersion, one.ObjectVersion...)
	}
	return resp
}

// Each row is one real provider's habits: the first step is the first mount, the others are refreshes.
func TestRootProvidersHabits(t *testing.T) {
	r := newNode(t, upstreamRotationOptions())
	r.driver.Start()
	r.register()
	const secret = "projects/1/secrets/db/versions/"
	for _, tc := range []struct {
		name, provider string
		rows           []string
		parameter      string
		steps          []step
		check          func(*testing.T, *kubelet.Volume)
	}{
		{"AWS, no objects", "aws", []string{"12.4/nothing-at-all"}, "objects: \"[]\"", []step{
			{answers(&v1alpha1.MountResponse{}), map[string]string{}, ""},
			{answers(&v1alpha1.MountResponse{}), map[string]string{}, ""},
		}, nil},
		{"AWS, the driver writes", "aws", []string{"12.4/replace-all"}, "objects: some", []step{
			{answers(content("1", "a", "b")), map[string]string{"a": "a 1", "b": "b 1"}, "secret/a=1 secret/b=1"},
			{answers(content("2", "b", "c")), map[string]string{"b": "b 2", "c": "c 2"}, "secret/b=2 secret/c=2"},
			{answers(&v1alpha1.MountResponse{}), map[string]string{}, ""}, // the last object is gone
		}, nil},
		{"Vault", "vault", []string{"12.4/nested-paths", "12.4/empty-version"}, "objects: some", []step{
			{answers(join(object("sub/pass", 0o600, "one", "pass", ""), object("top", 0o600, "x", "top", ""))),
				map[string]string{"sub/pass": "one", "top": "x"}, "pass= top="},
			// The versions cannot tell that the content is another one.
			{answers(join(object("sub/pass", 0o600, "two", "pass", ""), object("top", 0o600, "x", "top", ""))),
				map[string]string{"sub/pass": "two", "top": "x"}, "pass= top="},
		}, func(t *testing.T, v *kubelet.Volume) {
			wantMode(t, filepath.Join(v.Target, "sub"), "drwxr-xr-x")
			wantMode(t, filepath.Join(v.Target, "sub/pass"), "-rw-------")
		}},
		{"GCP", "gcp", []string{"12.4/duplicate-ids"}, "secrets: some", []step{
			{gcp(object("good1.txt", 0o644, "x", secret+"latest", secret+"1"), object("good2.txt", 0o400, "x", secret+"latest", secret+"1")),
				map[string]string{"good1.txt": "x", "good2.txt": "x"}, secret + "latest=" + secret + "1"},
			{gcp(object("good1.txt", 0o644, "y", secret+"latest", secret+"2"), object("good2.txt", 0o400, "y", secret+"latest", secret+"2")),
				map[string]string{"good1.txt": "y", "good2.txt": "y"}, secret + "latest=" + secret + "2"},
		}, nil},
		{"Infisical", "infisical", []string{"12.4/empty-files"}, "secrets: some", []step{
			{answers(object("token", 0o644, "x", "token", "1")), map[string]string{"token": "x"}, "token=1"},
			{answers(object("token", 0o644, "", "token", "1")), map[string]string{"token": ""}, "token=1"}, // its window is over
		}, nil},
		{"mode 0", "e2e", []string{"12.4/mode-0"}, "objects: some", []step{
			{answers(object("f", 0, "x", "f", "1")), map[string]string{"f": "x"}, "f=1"},
		}, func(t *testing.T, v *kubelet.Volume) { wantMode(t, filepath.Join(v.Target, "f"), "----------") }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			claim(t, tc.rows...)
			r := r.sub(t)
			r.class("app", tc.provider, nil, tc.parameter)
			p := r.provide(r.driver.Providers, tc.provider)
			v := r.volume("app")
			for i, s := range tc.steps {
				p.do(func(_ context.Context, req *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
					return s.answer(req)
				})
				if i == 0 {
					r.mustPublish(v)
				} else {
					r.mustRepublish(v)
				}
				r.wantTree(v, s.files)
				if got := objectsIn(r.onlyStatus()); got != s.objects {
					t.Errorf("step %d: the status lists %q, want %q", i, got, s.objects)
				}
			}
			if asked := len(p.asked()); asked != len(tc.steps) {
				t.Errorf("asked %d times in %d steps", asked, len(tc.steps))
			}
			if tc.check != nil {
				tc.check(t, v)
			}
			r.mustUnpublish(v)
		})
	}
}

// gcp answers if the permission parses as GCP's provider parses it.
func gcp(all ...*v1alpha1.MountResponse) func(*v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
	return func(req *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
		if mode, err := strconv.ParseUint(req.Permission, 10, 32); err != nil || mode != 0o644 {
			return nil, fmt.Errorf("unable to parse permissions %q: %v", req.Permission, err)
		}
		return join(all...), nil
	}
}

// Other providers' codes mean nothing: a first mount fails finally and leaves nothing, whatever they are, and a volume in
// use keeps its files.
func TestRootProvidersErrors(t *testing.T) {
	claim(t, "2.6/final-when-undone", "2.6/removes-after-final", "2.6/republish-failure", "12.8/final-codes", "12.6/events-of-rotation")
	r := newNode(t, upstreamRotationOptions())
	r.driver.Start()
	r.register()
	gcpError, err := status.New(codes.Internal, "gcp: 2 of 3 failed").WithDetails(&errdetails.ErrorInfo{Domain: "googleapis.com", Reason: "denied"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name   string
		answer func(*v1alpha1.MountRequest) (*v1alpha1.MountResponse, error)
		text   string
		metric string
	}{
		{"unknown", failing(errors.New("aws: AccessDenied")), "aws: AccessDenied", "GRPCProviderError"},
		{"internal", failing(gcpError.Err()), "gcp: 2 of 3 failed", "GRPCProviderError"},
		{"unavailable", failing(status.Error(codes.Unavailable, "later")), "later", "GRPCProviderError"},
		{"exhausted", failing(status.Error(codes.ResourceExhausted, "slowly")), "slowly", "GRPCProviderError"},
		{"deadline", failing(status.Error(codes.DeadlineExceeded, "late")), "late", "GRPCProviderError"},
		{"aborted", failing(status.Error(codes.Aborted, "stopped")), "stopped", "GRPCProviderError"},
		{"code", answers(&v1alpha1.MountResponse{Error: &v1alpha1.Error{Code: "E42"}}), "mount request failed with provider error code E42", "E42"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.name == "code" {
				claim(t, "12.4/error-code")
			}
			r := r.sub(t)
			name := "p" + tc.name
			r.class("app", name, nil, "key: value")
			p := r.provide(r.driver.Providers, name)
			v := r.volume("app")
			p.do(func(_ context.Context, req *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
				return tc.answer(req)
			})
			err := v.Publish(t.Context())
			want := "failed to mount secrets store objects for pod " + r.ns + "/pod-"
			if kubelet.OutcomeOf(err) != kubelet.Final || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("got %v, want a final error with %q and %q", err, want, tc.text)
			}
			if _, err := os.Lstat(filepath.Dir(v.Target)); !os.IsNotExist(err) || v.State() != kubelet.NotMounted {
				t.Errorf("the volume is %s, its folder: %v", v.State(), err)
			}
			r.wantMetric(fmt.Sprintf(`node_publish_error_total{error_type=%q,os_type="linux",provider=%q} 1`, tc.metric, name))
			r.awaitEvent("Warning FailedToMountSecrets: ")
			p.say(content("1", "a"))
			r.mustPublish(v)
			p.do(func(_ context.Context, req *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
				return tc.answer(req)
			})
			r.mustRepublish(v)
			r.wantTree(v, map[string]string{"a": "a 1"})
			r.awaitEvent("Warning MountRotationFailed: ")
			if !slices.ContainsFunc(r.events(), func(e string) bool { return strings.Contains(e, tc.text) }) {
				t.Errorf("no Event says why: %q", r.events())
			}
			r.mustUnpublish(v)
		})
	}
}

func failing(err error) func(*v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
	return func(*v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) { return nil, err }
}
