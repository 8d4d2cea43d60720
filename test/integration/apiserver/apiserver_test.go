//go:build integration && linux

package apiserver

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"keymount/test/integration/await"
)

// startAndWait, in the environment, makes the test binary a program that starts a server and waits for its end.
const startAndWait = "KEYMOUNT_TEST_START_AND_WAIT"

var server *Server // set once, by TestMain

func TestMain(m *testing.M) {
	if os.Getenv(startAndWait) != "" {
		startAndWaitForKill()
	}
	os.Exit(Main(m, func(s *Server) { server = s }))
}

func startAndWaitForKill() {
	s, err := New(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(s.dir)
	for _, p := range s.processes {
		fmt.Println(p.cmd.Process.Pid)
	}
	fmt.Println("ready")
	select {}
}

var (
	pods       = corev1.SchemeGroupVersion.WithResource("pods")
	secrets    = corev1.SchemeGroupVersion.WithResource("secrets")
	configMaps = corev1.SchemeGroupVersion.WithResource("configmaps")
	classes    = schema.GroupVersionResource{Group: "secrets-store.csi.x-k8s.io", Version: "v1", Resource: "secretproviderclasses"}
)

func client(t *testing.T, config *rest.Config) dynamic.Interface {
	t.Helper()
	c, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestIsTheVersionThatIsPinned(t *testing.T) {
	if os.Getenv("KUBEBUILDER_ASSETS") != "" {
		t.Log("KUBEBUILDER_ASSETS decides the version")
		return
	}
	version, err := server.discovery.ServerVersion()
	if err != nil || version.GitVersion != "v1.37.2" || version.Major != "1" || version.Minor != "37" {
		t.Errorf("got %+v, %v", version, err)
	}
}

func TestDefinitionsAreServedOnceApplied(t *testing.T) {
	applied := server.Apply(t, "../../../api/crds/*.yaml")
	if len(applied) < 2 {
		t.Fatalf("%d objects applied, want the definitions of two kinds at least", len(applied))
	}
	ns := server.Namespace(t)
	server.ApplyText(t, `
# a comment that is no object
---
apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata: {name: one, namespace: `+ns+`}
spec: {provider: azure, parameters: {keyvaultName: kv}}
---
apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata: {name: two, namespace: `+ns+`}
spec: {provider: azure, parameters: {keyvaultName: kv}}
`)
	list, err := server.Client().Resource(classes).Namespace(ns).List(t.Context(), metav1.ListOptions{})
	if err != nil || len(list.Items) != 2 {
		t.Errorf("got %v, %v; want the two classes", list, err)
	}
}

// reader makes a service account that may read config maps of its namespace, and nothing else.
func reader(t *testing.T) (ns string, config *rest.Config) {
	t.Helper()
	ns = server.Namespace(t)
	server.ServiceAccount(t, ns, "reader", nil)
	server.ApplyText(t, `
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader, namespace: `+ns+`}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{kind: ServiceAccount, name: reader, namespace: `+ns+`}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader, namespace: `+ns+`}
rules: [{apiGroups: [""], resources: [configmaps], verbs: [list, get, watch]}]
`)
	return ns, server.ConfigFor(server.Token(t, ns, "reader").Token)
}

func TestAServiceAccountHasTheRightsAppliedAndNoOthers(t *testing.T) {
	ns, config := reader(t)
	c := client(t, config)
	if _, err := c.Resource(configMaps).Namespace(ns).List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Errorf("what the role allows: %v", err)
	}
	if got := server.Forbidden(t, User(ns, "reader")); len(got) > 0 {
		t.Errorf("refused so far: %v", got)
	}
	if _, err := c.Resource(secrets).Namespace(ns).Get(t.Context(), "x", metav1.GetOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("what the role does not allow: %v", err)
	}
	got := server.Forbidden(t, User(ns, "reader"))
	if len(got) != 1 || got[0].Verb != "get" || got[0].Resource != "secrets" || got[0].Namespace != ns || got[0].Name != "x" {
		t.Errorf("refused: %v", got)
	}
}

func TestRequestsAreCounted(t *testing.T) {
	ns, config := reader(t)
	c, user := client(t, config), User(ns, "reader")
	get := func() {
		t.Helper()
		if _, err := c.Resource(configMaps).Namespace(ns).Get(t.Context(), "none", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Fatal(err)
		}
	}
	get()
	before := len(server.Requests(t, user))
	get()
	get()
	watch, err := c.Resource(configMaps).Namespace(ns).Watch(t.Context(), metav1.ListOptions{FieldSelector: "metadata.name=this"})
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Stop()
	since := server.Requests(t, user)[before:]
	want := map[string]int{"get configmaps": 2, "watch configmaps": 1}
	if got := Counts(since); before != 1 || !maps.Equal(got, want) {
		t.Errorf("%d before and then %v, want 1 and %v", before, got, want)
	}
	if uri := since[2].URI; !strings.Contains(uri, "fieldSelector=metadata.name%3Dthis") {
		t.Errorf("the watch's URI %s has no selector", uri)
	}
	group := server.ConfigFor(server.Token(t, ns, "reader").Token)
	_, _ = client(t, group).Resource(classes).Namespace(ns).List(t.Context(), metav1.ListOptions{}) // refused, and counted
	all := server.Requests(t, user)
	if last := all[len(all)-1]; last.Resource != "secretproviderclasses.secrets-store.csi.x-k8s.io" {
		t.Errorf("the last request is %+v", last)
	}
}

func TestTokensAreBoundToPods(t *testing.T) {
	ns := server.Namespace(t)
	pod := server.Pod(t, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns}})
	status := server.Token(t, ns, "default", BoundTo(pod), ForAudiences("vault", "other"), ForSeconds(601))
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(status.Token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims struct {
		Iss, Sub   string
		Aud        []string
		Iat, Exp   int64
		Kubernetes struct {
			Pod struct{ Name, UID string }
		} `json:"kubernetes.io"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	if claims.Iss != Issuer || claims.Sub != User(ns, "default") || strings.Join(claims.Aud, " ") != "vault other" ||
		claims.Kubernetes.Pod.Name != pod.Name || claims.Kubernetes.Pod.UID != string(pod.UID) || claims.Exp-claims.Iat != 601 {
		t.Errorf("the claims are %s", payload)
	}
}

func TestKubeconfigNamesTheServiceAccount(t *testing.T) {
	ns, _ := reader(t)
	config, err := clientcmd.BuildConfigFromFlags("", server.Kubeconfig(t, ns, "reader"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client(t, config).Resource(configMaps).Namespace(ns).List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Error(err)
	}
	if got := Counts(server.Requests(t, User(ns, "reader"))); got["list configmaps"] != 1 {
		t.Errorf("the server was asked by %s: %v", User(ns, "reader"), got)
	}
}

func TestOutages(t *testing.T) {
	s := server
	t.Cleanup(func() {
		if err := s.Restore(); err != nil {
			t.Error(err)
		}
	})
	ns, _ := reader(t)
	// A client of its own: others of the package must not be left with connections that were cut.
	c := client(t, s.Admin()).Resource(configMaps).Namespace(ns)
	list := func(ctx context.Context) error {
		_, err := c.List(ctx, metav1.ListOptions{})
		return err
	}
	if err := list(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.Refuse()
	if err := list(t.Context()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("refused: %v, want connection refused", err)
	}
	if err := s.Restore(); err != nil {
		t.Fatal(err)
	}
	if err := list(t.Context()); err != nil {
		t.Errorf("restored: %v", err)
	}
	s.Hang()
	created := make(chan error)
	go func() {
		_, err := c.Create(t.Context(), &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "late"},
		}}, metav1.CreateOptions{})
		created <- err
	}()
	select {
	case err := <-created:
		t.Errorf("hanging: answered with %v", err)
	default:
	}
	s.proxy.mu.Lock()
	held := !isClosed(s.proxy.flowing)
	s.proxy.mu.Unlock()
	if !held {
		t.Error("hanging: bytes flow")
	}
	if err := s.Restore(); err != nil {
		t.Fatal(err)
	}
	if err := <-created; err != nil {
		t.Errorf("what was sent while the server hung: %v", err)
	}
}

func TestHangingServerAnswersNobody(t *testing.T) {
	t.Cleanup(func() { _ = server.Restore() })
	server.Hang()
	// The deadline is there to end the wait; that it passes is what the test is about.
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := client(t, server.Admin()).Resource(pods).List(ctx, metav1.ListOptions{})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the deadline", err)
	}
}

func TestKilledTestLeavesNoServer(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), startAndWait+"=1")
	cmd.Stderr = os.Stderr
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for scanner := bufio.NewScanner(output); scanner.Scan() && scanner.Text() != "ready"; {
		lines = append(lines, scanner.Text())
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	if len(lines) != 3 {
		t.Fatalf("the server did not start: %q", lines)
	}
	t.Cleanup(func() { os.RemoveAll(lines[0]) })
	for _, pid := range lines[1:] {
		// Whoever is init here may leave it a zombie: that has no command line, and holds nothing.
		err := await.For(t.Context(), "the end of process "+pid, func(context.Context) error {
			if line, err := os.ReadFile("/proc/" + pid + "/cmdline"); err == nil && strings.Contains(string(line), lines[0]) {
				return errors.New("it is running")
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}

func TestStopLeavesNothing(t *testing.T) {
	s, err := New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.Stop()
	s.Stop()
	for _, p := range s.processes {
		if p.ended() == nil {
			t.Errorf("%s is running", p.name)
		}
	}
	if _, err := os.Stat(s.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left: %v", s.dir, err)
	}
}

// A server that cannot run says why, with its own words.
func TestFailedStartShowsTheLog(t *testing.T) {
	dir := t.TempDir()
	p, err := startProcess(dir, "/bin/sh", []string{"-c", "echo no such flag; exit 3"})
	if err != nil {
		t.Fatal(err)
	}
	<-p.done
	if err := p.ended(); err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(p.tail(), "no such flag") {
		t.Errorf("got %v and %q", err, p.tail())
	}
}
