//go:build integration && linux

package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	"keymount/internal/classes"
	"keymount/internal/provider"
	"keymount/test/integration/apiserver"
	"keymount/test/integration/await"
)

// A logs is what was logged.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

func (l *logs) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// background runs run until the test ends.
func background(t *testing.T, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// eventually waits for what the server tells by a watch.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	err := await.For(t.Context(), what, func(context.Context) error {
		if !ok() {
			return errors.New("not yet")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// asDriver makes a service account with upstream's rights for classes and for one CSIDriver object, and returns its name as a
// user and a configuration that acts as it.
func asDriver(t *testing.T, server *apiserver.Server, ns, csiDriver string) (user string, config *rest.Config) {
	t.Helper()
	server.ServiceAccount(t, ns, "driver", nil)
	server.ApplyText(t, fmt.Sprintf(`
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: %[1]s-driver}
rules:
- {apiGroups: [secrets-store.csi.x-k8s.io], resources: [secretproviderclasses], verbs: [get, list, watch]}
- {apiGroups: [storage.k8s.io], resources: [csidrivers], resourceNames: [%[2]s], verbs: [get, list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: %[1]s-driver}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: %[1]s-driver}
subjects: [{kind: ServiceAccount, name: driver, namespace: %[1]s}]
`, ns, csiDriver))
	return apiserver.User(ns, "driver"), server.ConfigFor(server.Token(t, ns, "driver").Token)
}

func class(ns, name, providerName string) string {
	return fmt.Sprintf(`
---
apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata: {name: %s, namespace: %s, annotations: {keymount.dev/rotation-poll-interval: 90s}}
spec: {provider: %s, parameters: {keyvaultName: kv}}
`, name, ns, providerName)
}

// It has a server of its own, since it begins without definitions and takes the server away.
func TestClasses(t *testing.T) {
	server := apiserver.Start(t)
	ns := server.Namespace(t)
	withoutDefinitions(t, server, ns)
	server.Apply(t, filepath.Join(repository, "api/crds/*.yaml"))
	withoutRights(t, server, ns)
	server.ApplyText(t, class(ns, "a", "azure"))
	user, config := asDriver(t, server, ns, "secrets-store.csi.k8s.io")
	said := &logs{}
	c, err := classes.New(classes.Config{API: config, Log: said.logger()})
	if err != nil {
		t.Fatal(err)
	}
	counts := func() map[string]int { return apiserver.Counts(server.Requests(t, user)) }
	const get, watch, list = "get secretproviderclasses.secrets-store.csi.x-k8s.io", "watch secretproviderclasses.secrets-store.csi.x-k8s.io",
		"list secretproviderclasses.secrets-store.csi.x-k8s.io"
	// kept says whether a look-up asks nobody.
	kept := func(name string) bool {
		before := counts()[get]
		c.Get(t.Context(), ns, name)
		return counts()[get] == before
	}
	background(t, c.Run)

	t.Run("first use", func(t *testing.T) {
		c.Use("vol-a", ns, "a")
		got, err := c.Get(t.Context(), ns, "a")
		if err != nil || got.Provider != "azure" || got.UID == "" || got.Generation != 1 || got.RotationPollInterval.Seconds() != 90 {
			t.Fatalf("got %+v, %v", got, err)
		}
		eventually(t, "the watch", func() bool { return kept("a") })
		if n := counts(); n[list] != 0 || n[watch] != 1 {
			t.Errorf("requests are %v, want one watch and no list", n)
		}
		for _, r := range server.Requests(t, user) {
			if r.Verb == "watch" && !strings.Contains(r.URI, "fieldSelector=metadata.name%3Da") {
				t.Errorf("a watch is not by name: %s", r.URI)
			}
		}
	})

	t.Run("change, deletion, and being made again", func(t *testing.T) {
		reads := counts()[get]
		server.ApplyText(t, class(ns, "a", "gcp"))
		eventually(t, "the change", func() bool {
			got, err := c.Get(t.Context(), ns, "a")
			return err == nil && got.Provider == "gcp" && got.Generation == 2
		})
		resource := server.Client().Resource(schema.GroupVersionResource{Group: "secrets-store.csi.x-k8s.io", Version: "v1", Resource: "secretproviderclasses"})
		if err := resource.Namespace(ns).Delete(t.Context(), "a", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the deletion", func() bool { _, err := c.Get(t.Context(), ns, "a"); return err != nil })
		_, kept := c.Get(t.Context(), ns, "a")
		_, live := c.Get(t.Context(), ns, "b")
		for name, err := range map[string]error{"a": kept, "b": live} {
			want := fmt.Sprintf(`failed to get secretproviderclass %s/%s, error: secretproviderclasses.secrets-store.csi.x-k8s.io %q not found`, ns, name, name)
			if provider.KindOf(err) != provider.NotFound || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("got %v, want %s", err, want)
			}
		}
		server.ApplyText(t, class(ns, "a", "azure"))
		eventually(t, "the new class", func() bool { _, err := c.Get(t.Context(), ns, "a"); return err == nil })
		if n := counts()[get] - reads; n != 1 {
			t.Errorf("%d reads, want the one of the class that nobody uses", n)
		}
	})

	t.Run("outage", func(t *testing.T) {
		server.Refuse()
		eventually(t, "the outage to be noticed", func() bool { return said.count("does not work") == 1 })
		if got, err := c.Get(t.Context(), ns, "a"); err != nil || got.Provider != "azure" {
			t.Errorf("the last known state is not served: %v", err)
		}
		_, err := c.Get(t.Context(), ns, "b")
		if provider.KindOf(err) != provider.Unavailable || !strings.HasPrefix(err.Error(), "failed to get secretproviderclass "+ns+"/b, error: ") {
			t.Errorf("without a state: %v", err)
		}
		if err := server.Restore(); err != nil {
			t.Fatal(err)
		}
		server.ApplyText(t, class(ns, "a", "vault"))
		eventually(t, "the change", func() bool { got, err := c.Get(t.Context(), ns, "a"); return err == nil && got.Provider == "vault" })
		eventually(t, "the watch", func() bool { return kept("a") })
		if said.count("works again") != 1 {
			t.Error("the end of the outage was not said")
		}
	})

	t.Run("a namespace of many classes", func(t *testing.T) {
		var text strings.Builder
		for i := range 60 {
			text.WriteString(class(ns, fmt.Sprintf("many-%d", i), "azure"))
		}
		server.ApplyText(t, text.String())
		before := counts()[watch]
		for i := range 60 {
			c.Use(fmt.Sprintf("vol-%d", i), ns, fmt.Sprintf("many-%d", i))
		}
		for i := range 60 {
			eventually(t, "the watch", func() bool { return kept(fmt.Sprintf("many-%d", i)) })
		}
		requests := server.Requests(t, user)
		if last := requests[len(requests)-1]; counts()[watch]-before > 62 {
			t.Errorf("%d watches, the last is %v", counts()[watch]-before, last)
		}
		server.ApplyText(t, class(ns, "many-59", "gcp"))
		eventually(t, "the change", func() bool { got, err := c.Get(t.Context(), ns, "many-59"); return err == nil && got.Provider == "gcp" })
	})

	t.Run("a server that serves the old version only", func(t *testing.T) {
		stopServing(t, server, "v1")
		eventually(t, "v1 to be gone", func() bool { // the server stops to serve it a moment after it was told to
			said := &logs{}
			c, err := classes.New(classes.Config{API: config, Log: said.logger()})
			if err != nil {
				t.Fatal(err)
			}
			got, err := c.Get(t.Context(), ns, "many-1")
			return err == nil && got.Provider == "azure" && said.count("v1alpha1 only") == 1
		})
		server.ApplyText(t, strings.ReplaceAll(class(ns, "many-1", "gcp"), "x-k8s.io/v1", "x-k8s.io/v1alpha1"))
		eventually(t, "the change", func() bool { got, err := c.Get(t.Context(), ns, "many-1"); return err == nil && got.Provider == "gcp" })
		eventually(t, "the watch", func() bool { return kept("many-1") })
	})

	if refused := server.Forbidden(t, user); len(refused) > 0 {
		t.Errorf("upstream's rights do not cover %v", refused)
	}
}

// stopServing takes a version of SecretProviderClass out of service.
func stopServing(t *testing.T, server *apiserver.Server, version string) {
	t.Helper()
	definitions := server.Client().Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	crd, err := definitions.Get(t.Context(), "secretproviderclasses.secrets-store.csi.x-k8s.io", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	versions, _, err := unstructured.NestedSlice(crd.Object, "spec", "versions")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range versions {
		if v := v.(map[string]any); v["name"] == version {
			v["served"] = false
		}
	}
	if err := unstructured.SetNestedSlice(crd.Object, versions, "spec", "versions"); err != nil {
		t.Fatal(err)
	}
	if _, err := definitions.Update(t.Context(), crd, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// look looks a class up that cannot be had, and returns why.
func look(t *testing.T, config *rest.Config, ns string) error {
	t.Helper()
	c, err := classes.New(classes.Config{API: config})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Get(t.Context(), ns, "a")
	return err
}

func withoutDefinitions(t *testing.T, server *apiserver.Server, ns string) {
	t.Helper()
	if err := look(t, server.Admin(), ns); provider.KindOf(err) != provider.NotFound || !strings.Contains(err.Error(), "install the definitions") {
		t.Errorf("without definitions: %v", err)
	}
}

func withoutRights(t *testing.T, server *apiserver.Server, ns string) {
	t.Helper()
	err := look(t, server.ConfigFor(server.Token(t, ns, "default").Token), ns)
	if provider.KindOf(err) != provider.Denied || !strings.Contains(err.Error(), "secretproviderclasses-role") ||
		!strings.Contains(err.Error(), "cannot get resource") {
		t.Errorf("without rights: %v", err)
	}
}
